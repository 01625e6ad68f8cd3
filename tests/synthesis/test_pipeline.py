"""The whole synthesis on a tiny random pipeline, up to a training part with its images."""

from __future__ import annotations

import io
import json
import shutil
from contextlib import nullcontext

import numpy as np
import pytest
from PIL import Image

from gsfl_tune.activity.display import activity_text
from gsfl_tune.data import decoded_files, prepare
from gsfl_tune.data.marks import KEYWORD
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.export import Bundle, Prediction, bundle_from_network, load_bundle
from gsfl_tune.synthesis import Settings, SynthesisFailed, synthesize
from gsfl_tune.synthesis.generator import Generator
from tests.export.conftest import make_config, make_network

from .conftest import CLASSES, SIDE, config, scene

FEW = Settings(per_class=2, steps=2)


def contents(folder) -> dict[str, bytes]:
    return {str(each.relative_to(folder)): each.read_bytes() for each in folder.rglob("*.png")}


def records(folder) -> list[dict]:
    return json.loads((folder / "synthetic.json").read_text())["records"]


def test_images_are_made_of_the_training_part_and_train(pipeline, photos, tmp_path):
    out, cache, told = tmp_path / "made", tmp_path / "cache", []
    data = config(photos)
    found = synthesize(data, pipeline, out, FEW, cache_dir=cache, notice=told.append)
    assert found.kept == dict.fromkeys(CLASSES, 2)
    assert (found.made, found.short) == (6, [])
    assert told[-3:] == [f"{name}: 2 images" for name in CLASSES]
    plain = prepare(data, cache_dir=cache)
    trained = {plain.pool.paths[row] for row in plain.train_index.tolist()}
    for record in records(out):
        paths = [each["path"] for each in record["sources"]]
        assert len(set(paths)) == 2
        assert set(paths) <= trained
        assert all(f"/{record['class']}/" in path for path in paths)
        with Image.open(out / record["file"]) as image:
            assert image.size == (SIDE, SIDE)
            mark = json.loads(image.text[KEYWORD])
        assert mark["settings"]["strength"] == 0.5
        assert mark["sources"] == [each["digest"] for each in record["sources"]]
        assert str(tmp_path) not in json.dumps(mark)
    # All of them join the training part of the same split.
    dataset = prepare(config(photos, synthetic=str(out)), cache_dir=cache)
    assert dataset.summary()["synthetic"] == 6
    assert np.array_equal(dataset.validation_index, plain.validation_index)


def test_a_resumed_synthesis_equals_one_that_never_stopped(pipeline, photos, tmp_path, monkeypatch):
    cache, data = tmp_path / "cache", config(photos)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    synthesize(data, pipeline, whole, FEW, cache_dir=cache)
    image, calls = Generator.image, []

    def asked(self, *arguments):
        calls.append(arguments)
        if len(calls) == 4:
            raise KeyboardInterrupt
        return image(self, *arguments)

    monkeypatch.setattr(Generator, "image", asked)
    with pytest.raises(KeyboardInterrupt):
        synthesize(data, pipeline, stopped, FEW, cache_dir=cache)
    assert len(records(stopped)) == 3
    assert not json.loads((stopped / "synthetic.json").read_text())["finished"]
    # A file that is gone is made again, and only that one beside what is missing.
    (stopped / records(stopped)[0]["file"]).unlink()
    found = synthesize(data, pipeline, stopped, FEW, cache_dir=cache, resume=True)
    assert (found.made, len(calls)) == (4, 8)
    assert contents(stopped) == contents(whole)
    assert (stopped / "synthetic.json").read_text() == (whole / "synthetic.json").read_text()
    # More images of each class: the first ones stay.
    more = Settings(per_class=3, steps=2)
    found = synthesize(data, pipeline, stopped, more, cache_dir=cache, resume=True)
    assert found.made == 3
    assert contents(whole).items() <= contents(stopped).items()


def write_bundle(folder, names):
    """An untrained network whose answers differ, in a bundle with these names of classes."""
    settings = make_config()
    data = settings.data.model_copy(update={"synthetic": "earlier"})
    settings = settings.model_copy(update={"data": data})
    return bundle_from_network(
        folder, make_network(settings), settings, classes=names, groups=[0, 0, 1, 1, 2, 1],
        side=37, metrics={},
    )  # fmt: skip


def test_the_bundle_decides_which_images_are_kept(pipeline, photos, tmp_path, monkeypatch):
    cache, data = tmp_path / "cache", config(photos)
    one = Settings(per_class=1, steps=2, attempts=2)
    synthesize(data, pipeline, tmp_path / "all", one, cache_dir=cache)
    first = {each["class"]: tmp_path / "all" / each["file"] for each in records(tmp_path / "all")}
    places = [str(place) for place in range(6)]
    plain = load_bundle(write_bundle(tmp_path / "plain", places))
    answers = {name: int(plain.predict(file, top=1)[0].classes[0]) for name, file in first.items()}
    # The first image of ash is an ash to the bundle; those of the others are something else.
    names = ["ash" if place == answers["ash"] else f"elm {place}" for place in range(6)]
    free = [place for place in range(6) if place not in answers.values()]
    names[free[0]], names[free[1]] = "oak tree", "yew"
    bundle = write_bundle(tmp_path / "bundle", names)
    sure = Settings(per_class=1, steps=2, attempts=2, confidence=0.0)
    out = tmp_path / "made"
    found = synthesize(data, pipeline, out, sure, bundle=bundle, cache_dir=cache)
    assert found.kept["ash"] == 1
    assert found.refused["ash"] == 0
    assert min(found.refused["oak tree"], found.refused["yew"]) >= 1
    made = records(out)
    assert (out / made[0]["file"]).read_bytes() != first["ash"].read_bytes()  # the mark says more
    assert np.array_equal(Image.open(out / made[0]["file"]), Image.open(first["ash"]))
    for each in made:
        kept = each["answer"] == each["class"]
        assert kept == (each["file"] is not None) == ("refused_by" not in each)
    # Whoever is right must be sure as well.
    answer = Prediction("", ["ash"], [0.6])
    monkeypatch.setattr(Bundle, "predict", lambda *arguments, **options: [answer])
    for least, count in ((0.6, 1), (0.61, 0)):
        sure = Settings(per_class=1, steps=2, attempts=1, confidence=least)
        folder = tmp_path / str(least)
        with nullcontext() if count else pytest.raises(SynthesisFailed, match="none of 3 images"):
            synthesize(data, pipeline, folder, sure, bundle=bundle, cache_dir=cache)
        assert sum(each["file"] is not None for each in records(folder)) == count
    # The card of a network that has seen such images says so.
    assert "Synthetic images were among the training" in (bundle / "README.md").read_text()


def test_what_the_safety_checker_refuses_is_not_kept(pipeline, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(Generator, "image", lambda *arguments: None)
    with pytest.raises(SynthesisFailed, match="none of 18 images was kept"):
        synthesize(config(photos), pipeline, tmp_path / "made", FEW, cache_dir=tmp_path / "cache")
    assert {each["refused_by"] for each in records(tmp_path / "made")} == {
        "the pipeline's safety checker"
    }


def test_the_activity_tells_class_number_and_step(pipeline, photos, tmp_path, monkeypatch):
    seen, image = [], Generator.image

    def watched(self, latents, prompt, seed, settings, on_step):
        def both(step):
            on_step(step)
            seen.append((prompt, activity_text()))

        return image(self, latents, prompt, seed, settings, both)

    monkeypatch.setattr(Generator, "image", watched)
    wanted = Settings(per_class=1, steps=4, classes=("oak tree",), mix=0.0)
    out = tmp_path / "made"
    synthesize(config(photos), pipeline, out, wanted, cache_dir=tmp_path / "cache")
    assert seen[-1][0] == "a photo of a oak tree"
    assert seen[-1][1].startswith("making images of oak tree, number 1, step 2: 0/1 images")
    assert [len(each["sources"]) for each in records(out)] == [1]


def test_other_settings_are_refused_in_a_resume(pipeline, photos, tmp_path):
    out, cache = tmp_path / "made", tmp_path / "cache"
    one = Settings(per_class=1, steps=2, classes=("ash",))

    def again(settings=one, data=None, **options):
        return synthesize(
            data or config(photos), pipeline, out, settings, cache_dir=cache, **options
        )

    with pytest.raises(UserError, match="found no synthesis to resume"):
        again(resume=True)
    again()
    with pytest.raises(UserError, match="found a synthesis, allowed with --resume"):
        again()
    assert again(resume=True).made == 0
    other = Settings(per_class=1, steps=2, classes=("ash",), mix=0.1, seed=3)
    with pytest.raises(UserError) as raised:
        again(other, config(photos, split={"seed": 1}), resume=True)
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("this is not the synthesis that began there")
    assert [line.split(":")[0].strip() for line in lines[1:]] == [
        "data.digest", "settings.mix", "settings.seed",
    ]  # fmt: skip
    # Nor fewer images: those that are there would train and not be counted.
    more = Settings(per_class=2, steps=2, classes=("ash",))
    assert again(more, resume=True).made == 1
    with pytest.raises(UserError, match="per_class: was 2, found 1, allowed as many or more"):
        again(resume=True)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    with pytest.raises(UserError, match="exists and is not an empty directory"):
        synthesize(config(photos), pipeline, tmp_path / "full", one, cache_dir=cache)


def test_a_pipeline_that_was_trained_further_is_another_one(pipeline, photos, tmp_path):
    out, model = tmp_path / "made", shutil.copytree(pipeline, tmp_path / "sd")
    one = Settings(per_class=1, steps=2, classes=("ash",))

    def again(settings=one, **options):
        return synthesize(
            config(photos), model, out, settings, cache_dir=tmp_path / "cache", **options
        )

    again()
    (file,) = (model / "unet").glob("*.safetensors")
    content = bytearray(file.read_bytes())
    content[-1000:] = bytes(1000)
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.content: was"):
        again(resume=True)
    # A manifest of an earlier version does not know.
    facts = json.loads((out / "synthetic.json").read_text())
    del facts["model"]["content"]
    (out / "synthetic.json").write_text(json.dumps(facts))
    assert again(Settings(per_class=2, steps=2, classes=("ash",)), resume=True).made == 1


def test_a_given_test_part_is_not_decoded(pipeline, photos, tmp_path, monkeypatch):
    for label, name in enumerate(CLASSES[:2]):
        folder = tmp_path / "both" / "test" / name
        folder.mkdir(parents=True)
        for number in range(2):
            scene(1000 + 100 * label + number).save(folder / f"{number}.png")
    photos.rename(tmp_path / "both" / "train")
    decoded = []
    decode = decoded_files.decode_once

    def spied(source, positions, *arguments):
        decoded.extend(source.samples[position].part for position in positions)
        return decode(source, positions, *arguments)

    monkeypatch.setattr(decoded_files, "decode_once", spied)
    one = Settings(per_class=1, steps=2, classes=("ash",))
    told = []
    data = config(tmp_path / "both")
    synthesize(
        data, pipeline, tmp_path / "made", one, cache_dir=tmp_path / "cache", notice=told.append
    )
    assert len(decoded) == 24
    assert "test" not in decoded
    # What it lacks is known without.
    [lacks] = [line for line in told if "given test part has no image of 1 of 3 classes" in line]
    assert "yew" in lacks


def test_boxes_are_cut_out_of_the_sources(pipeline, photos, tmp_path):
    rows = ["file,label,xmin,ymin,xmax,ymax"]
    rows += [f"{name}/{n}.png,{name},2,3,30,33" for name in CLASSES for n in range(8)]
    (photos / "list.csv").write_text("\n".join(rows))
    data = config(photos).model_copy(
        update={"source": "csv", "path": str(photos / "list.csv"), "crop": "box"}
    )
    one = Settings(per_class=1, steps=2)
    synthesize(data, pipeline, tmp_path / "made", one, cache_dir=tmp_path / "cache")
    own = data.model_copy(update={"synthetic": str(tmp_path / "made")})
    assert prepare(own, cache_dir=tmp_path / "cache").summary()["synthetic"] == 3


def test_missing_packages_are_named_with_the_command(photos, tmp_path, monkeypatch):
    from gsfl_tune.synthesis import pipeline as module
    from tests.synthesis.test_model_files import write

    monkeypatch.setattr(module, "find_spec", lambda name: None)
    model = write(tmp_path / "sd")
    with pytest.raises(UserError, match=r"needs diffusers and transformers: .*tune\[diffusers\]'"):
        synthesize(config(photos), model, tmp_path / "made", cache_dir=tmp_path / "cache")
    assert not (tmp_path / "made").exists()


def test_unknown_classes_and_a_missing_bundle_are_refused(photos, pipeline, tmp_path):
    cache = tmp_path / "cache"
    wanted = Settings(classes=("wolf",))
    with pytest.raises(UserError, match="--classes: found wolf, allowed ash, oak tree, yew"):
        synthesize(config(photos), pipeline, tmp_path / "made", wanted, cache_dir=cache)
    with pytest.raises(UserError, match="--confidence: found without --bundle"):
        synthesize(config(photos), pipeline, tmp_path / "made", Settings(confidence=0.5))


def test_names_may_be_decomposed(pipeline, photos, tmp_path, monkeypatch):
    """As macOS writes them: on the command line, and in a bundle of an earlier version."""
    composed, decomposed = "\u00c9pi", "E\u0301pi"
    (photos / "yew").rename(photos / composed)
    bundle = write_bundle(tmp_path / "bundle", ["ash", "oak tree", decomposed, "a", "b", "c"])
    answer = Prediction("", [decomposed], [0.9])
    monkeypatch.setattr(Bundle, "predict", lambda *arguments, **options: [answer])
    one = Settings(per_class=1, steps=2, classes=(decomposed,), confidence=0.5)
    out, cache = tmp_path / "made", tmp_path / "cache"
    synthesize(config(photos), pipeline, out, one, bundle=bundle, cache_dir=cache)
    assert [(each["class"], bool(each["file"])) for each in records(out)] == [(composed, True)]


def test_a_marked_png_is_an_image_like_any_other(pipeline, photos, tmp_path):
    one = Settings(per_class=1, steps=2, classes=("yew",))
    synthesize(config(photos), pipeline, tmp_path / "made", one, cache_dir=tmp_path / "cache")
    [content] = contents(tmp_path / "made").values()
    assert np.asarray(Image.open(io.BytesIO(content))).shape == (SIDE, SIDE, 3)
