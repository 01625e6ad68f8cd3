"""Datasets that the `datasets` library itself saved."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pyarrow as pa
import pytest

from gsfl_tune.data import load_square, prepare
from gsfl_tune.data.labelled_images import open_for_evaluation
from gsfl_tune.data.sources import ArrowSource, FolderSource, count_classes, detect_source
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, picture, save

datasets = pytest.importorskip("datasets")

NAMES = ["hat", "shoe", "tie"]


def saved(count, *, seed=0, names=NAMES):
    """A `Dataset` of `count` images; image i is `picture(seed + i)` and has the label i % 3."""
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=names)}
    )
    rows = {
        "image": [picture(seed + number) for number in range(count)],
        "label": [number % len(names) for number in range(count)],
    }
    return datasets.Dataset.from_dict(rows, features=features)


def seeds(images, side, count, seed=0):
    """Which pictures the squares of a data set are, found by their pixels."""
    known = {load_square(picture(seed + n), side)[0].tobytes(): seed + n for n in range(count)}
    return [known[images.gather(np.array([i]))[0].tobytes()] for i in range(len(images))]


def test_a_dataset_by_itself(tmp_path, cache):
    saved(18).save_to_disk(tmp_path / "birds")
    dataset = prepare(configure("arrow", tmp_path / "birds"), cache_dir=cache)
    assert dataset.classes == NAMES
    assert len(dataset.pool) + len(dataset.test) == 18
    assert not dataset.given_test
    for images in (dataset.pool, dataset.test):
        found = seeds(images, dataset.pool.side, 18)
        assert [seed % 3 for seed in found] == images.labels.tolist()
        # A row is called by its number, as the library counts.
        rows = [int(path.rpartition("#")[2].split()[0]) for path in images.paths]
        assert rows == found


def test_splits_and_several_files(tmp_path, cache):
    whole = datasets.DatasetDict(
        {"train": saved(15), "validation": saved(6, seed=100), "test": saved(6, seed=200)}
    )
    whole.save_to_disk(tmp_path / "birds", num_shards={"train": 4, "validation": 1, "test": 2})
    assert len(list((tmp_path / "birds" / "train").glob("*.arrow"))) == 4
    dataset = prepare(configure("arrow", tmp_path / "birds"), cache_dir=cache)
    assert dataset.summary()["counts"] == {"train": 15, "validation": 6, "test": 6}
    assert seeds(dataset.test, dataset.pool.side, 6, 200) == [200 + n for n in range(6)]
    assert detect_source(str(tmp_path / "birds")) == "arrow"
    assert count_classes(configure("auto", tmp_path / "birds")) == 3
    evaluated = open_for_evaluation(tmp_path / "birds", 18, "crop", cache)
    assert (evaluated.part, len(evaluated.images)) == ("test", 6)


@pytest.mark.parametrize("how", ["shuffle", "select"])
def test_a_dataset_that_was_shuffled_or_selected_from(tmp_path, cache, how):
    whole = saved(24)
    part = whole.shuffle(seed=1) if how == "shuffle" else whole.select([*range(20, 2, -1)])
    assert part._indices is not None
    part.save_to_disk(tmp_path / "birds")
    expected = {load_square(image, 19)[0].tobytes() for image in part["image"]}
    dataset = prepare(configure("arrow", tmp_path / "birds"), cache_dir=cache)
    squares = [
        images.gather(np.array([i]))[0].tobytes()
        for images in (dataset.pool, dataset.test)
        for i in range(len(images))
    ]
    assert set(squares) == expected
    assert len(squares) == len(part)


def with_indices(folder, order):
    """Puts an indices mapping beside saved files, as early versions of the library did."""
    schema = pa.schema([("indices", pa.uint64())])
    file = str(folder / "indices.arrow")
    with pa.OSFile(file, "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for part in (order[:5], order[5:]):
            writer.write_batch(pa.record_batch([pa.array(part, pa.uint64())], schema=schema))
    state = json.loads((folder / "state.json").read_text())
    state["_indices_data_files"] = [{"filename": "indices.arrow"}]
    (folder / "state.json").write_text(json.dumps(state))


def test_an_indices_mapping_is_followed(tmp_path, cache):
    saved(24).save_to_disk(tmp_path / "birds", num_shards=3)
    order = [23, 0, 9, 4, 16, 12, 1, 20, 15, 3, 11, 8, 7, 10, 2]
    with_indices(tmp_path / "birds", order)
    source = ArrowSource(str(tmp_path / "birds"))
    assert [sample.label for sample in source.samples] == [place % 3 for place in order]
    dataset = prepare(configure("arrow", tmp_path / "birds"), cache_dir=cache)
    found = []
    for images in (dataset.pool, dataset.test):
        for path, seed in zip(images.paths, seeds(images, dataset.pool.side, 24), strict=True):
            assert seed == order[int(path.rpartition("#")[2].split()[0])]
            found.append(seed)
    assert sorted(found) == sorted(order)
    with_indices(tmp_path / "birds", [*order, 24])
    with pytest.raises(UserError, match="its indices name row 24, allowed are 0 to 23"):
        ArrowSource(str(tmp_path / "birds"))


def test_the_rows_are_those_that_the_library_loads(tmp_path):
    whole = saved(20).train_test_split(0.3, seed=0)
    whole.save_to_disk(tmp_path / "birds")
    source = ArrowSource(str(tmp_path / "birds"))
    for part in ("train", "test"):
        loaded = datasets.load_from_disk(str(tmp_path / "birds"))[part]
        mine = [i for i, sample in enumerate(source.samples) if sample.part == part]
        assert [source.samples[i].label for i in mine] == loaded["label"][:]
        raw = loaded.cast_column("image", datasets.Image(decode=False))
        contents = [reader() for _, reader in source.readers(mine)]
        assert contents == [row["image"]["bytes"] for row in raw]


def test_images_are_not_read_to_list_them(tmp_path):
    """The file is mapped: Arrow allocates labels and names, and one image after the other."""
    rows = {"image": [picture(n, (120, 100)) for n in range(60)], "label": [0, 1, 2] * 20}
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)}
    )
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "birds")
    (file,) = (tmp_path / "birds").glob("*.arrow")
    before = pa.total_allocated_bytes()
    source = ArrowSource(str(tmp_path / "birds"))
    most = pa.total_allocated_bytes()
    for _, reader in source.readers(range(60)):
        assert len(reader()) > 10_000
        most = max(most, pa.total_allocated_bytes())
    assert file.stat().st_size > 1_000_000
    assert most - before < 100_000


def test_columns_are_chosen_as_in_parquet(tmp_path, cache):
    whole = saved(12).rename_column("label", "fine")
    whole = whole.add_column("coarse", ["x", "y"] * 6)
    whole.save_to_disk(tmp_path / "birds")
    with pytest.raises(UserError, match=r"birds: data\.label_column: no column corse, but the col"):
        prepare(configure("arrow", tmp_path / "birds", label_column="corse"), cache_dir=cache)
    config = configure("arrow", tmp_path / "birds", label_column="coarse")
    assert prepare(config, cache_dir=cache).classes == ["x", "y"]
    config = configure("arrow", tmp_path / "birds", label_column="fine")
    assert prepare(config, cache_dir=cache).classes == NAMES
    assert count_classes(config) == 3


def test_rows_without_labels_and_images_beside(tmp_path, cache):
    files = [str(save(tmp_path / "images" / f"{n}.png", n)) for n in range(24)]
    rows = {"image": files, "label": [0, 1, 2] * 7 + [-1, -1, 0]}
    features = datasets.Features(
        {"image": datasets.Image(decode=False), "label": datasets.ClassLabel(names=NAMES)}
    )
    whole = datasets.Dataset.from_dict(rows, features=features)
    whole.save_to_disk(tmp_path / "birds")
    dataset = prepare(configure("arrow", tmp_path / "birds"), cache_dir=cache)
    assert "left out: 2 rows: without a label 2" in dataset.notices
    assert len(dataset.pool) + len(dataset.test) == 22
    assert not dataset.broken


def test_folders_that_were_saved_one_by_one(tmp_path, cache):
    saved(12).save_to_disk(tmp_path / "train")
    saved(6, seed=100).save_to_disk(tmp_path / "test")
    dataset = prepare(configure("arrow", tmp_path), cache_dir=cache)
    assert dataset.summary()["counts"]["test"] == 6
    assert dataset.given_test


def test_what_is_wrong_is_said(tmp_path, cache):
    with pytest.raises(UserError, match=r"has neither dataset_dict\.json nor state\.json"):
        ArrowSource(str(tmp_path))
    with pytest.raises(UserError, match=r"s3://birds/saved: must be a folder of this machine"):
        ArrowSource("s3://birds/saved")
    whole = datasets.DatasetDict({"train": saved(9), "test": saved(3, seed=50, names=NAMES[::-1])})
    whole.save_to_disk(tmp_path / "birds")
    with pytest.raises(UserError, match=r"test: its class names differ from those of .*train"):
        prepare(configure("arrow", tmp_path / "birds"), cache_dir=cache)
    with pytest.raises(UserError, match=r"set data\.source: arrow"):
        prepare(configure("folder", tmp_path / "birds"), cache_dir=cache)
    assert FolderSource(str(tmp_path / "birds")).problems
    (file,) = (tmp_path / "birds" / "train").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"birds/train.*cannot be read"):
        ArrowSource(str(tmp_path / "birds"))
    # Cut between two batches: the reader takes that for the end.
    saved(9).save_to_disk(tmp_path / "one")
    (whole_file,) = (tmp_path / "one").glob("*.arrow")
    whole_file.write_bytes(whole_file.read_bytes()[:-8])
    with pytest.raises(UserError, match="ends too early"):
        ArrowSource(str(tmp_path / "one"))
    file.unlink()
    with pytest.raises(UserError, match=rf"_data_files: {file.name} is not there"):
        ArrowSource(str(tmp_path / "birds"))
    state = tmp_path / "birds" / "train" / "state.json"
    state.write_text(json.dumps({"_data_files": [{"filename": "../../secret.arrow"}]}))
    with pytest.raises(UserError, match=r"found '\.\./\.\./secret\.arrow', allowed names of files"):
        ArrowSource(str(tmp_path / "birds"))
    shutil.rmtree(tmp_path / "birds" / "train")
    with pytest.raises(UserError, match=r"names splits without a folder with state\.json: train"):
        ArrowSource(str(tmp_path / "birds"))
