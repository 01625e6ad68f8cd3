"""``gsfl-tune synthesize``: exit codes, what it prints, and how it goes on."""

from __future__ import annotations

import json

import pytest

from gsfl_tune.synthesis.generator import Generator
from tests.synthesis.conftest import CLASSES, pipeline, write_photos
from tests.synthesis.test_model_files import write

__all__ = ["pipeline"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A directory with images; its cache is its own."""
    monkeypatch.setenv("GSFL_TUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write_photos(tmp_path / "photos")
    return tmp_path


def test_an_experiment_gives_the_images_and_the_split(command, here, pipeline):
    (here / "trees.yaml").write_text(
        "name: trees\ndata: {source: folder, path: photos, image_size: 16}\n"
    )
    words = ["synthesize", "trees.yaml", "--model", pipeline, "-o", "made", "--steps", 2]
    done = command(*words, "--per-class", 1, "--set", "data.split.seed=3")
    assert done.code == 0, done.err
    assert "3 images of 3 classes are there, 3 were made now" in done.out
    assert done.out.endswith("to train on them: data.synthetic: made\n")
    for name in CLASSES:
        assert f"{name}: 1 images" in done.err
    # The same split takes all of them.
    (here / "more.yaml").write_text(
        "name: trees\n"
        "data: {source: folder, path: photos, image_size: 16, synthetic: made, split: {seed: 3}}\n"
    )
    shown = command("data", "more.yaml", "--json")
    assert json.loads(shown.out)["synthetic"] == 3
    checked = command("check", "more.yaml")
    assert "data.synthetic: 3 images for the training part" in checked.out + checked.err


def test_an_interrupt_says_how_to_go_on(command, here, pipeline, monkeypatch):
    image, calls = Generator.image, []

    def asked(self, *arguments):
        calls.append(arguments)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return image(self, *arguments)

    monkeypatch.setattr(Generator, "image", asked)
    words = ["synthesize", "photos", "--model", pipeline, "-o", "made", "--steps", 2]
    words += ["--per-class", 2, "--classes", "oak tree", "--classes", "yew"]
    done = command(*words)
    assert done.code == 3
    assert "interrupted; finished images are kept. Continue with:" in done.err
    assert "--classes 'oak tree' --classes yew --resume" in done.err
    again = command(*words, "--resume", "--json")
    assert again.code == 0, again.err
    found = json.loads(again.out)
    assert (found["kept"], found["made"]) == ({"oak tree": 2, "yew": 2}, 2)


def test_no_image_that_is_kept_is_a_failure(command, here, pipeline, monkeypatch):
    monkeypatch.setattr(Generator, "image", lambda *arguments: None)
    done = command("synthesize", "photos", "--model", pipeline, "-o", "made", "--per-class", 1)
    assert done.code == 1
    assert "failed: none of 9 images was kept" in done.err


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["photos", "--model", "nowhere"], "--model: nowhere: found no such directory, allowed"),
        (["photos", "--model", "photos"], "--model: photos: found no model_index.json, allowed"),
        (["photos", "--model", "sd", "--strength", "2"], "--strength: found 2, allowed above 0"),
        (["photos", "--model", "sd", "--size", "100"], "--size: found 100, allowed a multiple"),
        (["photos", "--model", "sd", "--set", "x=1"], "--set: found photos, allowed with an exp"),
        (["photos", "--model", "sd", "--confidence", "1"], "--confidence: found without --bundle"),
    ],
)
def test_bad_input_is_one_message(command, here, words, found):
    write(here / "sd")
    done = command("synthesize", *words, "-o", "made")
    assert done.code == 2
    assert found in done.err
    assert "Traceback" not in done.err
    assert not (here / "made").exists()


def test_an_experiment_names_a_folder_without_a_manifest(command, here):
    (here / "bad.yaml").write_text(
        "name: trees\ndata: {source: folder, path: photos, synthetic: photos}\n"
    )
    done = command("check", "bad.yaml")
    assert done.code == 2
    assert "data.synthetic" in done.err
    assert "allowed a folder that `gsfl-tune synthesize` wrote" in done.err
