"""Wrong test images: all of them, the surest first, beside the nearest training images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.evidence import wrong
from gsfl_tune.evidence.wrong import MOST_LISTED, candidates, wrong_answers, wrong_pictures
from gsfl_tune.evidence.wrong_sheet import wrong_sheet
from gsfl_tune.training import Workspace
from tests.evidence.conftest import retrain, small_config


def plain(logits, labels, temperature):
    """Softmax by a loop."""
    rows = []
    for place, (row, label) in enumerate(zip(logits.tolist(), labels.tolist(), strict=True)):
        powers = [math.exp(value / temperature) for value in row]
        shares = [power / sum(powers) for power in powers]
        best = max(range(len(row)), key=shares.__getitem__)
        if best != label:
            rows.append((place, label, best, shares[best], shares[label]))
    return sorted(rows, key=lambda row: -row[3])


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_they_are_those_of_a_plain_loop(temperature):
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(60, 4)), generator.integers(0, 4, 60)
    paths = [f"/home/anna/birds/class/{n}.jpg" for n in range(60)]
    found = wrong_answers(logits, labels, paths, temperature)
    wanted = plain(logits, labels, temperature)
    assert found["count"] == len(wanted) > 20
    for each, (place, label, best, confidence, probability) in zip(
        found["images"], wanted, strict=True
    ):
        assert (each["image"], each["label"], each["predicted"]) == (place, label, best)
        assert each["confidence"] == pytest.approx(confidence, abs=1e-6)
        assert each["probability"] == pytest.approx(probability, abs=1e-6)
        assert each["path"] == f"class/{place}.jpg"


def test_their_number_is_bounded_and_may_be_none():
    labels = np.zeros(MOST_LISTED + 5, dtype=np.int64)
    logits = np.tile([0.0, 1.0], (len(labels), 1))
    found = wrong_answers(logits, labels, [""] * len(labels))
    assert (found["count"], len(found["images"])) == (MOST_LISTED + 5, MOST_LISTED)
    assert wrong_answers(logits, labels + 1, [""] * len(labels)) == {"count": 0, "images": []}


def test_training_images_are_those_of_the_wanted_classes():
    labels = np.repeat(np.arange(3), [50, 2, 7])
    found = candidates(labels, {0, 1}, 30)
    assert np.all(np.diff(found) > 0)
    assert np.bincount(labels[found]).tolist() == [30, 2]
    assert {0, 49} <= set(found.tolist())


def test_rows_show_the_image_and_the_nearest_of_both_classes(workspace, retrained, tmp_path):
    winner = retrained()
    (first, *_) = winner.models(workspace, 1)
    predictions = winner.predictions()[0]
    found = wrong_answers(predictions.logits, predictions.labels, predictions.paths)["images"]
    assert found, "the network of these tests is right about everything"
    pictures = wrong_pictures(tmp_path, first, workspace.dataset, found)
    assert len(pictures) == min(24, len(found))
    classes = workspace.dataset.classes
    for picture, each in zip(pictures, found, strict=False):
        assert picture.classes == [classes[each["label"]], classes[each["predicted"]]]
        file = tmp_path / picture.file.split("/")[-1]
        assert file.stat().st_size <= 12_000
        with Image.open(file) as image:
            assert image.width == pytest.approx(3 * image.height, rel=0.05)
    assert wrong_pictures(tmp_path, first, workspace.dataset, []) == []

    # The nearest by a loop over the candidates of the predicted class.
    each, row = found[0], np.asarray(Image.open(tmp_path / "wrong-01.jpg"), dtype=float)
    pool = workspace.dataset.pool
    index = candidates(pool.labels, {each["predicted"], each["label"]}, 500)
    asked = first.latents("test", np.array([each["image"]])).discriminative[0]
    best, nearest = -2.0, -1
    for place in index.tolist():
        if pool.labels[place] != each["predicted"]:
            continue
        part = first.latents("pool", np.array([place])).discriminative[0]
        cosine = float(part @ asked / (np.linalg.norm(part) * np.linalg.norm(asked) + 1e-12))
        if cosine > best + 1e-9:
            best, nearest = cosine, place
    side = (row.shape[1] - 16) // 3
    middle = row[8 : 8 + side - 8, 12 + side : 12 + 2 * side - 8]

    def difference(place: int) -> float:
        square = Image.fromarray(pool.gather(np.array([place]))[0])
        small = square.resize((middle.shape[1], middle.shape[0]), Image.Resampling.LANCZOS)
        return float(np.abs(np.asarray(small, dtype=float) - middle).mean())

    others = [place for place in index.tolist() if place != nearest]
    assert difference(nearest) < min(map(difference, others))


def test_with_shots_the_nearest_training_images_are_shots(cache_dir, tmp_path, monkeypatch):
    """No model was trained on the validation images, which lie in the same pool."""
    config = small_config(data={"shots": 2})
    workspace = Workspace.open(config.data, cache_dir=cache_dir, device=torch.device("cpu"))
    dataset = workspace.dataset
    assert len(dataset.train_index) < len(dataset.pool)
    winner = retrain(workspace, config, tmp_path / "winner", (1,))
    (first,) = winner.models(workspace, 1)
    predictions = winner.predictions()[0]
    found = wrong_answers(predictions.logits, predictions.labels, predictions.paths)["images"]
    assert found
    own, compared = type(first).latents, []

    def latents(model, part, index):
        compared.extend(index.tolist() if part == "pool" else ())
        return own(model, part, index)

    monkeypatch.setattr(type(first), "latents", latents)
    assert wrong_pictures(tmp_path / "evidence", first, dataset, found)
    assert set(compared) <= set(dataset.train_index.tolist())


def test_captions_say_among_how_many_images_the_nearest_was_looked_for(
    workspace, retrained, tmp_path, monkeypatch
):
    winner = retrained()
    (first, *_) = winner.models(workspace, 1)
    predictions = winner.predictions()[0]
    found = wrong_answers(predictions.logits, predictions.labels, predictions.paths)["images"][:2]
    dataset = workspace.dataset
    there = np.bincount(dataset.pool.labels)
    each = found[0]
    said, true = dataset.classes[each["predicted"]], dataset.classes[each["label"]]
    whole, _ = wrong_pictures(tmp_path, first, dataset, found)
    # The features of a frozen backbone are cached: the whole class is looked through.
    assert f"Middle: the nearest of all {there[each['predicted']]} training images of {said}. " in (
        whole.caption
    )
    assert whole.caption.endswith(
        f"Right: the nearest of all {there[each['label']]} training images of {true}."
    )
    monkeypatch.setattr(wrong, "_OF_FROZEN", 3)
    some, _ = wrong_pictures(tmp_path, first, dataset, found)
    assert some.caption.endswith(
        f"Right: the nearest of 3 of the {there[each['label']]} training images of {true}."
    )


def test_every_listed_image_has_a_small_copy_in_its_place(workspace, tmp_path):
    images = workspace.dataset.test
    count = len(images)
    assert count > 25
    order = np.random.default_rng(0).permutation(count)
    found = wrong_sheet(tmp_path, images, [{"image": place} for place in order.tolist()])
    assert found["count"] == count
    with Image.open(tmp_path / found["file"].split("/")[-1]) as sheet:
        pixels = np.asarray(sheet, dtype=float)
    side = pixels.shape[1] // found["columns"]
    squares = [Image.fromarray(square) for square in images.gather(order)]
    resized = [each.resize((side, side), Image.Resampling.LANCZOS) for each in squares]
    small = np.stack([np.asarray(each, dtype=float) for each in resized])
    for number in range(count):
        row, column = divmod(number, found["columns"])
        cell = pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]
        assert np.abs(small - cell).mean(axis=(1, 2, 3)).argmin() == number
    assert wrong_sheet(tmp_path, images, []) is None
