"""A bundle says what the network said, holds nothing else, and notices when it was changed."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image

from gsfl_tune.data import center_crop, load_square
from gsfl_tune.data.image_file import Reading
from gsfl_tune.export import BundleError, ImageError, bundle_from_network, load_bundle
from gsfl_tune.export.card import model_card
from gsfl_tune.run.results import Difference, Finding, Interval, Probe, Results
from tests.export.conftest import CLASSES, GROUPS, METRICS, SIDE, make_config, make_network
from tests.report.conftest import make_results, scores


def reference(network, paths):
    """Probabilities without the code under test: decode, crop, forward in training's way."""
    squares = np.stack([load_square(path, SIDE, "crop")[0] for path in paths])
    statistics = network.backbone.preprocessing
    batch = center_crop(torch.from_numpy(squares), 32, statistics.mean, statistics.std)
    with torch.inference_mode():
        return network(batch).logits.softmax(dim=1)


def test_one_image_is_a_list_of_one(bundle_path, images):
    bundle = load_bundle(bundle_path, "cpu")
    expected = bundle.predict([images[0]])
    assert len(expected) == 1
    assert bundle.predict(images[0]) == expected
    assert bundle.predict(str(images[0])) == expected
    with Image.open(images[0]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    for one in (images[0].read_bytes(), Image.fromarray(pixels), pixels):
        (found,) = bundle.predict(one)
        assert found.classes == expected[0].classes
    grey = bundle.predict(pixels[:, :, 0])
    assert len(grey) == 1
    # Several images in one array, in colour and in grey.
    assert len(bundle.predict(np.stack([pixels] * 3))) == 3
    assert bundle.predict(np.stack([pixels[:, :, 0]] * 2))[1].classes == grey[0].classes


def test_it_says_what_it_is_in_a_line(bundle_path):
    bundle = load_bundle(bundle_path, "cpu")
    assert repr(bundle) == f"Bundle({str(bundle_path)!r}, 'zoo', 6 classes, safetensors)"


def test_predicts_what_the_network_predicts(bundle_path, network, images):
    bundle = load_bundle(bundle_path)
    expected = reference(network, images)
    predictions = bundle.predict(images, top=6, batch_size=3)
    assert [prediction.path for prediction in predictions] == [str(path) for path in images]
    for row, prediction in zip(expected, predictions, strict=True):
        order = row.argsort(descending=True)
        assert prediction.classes == [CLASSES[index] for index in order]
        np.testing.assert_allclose(prediction.probabilities, row[order], atol=1e-6)
    # The images are told apart, or the comparison above would say nothing.
    assert expected.std(dim=0).max() > 0.01


@pytest.mark.parametrize(
    "model",
    [
        {"head": "plain"},
        {"pooling": "bilinear", "pooling_channels": 8},
        {"pooling": "compact_bilinear", "pooling_channels": 16, "pooling_dim": 64},
        {"pooling": "native", "backbone": "test_convnext"},
        {"pooling": "native", "backbone": "mobilenetv3_small_050"},
        {"pooling": "cls_mean", "backbone": "test_vit"},
        {"pooling": "mean_last_4", "backbone": "test_vit"},
        {"pooling": "gem", "gem_power": 5.0, "backbone": "test_efficientnet"},
        {"pooling": "isqrt_cov", "pooling_channels": 8, "backbone": "test_efficientnet"},
        {"snr": True, "backbone": "test_efficientnet"},
        {"recurrent": True, "backbone": "test_efficientnet"},
        {"recurrent": True, "pooling": "native", "backbone": "mobilenetv3_small_050"},
        {"pooling": "attention", "attention_heads": 4, "backbone": "test_efficientnet"},
        {
            "pooling": "bilinear",
            "pooling_channels": 6,
            "backbone": "test_efficientnet",
            "backbone_b": "test_vit",
        },
        {"pooling": "average", "backbone": "test_efficientnet", "layer_b": 2},
        {"pooling": "bilinear", "pooling_channels": 6, "backbone": "test_vit", "layer_b": 1},
    ],
    ids=[
        *("plain", "bilinear", "compact bilinear", "norm behind the mean", "convolution behind it"),
        *(
            "class token and mean",
            "last class tokens",
            "generalised mean",
            "covariance",
            *("restitution", "recurrent attention", "recurrent attention before the head"),
            *("attention", "two streams", "two layers", "products of two layers"),
        ),
    ],
)
def test_every_head_and_pooling_survives(tmp_path, images, model):
    config = make_config(**model)
    network = make_network(config)
    with torch.no_grad():  # the hashes are those of training, not drawn anew
        for name, buffer in network.pooling.named_buffers():
            if name == "bins":
                buffer.copy_(buffer.flip(1))
        for parameter in network.pooling.parameters():  # as if they had been trained
            parameter.normal_()
    groups = GROUPS if config.model.head == "gsfl" else None
    path = bundle_from_network(
        tmp_path / "b", network, config, classes=CLASSES, groups=groups, side=SIDE, metrics={}
    )
    found = load_bundle(path).predict(images[:4], top=6)
    # A bundle runs with channels last, where convolutions add up in another order; the roots of
    # compact bilinear pooling make ten times as much of a difference as there was.
    for row, prediction in zip(reference(network, images[:4]), found, strict=True):
        np.testing.assert_allclose(
            prediction.probabilities, row.sort(descending=True)[0], atol=1e-5
        )


def test_buffers_that_a_model_computes_itself_are_there(tmp_path, images):
    config = make_config(backbone="swin_s3_tiny_224")
    config = config.model_copy(update={"data": config.data.model_copy(update={"image_size": 224})})
    network = make_network(config)
    path = bundle_from_network(
        tmp_path / "b", network, config, classes=CLASSES, groups=GROUPS, side=258, metrics={}
    )
    bundle = load_bundle(path)
    squares = load_square(images[0], 258)[0][None]
    statistics = network.backbone.preprocessing
    batch = center_crop(torch.from_numpy(squares), 224, statistics.mean, statistics.std)
    with torch.inference_mode():
        expected = network.infer(batch).softmax(dim=1).max().item()
    assert bundle.predict(images[:1])[0].probabilities[0] == pytest.approx(expected, abs=1e-6)


def test_carries_the_discriminative_path_alone(bundle_path, network):
    from safetensors.torch import load_file

    names = set(load_file(bundle_path / "model.safetensors"))
    assert {name.split(".")[1] for name in names if name.startswith("head.")} == {
        "discriminative",
        "classifier",
    }
    everything = sum(t.numel() * t.element_size() for t in network.state_dict().values())
    shared = 4 * network.backbone.channels * 24
    assert (bundle_path / "model.safetensors").stat().st_size < everything - shared


def test_files_are_data_and_nothing_that_runs(bundle_path):
    assert {path.name for path in bundle_path.iterdir()} == {
        "model.safetensors",
        "config.json",
        "classes.json",
        "groups.json",
        "metrics.json",
        "README.md",
    }
    for path in bundle_path.glob("*.json"):
        json.loads(path.read_text())
    content = (bundle_path / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    assert all("dtype" in entry for name, entry in header.items() if name != "__metadata__")
    bundle = load_bundle(bundle_path)
    assert (bundle.classes, bundle.metrics) == (CLASSES, METRICS)
    assert bundle.groups == dict(zip(CLASSES, GROUPS, strict=True))
    assert bundle.config["model"]["latent_dim"] == 24


def test_the_card_tells_the_result_and_its_doubt(bundle_path):
    card = (bundle_path / "README.md").read_text()
    assert "| **winner, this bundle** | 0.5000 | 1.2500 |" in card
    assert "group 1: cat, dog, fox" in card
    assert "square of 37 px" in card
    for title in ("Test", "Classes", "Training", "Preprocessing", "Loading", "Limits", "Licence"):
        assert f"\n## {title}" in card


def test_the_card_says_that_images_must_be_cut_where_the_training_cut_boxes(tmp_path, network):
    for crop in ("none", "box"):
        config = make_config()
        config = config.model_copy(
            update={"data": config.data.model_copy(update={"crop": crop, "crop_margin": 0.15})}
        )
        arguments = {"classes": CLASSES, "groups": GROUPS, "side": SIDE, "metrics": {}}
        path = bundle_from_network(tmp_path / crop, network, config, **arguments)
        card = (path / "README.md").read_text()
        said = "trained and tested on boxes, cut out with a margin of 15 % of their sides" in card
        assert said == (crop == "box")


def test_the_card_says_how_many_images_of_each_class_it_learnt_from(tmp_path, network):
    told = {
        None: "Trained on training and validation images;",
        1: "Trained on 1 training image of each class;",
        5: "Trained on 5 training images of each class;",
    }
    for shots, said in told.items():
        config = make_config()
        config = config.model_copy(update={"data": config.data.model_copy(update={"shots": shots})})
        arguments = {"classes": CLASSES, "groups": GROUPS, "side": SIDE, "metrics": {}}
        path = bundle_from_network(tmp_path / f"shots-{shots}", network, config, **arguments)
        assert said in (path / "README.md").read_text()


def test_the_card_begins_with_a_simpler_model_that_is_better_and_lists_findings(
    tmp_path, network, config
):
    results = make_results(
        metric="validation/accuracy",
        probe=Probe(scores(0.85), Difference(-0.01, Interval(-0.04, 0.02)), scores(0.9)),
        findings=[Finding("few_images", "warning", {}, "Only 136 test images.")],
    )
    cards = {}
    for model in ("winner", "probe"):
        path = bundle_from_network(
            tmp_path / model,
            network,
            config,
            classes=CLASSES,
            groups=None,
            side=SIDE,
            metrics=results.to_json(),
            model=model,
        )
        cards[model] = (path / "README.md").read_text()
        assert json.loads((path / "config.json").read_text())["model"] == model
        assert "- **warning**: Only 136 test images." in cards[model]
    said = "The linear probe is better than the winner on the validation images (90.0 % against"
    assert cards["winner"].split("\n\n")[1].startswith(f"**{said}")
    assert cards["probe"].split("\n\n")[1].startswith(said)
    assert "this is its bundle" in cards["probe"]
    assert "| **linear probe, this bundle** |" in cards["probe"]


def test_the_results_of_a_run_make_a_card(tmp_path, network, config):
    results = make_results()
    path = bundle_from_network(
        tmp_path / "b",
        network,
        config,
        classes=CLASSES,
        groups=GROUPS,
        side=SIDE,
        metrics=results.to_json(),
    )
    lines = (path / "README.md").read_text().splitlines()
    start = lines.index("| | accuracy | balanced accuracy | top5 | nll | ece |")
    assert [line.split(" | ")[0] for line in lines[start + 2 : start + 5]] == [
        "| **winner, this bundle**",
        "| control (plain head)",
        "| linear probe",
    ]
    assert "| 0.7200 |" in lines[start + 2]
    text = "\n".join(lines)
    assert "Test accuracy 72.0 %, 95 % interval 68.1 to 75.4 (t interval over seeds" in text
    assert "+2.0 points, 95 % interval -1.0 to +5.0" in text
    assert "first seed's (accuracy 0.7000)" in "\n".join(lines)
    assert Results.from_json(load_bundle(path).metrics) == results


@pytest.mark.parametrize("place", [0, 200, -1], ids=["length", "header", "weights"])
def test_a_changed_byte_is_noticed(bundle_path, place):
    path = bundle_path / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(BundleError, match=r"model\.safetensors: damaged or changed"):
        load_bundle(bundle_path)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "classes.json"])
def test_a_missing_file_is_named(bundle_path, name):
    (bundle_path / name).unlink()
    with pytest.raises(BundleError, match=f"missing {name}"):
        load_bundle(bundle_path)


def test_other_damage_is_told_in_words(bundle_path, tmp_path):
    with pytest.raises(BundleError, match="no such bundle"):
        load_bundle(tmp_path / "nothing")
    config = bundle_path / "config.json"
    text = config.read_text()
    config.write_text(text[:-20])
    with pytest.raises(BundleError, match="not JSON"):
        load_bundle(bundle_path)
    config.write_text(json.dumps(json.loads(text) | {"format": 99}))
    with pytest.raises(BundleError, match="format 99"):
        load_bundle(bundle_path)
    content = json.loads(text)
    content["architecture"]["latent_dim"] = 25
    config.write_text(json.dumps(content))
    with pytest.raises(BundleError, match=r"does not fit config\.json"):
        load_bundle(bundle_path)
    config.write_text(text)
    (bundle_path / "classes.json").write_text(json.dumps(CLASSES[:-1]))
    with pytest.raises(BundleError, match="5 class names for 6 outputs"):
        load_bundle(bundle_path)


def test_writing_again_replaces_all_files_and_a_failure_none(bundle_path, config, network):
    (bundle_path / "stray").write_text("left over")
    arguments = {"classes": CLASSES, "groups": GROUPS, "side": SIDE}
    with pytest.raises(ValueError, match="JSON"):
        bundle_from_network(
            bundle_path, network, config, **arguments, metrics={"bad": float("nan")}
        )
    assert (bundle_path / "stray").exists()
    bundle_from_network(bundle_path, network, config, **arguments, metrics={})
    assert not (bundle_path / "stray").exists()
    assert load_bundle(bundle_path).metrics == {}
    assert [path.name for path in bundle_path.parent.iterdir()] == [bundle_path.name]


def test_images_of_every_kind_give_the_same_answer(bundle_path, images):
    bundle = load_bundle(bundle_path)
    for path in images[:5]:
        with Image.open(path) as opened:
            opened.load()
        rgb = opened.convert("RGB")
        sources = [path, str(path), path.read_bytes(), opened]
        if opened.mode in ("RGB", "P"):
            sources.append(np.asarray(rgb))
        if opened.mode == "L":
            sources.append(np.asarray(opened))
        answers = [each.probabilities for each in bundle.predict(sources, top=6)]
        np.testing.assert_allclose(answers, [answers[0]] * len(answers), atol=1e-6)


def test_an_image_that_pillow_opened_is_what_its_file_is(bundle_path, tmp_path):
    deep = np.random.default_rng(0).integers(0, 65536, (40, 50), dtype=np.uint16)
    deep[:20] = 777
    Image.fromarray(deep).save(tmp_path / "deep.png", transparency=777)
    colours = Image.effect_noise((50, 40), 80).convert("P")
    colours.save(tmp_path / "palette.png", transparency=bytes(range(256)))
    bundle = load_bundle(bundle_path)
    for name in ("deep.png", "palette.png"):
        with Image.open(tmp_path / name) as opened:
            by_file, by_image = bundle.predict([tmp_path / name, opened], top=6)
        np.testing.assert_allclose(by_image.probabilities, by_file.probabilities, atol=1e-6)


def test_a_bundle_reads_deep_images_as_its_training_images(network, config, tmp_path):
    values = np.random.default_rng(0).uniform(0, 4, (40, 50)).astype(np.float32)
    Image.fromarray(values).save(tmp_path / "float.tif")
    Image.fromarray((values * 255 / 4).round().astype(np.uint8)).save(tmp_path / "bytes.png")
    reading = Reading(float_range=(0.0, 4.0))
    arguments = {"classes": CLASSES, "groups": GROUPS, "side": SIDE}
    bundle_from_network(tmp_path / "b", network, config, **arguments, metrics={}, reading=reading)
    bundle = load_bundle(tmp_path / "b")
    assert bundle.preprocessing.reading == reading
    deep, plain = bundle.predict([tmp_path / "float.tif", tmp_path / "bytes.png"], top=6)
    np.testing.assert_allclose(deep.probabilities, plain.probabilities, atol=1e-3)


def test_an_unreadable_image_ends_the_prediction_or_is_handed_over(bundle_path, images, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"not an image")
    bundle = load_bundle(bundle_path)
    with pytest.raises(ImageError, match=r"broken\.jpg: cannot be read"):
        bundle.predict([images[0], broken])
    errors = []
    sources = [images[0], broken, tmp_path / "absent.png", images[1], np.zeros((4, 4, 3))]
    found = bundle.predict(sources, on_error=errors.append)
    assert [each.path for each in found] == [str(images[0]), str(images[1])]
    assert [error.missing for error in errors] == [False, True, False]


def test_fewer_classes_than_asked_for(bundle_path, images):
    bundle = load_bundle(bundle_path)
    assert len(bundle.predict(images[:1], top=50)[0].classes) == 6
    assert bundle.predict([]) == []
    with pytest.raises(ValueError, match="a whole number from 1 on"):
        bundle.predict(images, top=0)


@pytest.mark.parametrize(
    ("backbone", "weights", "said"),
    [
        ("tf_efficientnet_lite0", "package", "apache-2.0 (package efficientnet-lite0-pytorch"),
        ("test_vit", "imagenet", "(stated by timm)."),
        ("test_vit", "none", "(none (trained from scratch)): no licence needed."),
        ("test_vit", "secret/place.pth", "`test_vit` (a weights file): that of the file."),
    ],
)
def test_the_card_names_the_licence_of_the_backbone(backbone, weights, said):
    config = make_config().model_dump(mode="json")
    config["model"] |= {"backbone": backbone, "weights": weights}
    seen = {"image_size": 32, "side": 37, "mean": [0.5] * 3, "std": [0.5] * 3}
    card = model_card(config, classes=CLASSES, groups={}, preprocessing=seen, metrics={})
    assert said in " ".join(card.split())
    assert "secret" not in card
