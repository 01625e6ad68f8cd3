"""Wrong test images: all of them, the surest first, beside the nearest training images."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.evidence import nearest as module
from gsfl_tune.evidence.nearest import candidates, nearest_images
from gsfl_tune.evidence.wrong import MOST_LISTED, wrong_answers, wrong_pictures
from gsfl_tune.evidence.wrong_sheet import nearest_sheet, wrong_sheet
from gsfl_tune.training import Workspace
from tests.evidence.conftest import FINETUNE, retrain, small_config


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
    found = candidates(labels, {0: 30, 1: 30})
    assert {label: len(own) for label, own in found.items()} == {0: 30, 1: 2}
    assert np.all(np.diff(found[0]) > 0)
    assert found[0][[0, -1]].tolist() == [0, 49]
    assert found[1].tolist() == [50, 51]


def near(model, dataset, listed, surest=24):
    """The nearest images, where the parts of no test image are known yet."""
    index = np.zeros(0, np.int64)
    return nearest_images(model, dataset, listed, index, np.zeros((0, 1)), surest=surest)


def test_rows_show_the_image_and_the_nearest_of_both_classes(workspace, retrained, tmp_path):
    winner = retrained()
    (first, *_) = winner.models(workspace, 1)
    predictions = winner.predictions()[0]
    found = wrong_answers(predictions.logits, predictions.labels, predictions.paths)["images"]
    assert found, "the network of these tests is right about everything"
    beside = near(first, workspace.dataset, found)
    pictures = wrong_pictures(tmp_path, workspace.dataset, found, beside)
    assert len(pictures) == min(24, len(found))
    classes = workspace.dataset.classes
    for picture, each in zip(pictures, found, strict=False):
        assert picture.classes == [classes[each["label"]], classes[each["predicted"]]]
        file = tmp_path / picture.file.split("/")[-1]
        assert file.stat().st_size <= 12_000
        with Image.open(file) as image:
            assert image.width == pytest.approx(3 * image.height, rel=0.05)
    assert wrong_pictures(tmp_path, workspace.dataset, [], beside) == []

    # The nearest by a loop over the candidates of the predicted class.
    each, row = found[0], np.asarray(Image.open(tmp_path / "wrong-01.jpg"), dtype=float)
    pool = workspace.dataset.pool
    index = np.flatnonzero(np.isin(pool.labels, [each["predicted"], each["label"]]))
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
    beside = near(first, dataset, found)
    assert wrong_pictures(tmp_path / "evidence", dataset, found, beside)
    assert {*beside.predicted, *beside.true} <= set(dataset.train_index.tolist())
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
    whole, _ = wrong_pictures(tmp_path, dataset, found, near(first, dataset, found))
    # The features of a frozen backbone are cached: the whole class is looked through.
    assert f"Middle: the nearest of all {there[each['predicted']]} training images of {said}. " in (
        whole.caption
    )
    assert whole.caption.endswith(
        f"Right: the nearest of all {there[each['label']]} training images of {true}."
    )
    monkeypatch.setattr(module, "_OF_FROZEN", 3)
    some, _ = wrong_pictures(tmp_path, dataset, found, near(first, dataset, found))
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


def cells(path, sheet):
    """The cells of a sheet, (N, side, side, 3)."""
    with Image.open(path / sheet["file"].split("/")[-1]) as image:
        pixels = np.asarray(image, dtype=float)
    side = pixels.shape[1] // sheet["columns"]
    for number in range(sheet["count"]):
        row, column = divmod(number, sheet["columns"])
        yield pixels[row * side : (row + 1) * side, column * side : (column + 1) * side]


def test_every_listed_image_has_its_nearest_training_images_and_each_is_drawn_once(
    workspace, retrained, tmp_path, monkeypatch
):
    (first, *_) = retrained().models(workspace, 1)
    dataset = workspace.dataset
    pool, classes = dataset.pool, len(dataset.classes)
    # All test images, each taken for the next class.
    labels = dataset.test.labels.tolist()
    listed = [
        {"image": place, "label": label, "predicted": (label + 1) % classes}
        for place, label in enumerate(labels)
    ]
    # Several bundles of classes, and parts that are known of every second image.
    monkeypatch.setattr(module, "_AT_ONCE", 40)
    index = np.arange(0, len(labels), 2)
    parts = first.latents("test", index).discriminative
    found = nearest_images(first, dataset, listed, index, parts, surest=2)

    every = np.arange(len(pool))
    unit = [
        part / np.linalg.norm(part, axis=1, keepdims=True)
        for part in (
            first.latents("test", np.arange(len(labels))).discriminative,
            first.latents("pool", every).discriminative,
        )
    ]
    for key, places in (("predicted", found.predicted), ("label", found.true)):
        for each, place in zip(listed, places.tolist(), strict=True):
            own = every[pool.labels == each[key]]
            cosines = unit[1][own] @ unit[0][each["image"]]
            assert pool.labels[place] == each[key]
            assert unit[1][place] @ unit[0][each["image"]] == pytest.approx(cosines.max(), abs=1e-6)

    sheet = nearest_sheet(tmp_path, dataset, listed, found)
    shown = np.unique(np.concatenate([found.predicted, found.true]))
    assert sheet["count"] == len(sheet["paths"]) == len(shown) < 2 * len(listed)
    small = [
        np.asarray(Image.fromarray(square).resize((64, 64), Image.Resampling.LANCZOS), dtype=float)
        for square in pool.gather(shown)
    ]
    for number, cell in enumerate(cells(tmp_path, sheet)):
        assert np.argmin([np.abs(each - cell).mean() for each in small]) == number
    for key, places in (("predicted", found.predicted), ("true", found.true)):
        assert shown[sheet[key]].tolist() == places.tolist()
    there = np.bincount(pool.labels, minlength=classes).tolist()
    assert sheet["compared"] == [
        {"label": label, "among": count, "all": count} for label, count in enumerate(there)
    ]
    assert nearest_sheet(tmp_path, dataset, [], found) is None


def test_few_images_of_many_classes_are_sent_through_a_trained_backbone(
    workspace, retrained, monkeypatch
):
    """A list of 500 wrong images may name a thousand classes."""
    changes = {"training": {"finetune": FINETUNE, "head": {"epochs": 3}, "ema": 0.5}}
    (first, *_) = retrained(**changes).models(workspace, 1)
    dataset = workspace.dataset
    count = len(dataset.classes)
    listed = [{"image": place, "label": place, "predicted": place} for place in range(count)]
    monkeypatch.setattr(module, "_OF_TRAINED", 6)
    monkeypatch.setattr(module, "_FURTHER_TRAINED", 3 * (count - 2))
    sent = []
    own = first.latents
    monkeypatch.setattr(
        first, "latents", lambda part, index: (sent.append((part, len(index))), own(part, index))[1]
    )
    near(first, dataset, listed, surest=2)
    assert sent == [("test", count), ("pool", 2 * 6 + 3 * (count - 2))]
