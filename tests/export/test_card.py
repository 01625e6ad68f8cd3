"""The model card says what the bundle holds."""

from __future__ import annotations

import pytest

from gsfl_tune.export import bundle_from_network
from tests.export.conftest import CLASSES, SIDE


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("plain", "holds the backbone, the discriminative encoder and the classifier, but not"),
        ("linear", "holds the backbone and the classifier, but not"),
    ],
)
def test_it_names_an_encoder_only_where_there_is_one(tmp_path, network, config, head, said):
    model = config.model.model_copy(update={"head": head})
    path = bundle_from_network(
        tmp_path / "b",
        network,
        config.model_copy(update={"model": model}),
        classes=CLASSES,
        groups=None,
        side=SIDE,
        metrics={},
    )
    assert said in (path / "README.md").read_text()
