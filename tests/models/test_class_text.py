"""The classifier from class descriptions, against a plain ridge regression and planted texts."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from gsfl_tune.models.class_text import ClassMoments, classifier_of_texts
from gsfl_tune.models.text_tower import TextTowerError, embed_texts


def planted(shots, classes=60, text=8, size=40, noise=1.0, seed=0):
    """Texts that a linear map turns into class means, some images a class, and many more."""
    random = np.random.default_rng(seed)
    texts = random.normal(size=(classes, text))
    texts /= np.linalg.norm(texts, axis=1, keepdims=True)
    means = 3.0 + texts @ random.normal(size=(text, size))
    labels, tested = np.repeat(np.arange(classes), shots), np.repeat(np.arange(classes), 20)
    images, test = (
        means[each] + noise * random.normal(size=(len(each), size)) for each in (labels, tested)
    )
    return texts, (images, labels), (test, tested)


def moments_of(images, labels, classes):
    found = ClassMoments.empty(classes, images.shape[1])
    found.add(images, labels)
    return found


def accuracy(weights, biases, test):
    images, labels = test
    return float(((images @ weights.T + biases).argmax(1) == labels).mean())


def nearest_mean(images, labels, classes):
    means = np.stack([images[labels == c].mean(0) for c in range(classes)])
    return means, -0.5 * np.square(means).sum(1)


def test_planted_texts_help_one_image_a_class():
    texts, train, test = planted(shots=1)
    found = accuracy(*classifier_of_texts(texts, moments_of(*train, 60), 10.0), test)
    alone = accuracy(*nearest_mean(*train, 60), test)
    # Texts of other classes, in a wrong order, are no help.
    wrong = np.roll(texts, 7, axis=0)
    misled = accuracy(*classifier_of_texts(wrong, moments_of(*train, 60), 10.0), test)
    assert found > alone + 0.1
    assert found > misled + 0.1


def test_a_class_without_an_image_is_recognised_by_its_text():
    texts, (images, labels), test = planted(shots=5)
    kept = labels != 3
    moments = moments_of(images[kept], labels[kept], 60)
    weights, biases = classifier_of_texts(texts, moments, 10.0)
    of_it = test[1] == 3
    assert accuracy(weights, biases, (test[0][of_it], test[1][of_it])) > 0.5


def test_rows_are_directions_of_a_ridge_regression_and_scores_are_scaled():
    texts, (images, labels), _ = planted(shots=3, classes=12)
    weights, biases = classifier_of_texts(4 * texts, moments_of(images, labels, 12), 7.0)
    means = np.stack([images[labels == c].mean(0) for c in range(12)])
    centred, wanted = texts - texts.mean(0), means - means.mean(0)
    errors, maps = [], []
    total = np.square(centred).sum()
    for strength in np.logspace(-5, 1, 13):
        error = 0.0
        for left in range(12):  # leaves every class out, with means of the rest
            rest = np.arange(12) != left
            t, m = texts[rest].mean(0), means[rest].mean(0)
            gram = (texts[rest] - t).T @ (texts[rest] - t) + strength * total * np.eye(8)
            a = np.linalg.solve(gram, (texts[rest] - t).T @ (means[rest] - m))
            error += np.square(m + (texts[left] - t) @ a - means[left]).sum()
        gram = centred.T @ centred + strength * total * np.eye(8)
        errors.append(error)
        maps.append(np.linalg.solve(gram, centred.T @ wanted))
    rows = centred @ maps[int(np.argmin(errors))]
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    size = np.sqrt(np.square(images - means.mean(0)).sum(1).mean())
    np.testing.assert_allclose(weights, rows * 7.0 / size, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(biases, -weights @ means.mean(0), rtol=1e-6)


def test_one_class_is_not_enough():
    with pytest.raises(ValueError, match="two classes"):
        classifier_of_texts(np.eye(2), moments_of(np.ones((3, 4)), np.zeros(3, int), 2), 1.0)


@pytest.fixture
def tiny_clip(tmp_path):
    clip = pytest.importorskip("open_clip")
    vision = {"image_size": 32, "layers": 1, "width": 16, "head_width": 8, "patch_size": 16}
    text = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    config = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "tiny-of-a-test.json").write_text(json.dumps(config))
    clip.add_model_config(tmp_path)
    torch.manual_seed(0)
    model = clip.create_model("tiny-of-a-test")
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    return clip, model.eval(), tmp_path / "weights.pt"


def test_texts_are_embedded_by_the_tower_of_a_file(tiny_clip):
    clip, model, weights = tiny_clip
    texts = ["a small brown bird", "a hawk"]
    found = embed_texts(texts, "tiny-of-a-test", weights)
    tokens = clip.tokenize(texts, context_length=16)
    with torch.inference_mode():
        rows = model.encode_text(tokens)
    wanted = (rows / rows.norm(dim=1, keepdim=True)).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    assert not np.allclose(found[0], found[1])


def test_nothing_is_downloaded(tiny_clip, tmp_path):
    weights = tiny_clip[2]
    for name, file, message in (
        ("tiny-of-a-test", tmp_path / "none.pt", r"data\.text_weights: .*is not a file"),
        ("ViT-B-16-SigLIP", weights, r"whose tokenizer is downloaded from a hub"),
        ("ViT-B-99", weights, r"data\.text_model: found ViT-B-99, allowed a model of open_clip"),
        ("RN50", weights, r"data\.text_weights: .*does not fit RN50"),
    ):
        with pytest.raises(TextTowerError, match=message):
            embed_texts(["a"], name, file)
