"""Each technique of the table of methods can be trained, and is not the default by another name."""

from __future__ import annotations

import importlib
import sys

import pytest

from gsfl_tune.training.fingerprint import fingerprint
from tests.benchmarks.test_scripts import BENCHMARKS
from tests.data.conftest import fill


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("images")
    fill(path, {"a": 4, "b": 4})
    return path


@pytest.fixture
def methods(monkeypatch):
    monkeypatch.setattr(sys, "path", [str(BENCHMARKS), *sys.path])
    return importlib.import_module("methods")


@pytest.mark.parametrize(
    "every", [5, pytest.param(1, marks=pytest.mark.slow)], ids=["every fifth", "all"]
)
def test_techniques_can_be_combined_with_the_defaults_and_differ_from_them(methods, folder, every):
    images = {"data.path": str(folder)}
    known = {}
    for name in list(methods.TECHNIQUES)[::every]:
        config = methods.experiment(name, images, 2).defaults()
        known.setdefault(fingerprint(config), []).append(name)
    assert [names for names in known.values() if len(names) > 1] == []


def test_more_blocks_are_trained_at_the_rate_of_two(methods, folder):
    rates = {
        name: methods.experiment(name, {"data.path": str(folder)}, 2).defaults().training.finetune
        for name in (methods.BASE, "1 block", "3 blocks", "all blocks")
    }
    assert [each.learning_rate for each in rates.values()] == [1.2e-3, 3e-3, 1.2e-3, 1.2e-3]
    assert [each.blocks for each in rates.values()] == [2, 1, 3, "all"]


def test_a_technique_that_cannot_be_combined_is_named(methods, folder, monkeypatch):
    monkeypatch.setitem(methods.TECHNIQUES, "jigsaw", {"training.method": "pmg"})
    with pytest.raises(SystemExit, match=r"jigsaw:\n.*data\.views: found 4"):
        methods.experiment("jigsaw", {"data.path": str(folder)}, 2)


def test_a_weight_that_grows_with_the_classes_is_that_of_the_data_set(methods, folder):
    name = "pairwise confusion, 0.06 a class"
    few, many = (
        methods.experiment(name, {"data.path": str(folder)}, classes).defaults().loss
        for classes in (10, 81)
    )
    assert few.pairwise_confusion.weight == pytest.approx(0.6)
    assert many.pairwise_confusion.weight == pytest.approx(4.86)


def trained(technique, seed, seconds, right, machine=None):
    row = {"data": "birds", "technique": technique, "seed": seed, "test": 0.5, "nll": 1, "ece": 0}
    row |= {"cpu_seconds": seconds, "peak_mb": 100, "test_images": 8, "right": right}
    return row if machine is None else {**row, "machine": machine}


def test_trainings_of_two_machines_are_neither_compared_nor_left_unsaid(methods):
    base, other = methods.BASE, "plain head"
    found = [
        trained(base, 1, 10, "f0", "fast"),
        trained(other, 1, 10, "f0", "fast"),
        trained(base, 2, 100, "f0"),
        trained(base, 3, 100, "f0"),
        trained(other, 2, 150, "f0"),
        trained(other, 3, 150, "f0"),
        trained("SAM", 2, 10, "ff", "fast"),  # with a base of another machine alone
    ]
    page = methods.page(found)
    assert "- fast: birds, defaults (seed 1); birds, plain head (seed 1); birds, SAM" in page
    assert f"- {methods.UNKNOWN}: birds, defaults (seed 2, 3); birds, plain head" in page
    (row,) = [line for line in page.splitlines() if line.startswith("| plain head")]
    assert [cell.strip() for cell in row.split("|")][-3:-1] == ["1.50", "1.00"]
    assert "| SAM" not in page
