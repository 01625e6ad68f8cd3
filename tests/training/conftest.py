"""A small real workspace: rendered typefaces, a tiny untrained backbone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from gsfl_tune.experiment.config import Config
from gsfl_tune.training import Workspace
from gsfl_tune.training.caches import engines


def tiny_config(**changes: dict[str, Any]) -> Config:
    sections: dict[str, Any] = {
        "name": "tiny",
        "data": {
            "source": "typefaces",
            "image_size": 32,
            "augment": {"flip": False},
            "typefaces": {"train": 6, "test": 2, "size": 40},
        },
        "model": {
            "backbone": "test_efficientnet",
            "weights": "none",
            "latent_dim": 16,
            "groups": {"count": 3},
        },
        # In one precision on every machine.
        "training": {
            "head": {"epochs": 4, "batch_size": 16},
            "device": "cpu",
            "precision": "fp32",
        },
    }
    for name, values in changes.items():
        sections[name] = _merge(sections.get(name, {}), values)
    return Config.model_validate(sections)


def _merge(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = (
            _merge(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
        )
    return merged


@pytest.fixture(scope="package", autouse=True)
def own_engine() -> Iterator[None]:
    """Leaves OpenVINO out, but where `every_engine` is asked for.

    On a busy machine networks as small as these are slow enough to be worth a rehearsal, which
    takes longer than all that they compute here.
    """
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(engines.SWITCH_VARIABLE, "0")
        yield


@pytest.fixture
def every_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets OpenVINO compute where it is faster."""
    monkeypatch.delenv(engines.SWITCH_VARIABLE)


@pytest.fixture(scope="session")
def cache_dir(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def workspace(cache_dir):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Workspace.open(tiny_config().data, cache_dir=cache_dir, device=torch.device("cpu"))
    torch.set_num_threads(threads)
