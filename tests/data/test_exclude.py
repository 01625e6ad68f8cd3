"""`data.exclude`: images that a list names are gone, whatever source they come from."""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gsfl_tune.data import prepare
from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.errors import UserError
from tests.data.conftest import configure, fill, picture


def listing(tmp_path, *lines):
    file = tmp_path / "exclude.txt"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(file)


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "birds", {"robin": 8, "wren": 8})


def contents(dataset):
    """Class and pixels of every image by its path."""
    return {
        path: (dataset.classes[label], square.tobytes())
        for images in (dataset.pool, dataset.test)
        for path, label, square in zip(
            images.paths, images.labels, images.squares(range(len(images))), strict=True
        )
    }


def paths(dataset):
    return set(contents(dataset))


def test_images_are_named_in_three_ways_and_counted(folder, tmp_path, cache, monkeypatch):
    monkeypatch.chdir(folder / "wren")
    exclude = listing(
        tmp_path,
        "# seen on Monday",
        str(folder / "robin" / "000.png"),
        "robin/001.png",
        "  002.png  ",
        "",
        "robin/001.png",
    )
    config = configure("folder", folder)
    whole = prepare(config, cache_dir=cache)
    rest = prepare(config.model_copy(update={"exclude": exclude}), cache_dir=cache)
    gone = {folder / "robin" / "000.png", folder / "robin" / "001.png", folder / "wren/002.png"}
    assert paths(whole) - paths(rest) == {str(path) for path in gone}
    assert paths(rest) < paths(whole)
    assert "left out: 3 files: named by data.exclude 3" in rest.notices
    assert rest.digest != whole.digest
    # Labels and pixels of the rest did not move.
    assert contents(rest).items() <= contents(whole).items()


def test_rows_of_parquet_are_named_as_messages_name_them(tmp_path, cache):
    rows = []
    for seed in range(12):
        buffer = io.BytesIO()
        picture(seed).save(buffer, "PNG")
        rows.append(
            {"image": {"bytes": buffer.getvalue(), "path": f"{seed}.png"}, "label": seed % 2}
        )
    file = tmp_path / "photos" / "some.parquet"
    file.parent.mkdir()
    pq.write_table(pa.Table.from_pylist(rows), file)
    config = configure("parquet", file, exclude=listing(tmp_path, "some.parquet#3 (3.png)"))
    rest = prepare(config, cache_dir=cache)
    assert len(paths(rest)) == 11
    assert not any("#3 " in path for path in paths(rest))
    whole = contents(prepare(config.model_copy(update={"exclude": None}), cache_dir=cache))
    assert contents(rest).items() <= whole.items()


def test_lines_without_an_image_are_a_notice(folder, tmp_path, cache):
    exclude = listing(tmp_path, "robin/000.png", "robin/900.png", "wren/901.png")
    dataset = prepare(configure("folder", folder, exclude=exclude), cache_dir=cache)
    told = [notice for notice in dataset.notices if "match" in notice]
    assert told == [
        f"data.exclude: 2 of 3 lines of {exclude} match no image, such as 'robin/900.png'"
    ]


def test_a_class_that_is_gone_is_no_class(folder, tmp_path, cache):
    fill(folder, {"gull": 2}, seed=9000)
    exclude = listing(tmp_path, "gull/000.png", "gull/001.png")
    dataset = prepare(configure("folder", folder, exclude=exclude), cache_dir=cache)
    assert dataset.classes == ["robin", "wren"]
    assert any("1 of 3 classes have no images" in notice for notice in dataset.notices)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,class,part,issue,score,suggestion,reason\n", "line 1: found the header of a table"),
        (b"\xff\xfe\x00a", "not UTF-8"),
        (None, "cannot be read: Is a directory"),
    ],
)
def test_what_is_no_list_is_refused(folder, tmp_path, cache, content, message):
    file = tmp_path / "exclude.txt"
    file.mkdir() if content is None else file.write_bytes(content)
    with pytest.raises(UserError, match=message):
        prepare(configure("folder", folder, exclude=str(file)), cache_dir=cache)


def test_a_missing_list_is_an_error_of_its_line(folder, tmp_path):
    text = f"name: t\ndata:\n  path: {folder}\n  exclude: nowhere.txt\n"
    with pytest.raises(ExperimentError) as caught:
        Experiment.parse(text, file="t.yaml")
    message = str(caught.value)
    assert message.startswith("t.yaml:4: data.exclude: found '")
    assert "nowhere.txt', which does not exist" in message
