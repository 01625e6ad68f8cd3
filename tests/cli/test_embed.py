"""``gsfl-tune embed``."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from sklearn.neighbors import NearestNeighbors

from gsfl_tune.bundles.architecture import Architecture
from gsfl_tune.embed import Images, embed
from gsfl_tune.experiment import UserError
from gsfl_tune.export import bundle_from_network, load_bundle, shared_tensors, write_bundle
from tests.export.conftest import CLASSES, GROUPS, SIDE


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path) -> Path:
    """Six images of three classes, train and test."""
    generator = np.random.default_rng(1)
    for part in ("train", "test"):
        for name in CLASSES[:3]:
            for number in range(2 if part == "train" else 1):
                file = tmp_path / "pets" / part / name / f"{number}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                pixels = generator.integers(0, 256, size=(5, 4, 3), dtype=np.uint8)
                Image.fromarray(pixels).resize((40, 50)).save(file)
    return tmp_path / "pets"


@pytest.fixture
def whole_bundle(tmp_path, config, network, bundle_path) -> Path:
    """A bundle with the shared branch."""
    plain = load_bundle(bundle_path)
    centers = {"centers.centers": network.head.classifier.weight.detach().clone()}
    return write_bundle(
        tmp_path / "whole",
        network_state=network.inference_state(),
        architecture=Architecture.of(config, network, len(CLASSES)),
        config=config.model_dump(mode="json"),
        classes=CLASSES,
        groups=plain.groups,
        preprocessing=plain.preprocessing,
        metrics={},
        shared={**shared_tensors(network), **centers},
    )


def columns(file: Path) -> dict[str, np.ndarray]:
    table = pq.read_table(file)
    lists = {name for name in table.column_names if pa.types.is_fixed_size_list(table[name].type)}
    return {
        name: np.array(table[name].to_pylist(), np.float32 if name in lists else None)
        for name in table.column_names
    }


def test_all_images_with_labels_parts_and_what_the_network_makes_of_them(
    command, whole_bundle, network, folder, tmp_path
):
    out = tmp_path / "new" / "features.parquet"
    answer = command("embed", whole_bundle, folder, "-o", out)
    assert (answer.code, answer.err) == (0, "")
    wide = network.backbone.channels
    assert answer.out == f"wrote 9 rows to {out} (f {wide:,}, d 24, s 24 numbers each)\n"
    found = columns(out)
    files = [*sorted(folder.glob("test/*/*.png")), *sorted(folder.glob("train/*/*.png"))]
    assert sorted(found["path"]) == sorted(map(str, files))
    for path, part, label in zip(found["path"], found["part"], found["label"], strict=True):
        assert Path(path).parts[-3:-1] == (part, label)
    schema = pq.read_schema(out)
    assert schema.field("f").type == pa.list_(pa.float32(), wide)
    assert schema.field("s").type == pa.list_(pa.float32(), 24)
    # The unit feature, and what the head of the network that was exported makes of it.
    assert np.linalg.norm(found["f"], axis=1) == pytest.approx(1.0, abs=1e-5)
    with torch.inference_mode():
        output = network.head(torch.from_numpy(found["f"]))
    assert found["d"] == pytest.approx(output.discriminative.numpy(), abs=1e-4)
    assert found["s"] == pytest.approx(output.shared.numpy(), abs=1e-4)
    expected = load_bundle(whole_bundle).predict(found["path"].tolist(), top=1)
    assert found["prediction"].tolist() == [each.classes[0] for each in expected]
    assert found["probability"] == pytest.approx(
        [each.probabilities[0] for each in expected], abs=1e-5
    )


def test_a_bundle_without_the_shared_branch_has_no_s(command, bundle_path, folder, tmp_path):
    answer = command("embed", bundle_path, folder, "-o", tmp_path / "f.parquet")
    assert answer.code == 0, answer.err
    assert "s" not in pq.read_schema(tmp_path / "f.parquet").names


def test_an_experiment_gives_its_split(command, bundle_path, folder, tmp_path):
    for file in folder.glob("train/*/*.png"):
        for number in range(4):
            with Image.open(file) as image:
                image.rotate(90 * number + 45).save(file.with_name(f"{file.stem}-{number}.png"))
    file = tmp_path / "pets.yaml"
    file.write_text(f"name: pets\ndata:\n  path: '{folder}'\n  split: {{validation: 0.2}}\n")
    answer = command("embed", bundle_path, file, "-o", tmp_path / "f.parquet")
    assert answer.code == 0, answer.err
    table = pq.read_table(tmp_path / "f.parquet").to_pandas()
    assert table["part"].value_counts().to_dict() == {"train": 24, "validation": 6, "test": 3}
    with_path = command("embed", bundle_path, folder, "-o", tmp_path / "g.parquet")
    assert with_path.code == 0
    # The same pixels, whether they come from the cache or from the file.
    other = pq.read_table(tmp_path / "g.parquet").to_pandas().set_index("path")
    again = np.stack(other.loc[table["path"], "f"].to_numpy())
    assert again == pytest.approx(np.stack(table["f"].to_numpy()), abs=1e-5)


def test_a_bundle_of_boxes_has_features_of_boxes(command, network, config, bundle_path, tmp_path):
    """Photographs of two things side by side give what the halves themselves give."""
    places = {name: tmp_path / name for name in ("halves", "photographs")}
    rows = ["file_name,label,x,y,width,height"]
    for number in range(4):
        photograph = Image.new("RGB", (80, 50))
        for x, name in ((0, "ant"), (40, "bee")):
            pixels = np.random.default_rng(number + x).integers(0, 256, (5, 4, 3), dtype=np.uint8)
            half = Image.fromarray(pixels).resize((40, 50))
            photograph.paste(half, (x, 0))
            (places["halves"] / name).mkdir(parents=True, exist_ok=True)
            half.save(places["halves"] / name / f"{number}.png")
            rows.append(f"{number}.png,{name},{x},0,40,50")
        places["photographs"].mkdir(exist_ok=True)
        photograph.save(places["photographs"] / f"{number}.png")
    table = places["photographs"] / "boxes.csv"
    table.write_text("\n".join(rows))
    data = config.data.model_copy(update={"crop": "box", "crop_margin": 0.0})
    boxed = config.model_copy(update={"data": data})
    arguments = {"classes": CLASSES, "groups": GROUPS, "side": SIDE, "metrics": {}}
    bundle_from_network(tmp_path / "boxed", network, boxed, **arguments)
    assert command("embed", bundle_path, places["halves"], "-o", tmp_path / "a").code == 0
    expected = pq.read_table(tmp_path / "a").to_pandas().sort_values(["label", "path"])
    for number, path in enumerate((table, places["photographs"])):
        answer = command("embed", tmp_path / "boxed", path, "-o", tmp_path / f"b{number}")
        assert (answer.code, "trained on boxes" in answer.err) == (0, False), answer.err
        found = pq.read_table(tmp_path / f"b{number}").to_pandas().sort_values(["label", "path"])
        assert found["label"].tolist() == ["ant"] * 4 + ["bee"] * 4
        assert np.stack(found["f"]) == pytest.approx(np.stack(expected["f"]), abs=1e-5)
    # Without boxes the images are whole, and that is said.
    shutil.copytree(places["photographs"], tmp_path / "bare", ignore=lambda *_: ["boxes.csv"])
    for path in (places["halves"], tmp_path / "bare"):
        answer = command("embed", tmp_path / "boxed", path, "-o", tmp_path / "c")
        assert answer.code == 0
        assert "the bundle was trained on boxes cut out of images; these have none" in answer.err


def test_images_without_labels(command, bundle_path, images, tmp_path):
    loose = tmp_path / "loose"
    loose.mkdir()
    for image in images[:3]:
        shutil.copy(image, loose)
    (loose / "notes.txt").touch()
    (loose / "broken.png").write_bytes(b"nothing")
    answer = command("embed", bundle_path, loose, "-o", tmp_path / "f.parquet")
    assert answer.code == 1
    table = pq.read_table(tmp_path / "f.parquet").to_pandas()
    assert table["path"].tolist() == [str(loose / image.name) for image in images[:3]]
    assert table["label"].isna().all()
    assert table["part"].isna().all()
    assert "no labels, because this is not a data set" in answer.err
    assert "broken.png: cannot be read as an image" in answer.err
    assert "1 of 4 could not be read" in answer.err
    # Each image is its own nearest neighbour.
    f = np.stack(table["f"].to_numpy())
    near = NearestNeighbors(n_neighbors=1, metric="cosine").fit(f).kneighbors(f)[1]
    assert near[:, 0].tolist() == [0, 1, 2]


def test_names_that_are_not_utf_8(command, bundle_path, images, folder, tmp_path):
    """A plain folder embeds them, with U+FFFD in the name; a data set leaves them out."""
    out = tmp_path / "features.parquet"
    odd = os.fsdecode(b"\xfcber.png")
    (tmp_path / "album").mkdir()
    for name in ("a.png", odd):
        shutil.copy(images[1], tmp_path / "album" / name)
    answer = command("embed", bundle_path, tmp_path / "album", "-o", out)
    assert answer.code == 0
    names = [Path(path).name for path in columns(out)["path"]]
    assert names == ["a.png", "\ufffdber.png"]
    shutil.copy(images[1], folder / "test" / CLASSES[0] / odd)
    answer = command("embed", bundle_path, folder, "-o", out)
    assert "left out: 1 file: names that are not UTF-8 1" in answer.err
    assert len(columns(out)["path"]) == 9


def test_parquet_files_have_features_too(command, bundle_path, folder, tmp_path):
    files = sorted(folder.rglob("*.png"))
    rows = {
        "image": [{"bytes": file.read_bytes(), "path": file.name} for file in files],
        "label": [file.parent.name for file in files],
    }
    pq.write_table(pa.table(rows), tmp_path / "birds.parquet")
    out = tmp_path / "f.parquet"
    answer = command("embed", bundle_path, tmp_path / "birds.parquet", "-o", out)
    assert answer.code == 0, answer.err
    assert pq.read_table(out)["label"].to_pylist() == rows["label"]


def test_what_has_no_features_is_refused(command, bundle_path, folder, tmp_path, config, network):
    old = tmp_path / "old.parquet"
    old.write_bytes(b"old")
    answer = command("embed", bundle_path, tmp_path / "nothing", "-o", old)
    assert (answer.code, "does not exist" in answer.err) == (2, True)
    assert old.read_bytes() == b"old"
    answer = command("embed", bundle_path, folder, "-o", tmp_path)
    assert (answer.code, "is a directory" in answer.err) == (2, True)
    answer = command("embed", bundle_path, folder, "-o", old, "--set", "data.fit=pad")
    assert (answer.code, "--set" in answer.err) == (2, True)


@pytest.mark.slow
def test_an_onnx_bundle_has_no_features(command, trained_run, cache_dir, folder, tmp_path):
    pytest.importorskip("onnxruntime")
    from gsfl_tune.export import Options, export_run

    options = Options(format="onnx", seconds=0.0, threads=1)
    path = export_run(trained_run.path, tmp_path / "onnx", options=options, cache_dir=cache_dir)
    answer = command("embed", path, folder, "-o", tmp_path / "f.parquet")
    assert answer.code == 2
    assert "exported as onnx, which holds no PyTorch network" in answer.err
    assert not (tmp_path / "f.parquet").exists()


def test_a_table_that_cannot_be_read_is_no_image(command, bundle_path, tmp_path):
    (tmp_path / "birds.parquet").write_bytes(b"PAR1 and nothing else")
    answer = command("embed", bundle_path, tmp_path / "birds.parquet", "-o", tmp_path / "f.parquet")
    assert answer.code == 2
    assert "birds.parquet" in answer.err
    assert "without labels" not in answer.err


def test_an_experiment_has_features_of_boxes_as_the_bundle_was_trained(
    command, network, config, tmp_path
):
    """Whatever the file says of boxes; where the images have none, that is said."""
    lines = ["file_name,label,x,y,width,height"]
    (tmp_path / "pets").mkdir()
    for number in range(8):
        pixels = np.random.default_rng(number).integers(0, 256, (5, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((80, 50)).save(tmp_path / "pets" / f"{number}.png")
        lines += [f"{number}.png,{name},{x},0,40,50" for name, x in (("ant", 0), ("bee", 40))]
    (tmp_path / "pets" / "boxes.csv").write_text("\n".join(lines))
    data = config.data.model_copy(update={"crop": "box", "crop_margin": 0.0})
    boxed = config.model_copy(update={"data": data})
    arguments = {"classes": CLASSES, "groups": GROUPS, "side": SIDE, "metrics": {}}
    bundle_from_network(tmp_path / "boxed", network, boxed, **arguments)
    file = tmp_path / "pets.yaml"
    file.write_text(f"name: pets\ndata: {{source: csv, path: '{tmp_path / 'pets/boxes.csv'}'}}\n")
    answer = command("embed", tmp_path / "boxed", file, "-o", tmp_path / "a")
    assert (answer.code, "trained on boxes" in answer.err) == (0, False), answer.err
    command("embed", tmp_path / "boxed", tmp_path / "pets" / "boxes.csv", "-o", tmp_path / "b")
    found, expected = (
        pq.read_table(tmp_path / name).to_pandas().sort_values(["path", "label"]) for name in "ab"
    )
    assert len(found) == len(expected) == 16
    assert np.stack(found["f"]) == pytest.approx(np.stack(expected["f"]), abs=1e-5)
    (tmp_path / "pets" / "whole.csv").write_text(
        "\n".join(["file_name,label", *(f"{n}.png,{CLASSES[n % 2]}" for n in range(8))])
    )
    file.write_text(f"name: pets\ndata: {{source: csv, path: '{tmp_path / 'pets/whole.csv'}'}}\n")
    answer = command("embed", tmp_path / "boxed", file, "-o", tmp_path / "c")
    assert (answer.code, "trained on boxes" in answer.err) == (0, True), answer.err


def test_images_without_a_label_have_no_row_and_that_is_said(
    command, bundle_path, folder, tmp_path
):
    files = sorted(folder.rglob("*.png"))
    labels = [None if number < 2 else file.parent.name for number, file in enumerate(files)]
    images = [{"bytes": file.read_bytes(), "path": file.name} for file in files]
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "birds.parquet")
    answer = command("embed", bundle_path, tmp_path / "birds.parquet", "-o", tmp_path / "f")
    assert answer.code == 0
    assert pq.read_table(tmp_path / "f")["label"].to_pylist() == labels[2:]
    assert "2 images have no label and so no row" in answer.err


def test_images_that_cannot_be_read_are_no_fault_of_the_table(bundle_path, tmp_path):
    def batches():
        raise OSError(5, "Input/output error", "shard-0.tar")
        yield

    with pytest.raises(UserError, match=r"the images cannot be read .*shard-0\.tar"):
        embed(load_bundle(bundle_path), Images(batches(), None, []), tmp_path / "f")
