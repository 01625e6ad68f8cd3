"""`data.split.together`: sets that a table names are in one part, whatever divides the rest."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from gsfl_tune.cli import main
from gsfl_tune.data import prepare
from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill

REAL = os.environ.get("GSFL_TUNE_REAL_DATA")


def parts_of(dataset) -> dict[str, str]:
    """The part of every image, by its name."""
    parts = dict.fromkeys(dataset.pool.paths, "train")
    parts |= {dataset.pool.paths[row]: "validation" for row in dataset.validation_index}
    parts |= dict.fromkeys(dataset.test.paths, "test")
    return {
        str(Path(path).relative_to(Path(path).parents[1])): part for path, part in parts.items()
    }


def written(folder: Path, *rows: str) -> str:
    file = folder / "together.csv"
    file.write_text("\n".join(["path,class,part,set", *rows]) + "\n", encoding="utf-8")
    return str(file)


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "birds", {"robin": 20, "wren": 20})


SETS = [[f"{name}/{n:03d}.png" for n in (k, k + 7)] for name in ("robin", "wren") for k in range(6)]


@pytest.mark.parametrize("by", ["image", "auto", "near_duplicate"])
def test_images_of_a_set_are_in_one_part(folder, tmp_path, cache, by):
    rows = [f"{path},x,train,alike {n}" for n, paths in enumerate(SETS) for path in paths]
    sets = SETS
    if by != "near_duplicate":  # a class of twenty has few clusters
        # A set of two classes, which shares an image with another one.
        rows += ["robin/000.png,robin,train,more", "wren/019.png,wren,test,more"]
        sets = [[*SETS[0], "wren/019.png"], *SETS[1:]]
    apart = 0
    for seed in range(3):
        split = {"by": by, "seed": seed}
        alone = parts_of(prepare(configure("folder", folder, split=split), cache_dir=cache))
        apart += sum(len({alone[path] for path in paths}) > 1 for paths in sets)
        split["together"] = written(tmp_path, *rows)
        dataset = prepare(configure("folder", folder, split=split), cache_dir=cache)
        parts = parts_of(dataset)
        assert all(len({parts[path] for path in paths}) == 1 for paths in sets)
        assert set(parts.values()) == {"train", "validation", "test"}
        count = sum(map(len, sets))
        told = f"data.split.together: {count} images in 12 sets, which no split divides"
        assert told in dataset.notices
        # Another table is another split, also where its file has the same name.
        split["together"] = written(tmp_path, "robin/000.png,robin,train,one")
        again = prepare(configure("folder", folder, split=split), cache_dir=cache)
        assert parts_of(again) == alone
    assert apart > 5


def test_images_of_a_set_with_given_test_images_are_left_out_of_training(tmp_path, cache):
    root = fill(tmp_path / "birds", {f"{part}/{n}": 8 for part in ("train", "test") for n in "ab"})
    rows = ["train/a/000.png,a,train,1", "test/a/003.png,a,test,1", "gone.png,a,test,1"]
    for by in ("auto", "image"):
        split = {"by": by, "together": written(tmp_path, *rows)}
        dataset = prepare(configure("folder", root, split=split), cache_dir=cache)
        assert dataset.duplicates.dropped == [str(root / "train" / "a" / "000.png")]
        assert sum(dataset.summary()["counts"].values()) == 31
        assert (
            f"data.split.together: 1 of 3 lines of {split['together']} match no image, such as "
            "'gone.png'"
        ) in dataset.notices


def test_why_images_are_left_out_is_said_of_the_sets_that_there_are(
    tmp_path, cache, capsys, monkeypatch
):
    parts = ("train", "val", "test")
    root = fill(tmp_path / "birds", {f"{part}/{n}": 8 for part in parts for n in "ab"})
    image = Image.open(root / "test" / "a" / "003.png")
    image.resize((90, 70)).save(root / "train" / "a" / "copy.jpg", quality=80)

    def said(table: str | None) -> str:
        split = {"together": table}
        notices = prepare(configure("folder", root, split=split), cache_dir=cache).notices
        (told,) = [line for line in notices if "left out, of which a given" in line]
        return told

    # A table that matches nothing is like none, also where both are kept in one cache.
    for table in (written(tmp_path, "gone.png,a,test,1", "lost.png,a,test,1"), None):
        assert said(table).endswith(
            "1 image is left out, of which a given test or validation part has a copy (of another "
            "size, compression, brightness or contrast, mirrored, or cut); data.split.by: image "
            "leaves out byte-identical copies alone"
        )
    table = written(tmp_path, "train/a/000.png,a,train,1", "test/a/003.png,a,test,1")
    told = said(table)
    assert told.startswith("2 images are left out")
    assert told.endswith(
        "mirrored, or cut, or by data.split.together); data.split.by: image leaves out "
        "byte-identical copies and those sets alone"
    )
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)  # where the contact sheet is written
    words = "left out, as the test or validation part has the same image"
    assert main(["data", str(root)]) == 0
    assert f"{words}: 1" in capsys.readouterr().out
    assert main(["data", str(root), "--set", f"data.split.together={table}"]) == 0
    assert f"{words}, or one of its set: 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            b"path,class\na.png,b\n",
            "found the columns path, class, allowed a table with path and",
        ),
        (b"", "together.csv: empty"),
        (b"path,set\n\xff,1\n", "2: found bytes that are not UTF-8, allowed text in UTF-8 or"),
        (
            b"path,class,part,set\na,b.png,x,train,alike 1\nc,d.png,x,train,alike 1\n",
            "found another number of fields than the 4 of the header in lines 2 .5., 3 .5.",
        ),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_what_is_no_table_of_sets_is_refused(folder, tmp_path, cache, content, message):
    file = tmp_path / "together.csv"
    file.mkdir() if content is None else file.write_bytes(content)
    config = configure("folder", folder, split={"together": str(file)})
    with pytest.raises(UserError, match=message) as caught:
        prepare(config, cache_dir=cache)
    assert str(caught.value).startswith(f"data.split.together: {file}")


@pytest.mark.parametrize(
    ("encoding", "delimiter"), [("utf-8-sig", ";"), ("utf-16", "\t"), ("utf-8", ",")]
)
def test_tables_that_spreadsheets_save_are_read(folder, tmp_path, cache, encoding, delimiter):
    rows = [("path", "class", "part", "set")]
    rows += [(path, "x", "train", f"{n}") for n, paths in enumerate(SETS) for path in paths]
    # Lines of which a person has deleted the set.
    rows += [("robin/019.png", "robin", "train", ""), ("wren/019.png", "wren", "train", " ")]
    file = tmp_path / "together.csv"
    file.write_text("\r\n".join(map(delimiter.join, rows)), encoding=encoding, newline="")
    split = {"together": str(file)}
    dataset = prepare(configure("folder", folder, split=split), cache_dir=cache)
    parts = parts_of(dataset)
    assert all(len({parts[path] for path in paths}) == 1 for paths in SETS)
    told = [line for line in dataset.notices if line.startswith("data.split.together")]
    assert told == [
        "data.split.together: 24 images in 12 sets, which no split divides",
        f"data.split.together: 2 of 26 lines of {file} lack a path or a set",
    ]


def test_a_missing_table_is_an_error_of_its_line(folder):
    text = f"name: t\ndata:\n  path: {folder}\n  split: {{together: nowhere.csv}}\n"
    with pytest.raises(ExperimentError) as caught:
        Experiment.parse(text, file="t.yaml")
    message = str(caught.value)
    assert message.startswith("t.yaml:4: data.split.together: found '")
    assert "nowhere.csv', which does not exist; allowed a CSV file with the columns" in message


def turned(image: Image.Image) -> Image.Image:
    """Turned by four degrees and cut: no copy to the eye of a split, and one to features."""
    w, h = image.size
    edges = tuple(round(edge) for edge in (0.06 * w, 0.06 * h, 0.94 * w, 0.94 * h))
    return image.rotate(4, Image.Resampling.BICUBIC).crop(edges)


@pytest.mark.real_data
@pytest.mark.skipif(not REAL, reason="GSFL_TUNE_REAL_DATA is not set")
def test_what_features_alone_find_of_photographs_is_kept_in_one_part(tmp_path, cache, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(cache))
    monkeypatch.chdir(tmp_path)
    [test] = Path(REAL, "clothing").glob("*test*.parquet")
    contents = [row["bytes"] for row in pq.read_table(test).column("image").to_pylist()[:60]]
    pairs = []
    for number, content in enumerate(contents):
        image = Image.open(io.BytesIO(content)).convert("RGB")
        place = tmp_path / "photos" / f"class {number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number:02d}.jpg", quality=95)
        if number < 12:
            turned(image).save(place / f"turned-{number:02d}.jpg", quality=95)
            pairs.append([f"{place.name}/{name}{number:02d}.jpg" for name in ("", "turned-")])
    assert main(["data", "photos", "--issues", "--out", "found"]) == 0
    straddling = {None: 0, "found/together.csv": 0}
    for table in straddling:
        for seed in range(4):
            split = {"seed": seed, "together": table}
            dataset = prepare(
                configure("folder", tmp_path / "photos", split=split), cache_dir=cache
            )
            parts = parts_of(dataset)
            straddling[table] += sum(parts[one] != parts[other] for one, other in pairs)
    # Of 48 pairs, a split of single images divides about half.
    assert straddling[None] >= 12
    assert straddling["found/together.csv"] <= 4
