"""Commands of a bundle on Apple's GPUs, which have no float64."""

from __future__ import annotations

import pyarrow.parquet as pq
import pytest
import torch

from gsfl_tune.embed import embed, images_at
from gsfl_tune.evidence.gradcam import overlap
from gsfl_tune.explain import explain
from gsfl_tune.export import load_bundle
from gsfl_tune.models import Network
from tests.cli.test_explain import half_bundle, large
from tests.training.test_mps import OfApple

__all__ = ["half_bundle", "large"]


def test_features_of_images(bundle_path, images, tmp_path):
    bundle = load_bundle(bundle_path, "cpu")
    expected = bundle.predict(images[:2], top=1)

    def on_gpu(head, given, output):
        return output._replace(logits=output.logits.as_subclass(OfApple))

    bundle.network.head.register_forward_hook(on_gpu)
    found = embed(bundle, images_at(bundle, str(images[0].parent), pytest.fail), tmp_path / "f")
    assert found.rows == len(images)
    table = pq.read_table(tmp_path / "f").to_pylist()
    assert [row["prediction"] for row in table[:2]] == [each.classes[0] for each in expected]


def test_curves_of_a_map(half_bundle, images, tmp_path, monkeypatch):
    bundle = load_bundle(half_bundle, "cpu")
    infer = Network.infer
    monkeypatch.setattr(
        Network, "infer", lambda self, given: infer(self, given).as_subclass(OfApple)
    )
    (found,) = explain(bundle, images[:1], tmp_path / "maps")
    assert 0 <= found.faithfulness["deletion"] <= 1


def test_two_maps_are_compared():
    first, second = torch.rand(2, 3, 4, 4)
    expected = overlap(first, second)
    found = overlap(first.as_subclass(OfApple), second.as_subclass(OfApple))
    assert found.tolist() == expected.tolist()
