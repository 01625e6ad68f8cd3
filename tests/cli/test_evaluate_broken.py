"""Which images are read where the test part of an experiment is evaluated."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from gsfl_tune.data import prepare
from gsfl_tune.experiment.data_config import DataConfig
from gsfl_tune.export import bundle_from_network, load_bundle
from tests.data.conftest import fill
from tests.export.conftest import CLASSES, GROUPS, SIDE


def test_those_of_other_parts_do_not_count(command, bundle_path, tmp_path, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    names = CLASSES[:5]
    fill(tmp_path / "zoo" / "train", dict.fromkeys(names, 6))
    fill(tmp_path / "zoo" / "val", dict.fromkeys(names, 3), seed=100)
    fill(tmp_path / "zoo" / "test", dict.fromkeys(names, 4), seed=200)
    for image in ("train/{}/002.png", "train/{}/001.png", "val/{}/000.png", "test/{}/003.png"):
        (tmp_path / "zoo" / image.format(names[1])).write_bytes(b"nothing")
    file = tmp_path / "zoo.yaml"
    path = tmp_path / "zoo"
    file.write_text(f"name: zoo\ndata: {{source: folder, path: '{path}', max_broken: 0.2}}\n")
    answer = command("evaluate", bundle_path, file, "--json")
    assert answer.code == 0, answer.err
    content = json.loads(answer.out)
    assert (content["part"], content["images"], content["broken"]) == ("test", 19, 1)
    (image,) = content["broken_images"]
    assert image["path"] == str(path / "test" / names[1] / "003.png")
    # Where the test part is chosen, a broken image might have been in it.
    words = ("--set", f"data.path={path / 'train'}", "--json")
    assert json.loads(command("evaluate", bundle_path, file, *words).out)["broken"] == 2


@pytest.fixture
def trained(tmp_path, network, config) -> Path:
    """A bundle of a run on other images, which it names."""
    fill(tmp_path / "other", dict.fromkeys(CLASSES[:5], 8), seed=300)
    data = DataConfig(source="folder", path=str(tmp_path / "other"))
    seen = prepare(data, side=SIDE, cache_dir=tmp_path / "cache of the run").trained_on(
        validation=True
    )
    about = {"classes": CLASSES, "groups": GROUPS, "side": SIDE, "metrics": {}, "trained_on": seen}
    return bundle_from_network(tmp_path / "trained", network, config, **about)


def read(cache: Path) -> list[str]:
    """The images whose bytes were read."""
    files = (cache / "digests").glob("*.arrow")
    return [
        path
        for file in files
        for path in pa.ipc.open_file(file.read_bytes()).read_all()["path"].to_pylist()
    ]


@pytest.mark.parametrize("words", [[], ["--set", "data.split.by=near_duplicate"]])
def test_a_given_test_part_needs_no_other_image(command, trained, tmp_path, monkeypatch, words):
    """The others may be on another machine, or be many: none of them is read or decoded."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(cache))
    zoo = tmp_path / "zoo"
    fill(zoo / "train", dict.fromkeys(CLASSES[:5], 6))
    fill(zoo / "test", dict.fromkeys(CLASSES[:5], 4), seed=200)
    file = tmp_path / "zoo.yaml"
    file.write_text(f"name: zoo\ndata: {{source: folder, path: '{zoo}'}}\n")
    found = []
    for data in ([file, *words], [zoo]):
        answer = command("evaluate", trained, *data, "--json")
        assert answer.code == 0, answer.err
        content = json.loads(answer.out)
        assert (content["part"], content["images"], content["broken"]) == ("test", 20, 0)
        found.append(content["metrics"])
    assert {*read(cache)} == {*map(str, (zoo / "test").rglob("*.png"))}
    expected = json.loads(command("evaluate", trained, zoo / "test", "--json").out)
    assert found == [expected["metrics"]] * 2


def test_the_file_of_a_search_is_used_again(command, bundle_path, tmp_path, monkeypatch):
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    zoo = tmp_path / "zoo"
    fill(zoo / "train", dict.fromkeys(CLASSES[:5], 6))
    fill(zoo / "test", dict.fromkeys(CLASSES[:5], 4), seed=200)
    data = DataConfig(
        source="folder", path=str(zoo), fit=load_bundle(bundle_path).preprocessing.fit
    )
    dataset = prepare(data, side=SIDE, cache_dir=tmp_path / "cache")
    before = sorted((tmp_path / "cache" / "decoded").glob("*.arrow"))
    file = tmp_path / "zoo.yaml"
    file.write_text(f"name: zoo\ndata: {{source: folder, path: '{zoo}'}}\n")
    answer = command("evaluate", bundle_path, file, "--json")
    assert json.loads(answer.out)["images"] == len(dataset.test)
    assert sorted((tmp_path / "cache" / "decoded").glob("*.arrow")) == before
