from __future__ import annotations

from typing import Any

import pytest

from gsfl_tune.cluster import Slots, fit
from gsfl_tune.experiment import Experiment, ExperimentError
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.search_config import ResourcesConfig
from tests.search.experiments import experiment

TWO_CORES = {"CPU": 2.0, "memory": 1e9}
FOUR_GPUS = {"CPU": 16.0, "GPU": 4.0}


def _request(cpu: float = 1, gpu: Any = "auto") -> ResourcesConfig:
    return ResourcesConfig(cpu=cpu, gpu=gpu)


@pytest.mark.parametrize(
    ("request_", "nodes", "expected"),
    [
        (_request(), [TWO_CORES], Slots(1, 0, 2)),
        (_request(0.5), [TWO_CORES], Slots(0.5, 0, 4)),
        (_request(), [FOUR_GPUS], Slots(1, 1, 4)),
        (_request(), [TWO_CORES, FOUR_GPUS], Slots(1, 1, 4)),
        (_request(gpu=0), [TWO_CORES, FOUR_GPUS], Slots(1, 0, 18)),
        # The cores are for four trials: each has a GPU to itself.
        (_request(4, 0.25), [FOUR_GPUS], Slots(4, 1, 4)),
        # Three thirds of each GPU, not 12.12 of all of them.
        (_request(1, 0.33), [FOUR_GPUS], Slots(1, 0.3333, 12)),
        (_request(1, 0.1), [FOUR_GPUS], Slots(1, 0.25, 16)),
        (_request(1, 0.6), [FOUR_GPUS], Slots(1, 1, 4)),
        (_request(1, 3), [FOUR_GPUS, FOUR_GPUS], Slots(1, 3, 2, 3)),
        (ResourcesConfig(cpu=4, gpus_per_trial=2), [FOUR_GPUS, TWO_CORES], Slots(4, 2, 2, 2)),
        (ResourcesConfig(gpus_per_trial=1), [FOUR_GPUS], Slots(1, 1, 4)),
        (ResourcesConfig(cpu=2, workers_per_trial=2), [TWO_CORES], Slots(2, 0, 1, 2)),
        (ResourcesConfig(gpu=2, workers_per_trial=2), [FOUR_GPUS], Slots(1, 2, 2, 2)),
        # Where parameters are divided, each process may be on another node.
        (
            ResourcesConfig(cpu=16, gpus_per_trial=8, shard=True),
            [FOUR_GPUS] * 3,
            Slots(16, 8, 1, 8, shard=True),
        ),
        (
            ResourcesConfig(cpu=2, workers_per_trial=2, shard=True),
            [{"CPU": 1.0}] * 5,
            Slots(2, 0, 2, 2, shard=True),
        ),
    ],
)
def test_how_many_trials_fit(
    request_: ResourcesConfig, nodes: list[dict[str, float]], expected: Slots
) -> None:
    assert fit(request_, nodes) == expected
    assert fit(request_, nodes, max_concurrent=1).count == 1
    assert fit(request_, nodes, max_concurrent=100).count == expected.count


@pytest.mark.parametrize(
    ("request_", "nodes", "message"),
    [
        (_request(gpu=1.5), [FOUR_GPUS], "whole number"),
        (_request(gpu=1), [TWO_CORES], "2 CPU cores and no GPU"),
        (ResourcesConfig(gpus_per_trial=2), [TWO_CORES], "2 GPUs.*2 CPU cores and no GPU"),
        (ResourcesConfig(gpus_per_trial=8), [FOUR_GPUS] * 2, "8 GPUs.*16 CPU cores and 4 GPUs"),
        (ResourcesConfig(gpu=0.5, gpus_per_trial=2), [FOUR_GPUS], "0.5 beside gpus_per_trial 2"),
        (ResourcesConfig(workers_per_trial=2), [FOUR_GPUS], "found 2 with 1 GPU a trial"),
        (_request(3), [TWO_CORES, TWO_CORES], "3 CPU cores and no GPU"),
        (_request(gpu=5), [FOUR_GPUS, FOUR_GPUS], "5 GPUs.*16 CPU cores and 4 GPUs"),
        (
            ResourcesConfig(cpu=8, gpus_per_trial=8, shard=True),
            [FOUR_GPUS, TWO_CORES],
            "8 times 1 CPU core and 1 GPU; found fewer than 8 places",
        ),
        (_request(), [], "nothing"),
        (_request(gpu=0.001), [FOUR_GPUS], "0.01 to 1"),
        (
            _request(8, 2),
            [TWO_CORES, FOUR_GPUS | {"CPU": 4.0}, TWO_CORES],
            "1 node of 4 CPU cores and 4 GPUs, 2 nodes of 2 CPU cores and no GPU",
        ),
    ],
)
def test_what_can_never_run_is_refused(
    request_: ResourcesConfig, nodes: list[dict[str, float]], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        fit(request_, nodes)


LARGE = [{"backbone": "vit_large*", "cpu": 8, "gpu": 1}, {"backbone": "vit_*", "gpus_per_trial": 2}]


def test_backbones_may_have_slots_of_their_own() -> None:
    asked = ResourcesConfig(cpu=2, gpu=0.5, per_backbone=LARGE)
    names = ("resnet50", "vit_large_16", "vit_base_16")
    found = fit(asked, [FOUR_GPUS], None, names)
    assert (found.cpu, found.gpu, found.count) == (2, 0.5, 8)
    assert found.of("resnet50") is found
    # The first entry that fits counts.
    assert found.of("vit_large_16") == Slots(8, 1, 2)
    assert found.of("vit_base_16") == Slots(2, 2, 2, 2)
    few = found.at_most(1)
    assert few.gpu == 1
    assert few.of("vit_large_16").count == few.of("vit_base_16").count == 1
    # Where every trial is large, the smallest of them say how many run at once.
    assert fit(asked, [FOUR_GPUS], None, names[1:]).count == 2
    assert fit(asked, [FOUR_GPUS | {"CPU": 4.0}], None, ["resnet50"]).count == 2


def test_a_backbone_that_no_node_holds_is_named() -> None:
    asked = ResourcesConfig(cpu=1, per_backbone=LARGE)
    with pytest.raises(UserError, match="a trial with vit_large_16 asks for 8 CPU cores and 1 G"):
        fit(asked, [TWO_CORES], None, ["resnet50", "vit_large_16"])
    assert fit(asked, [TWO_CORES], None, ["resnet50"]).count == 2


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ("[{cpu: 2}]", r"per_backbone\[0\]: found cpu, allowed backbone and at least one of cpu"),
        ("[{backbone: resnet10t}]", r"found backbone, allowed backbone and at least one of"),
        ("[{}]", r"found nothing, allowed backbone"),
        (
            "[{backbone: resnet10t, cpu: 2}, {backbone: resnet5*, cpu: 2}]",
            r"per_backbone\[1\].backbone: found 'resnet5\*', allowed a backbone of the space, or a "
            r"pattern such as vit_\*: resnet10t, resnet18",
        ),
        ("[{backbone: resnet1t, cpu: 2}]", r"did you mean resnet10t\?"),
        ("[{backbone: resnet*, cpus: 2}]", r"cpus: unknown key.*did you mean cpu\?"),
        ("[{backbone: resnet*, cpu: 0}]", r"\[0\].cpu: found 0, allowed a number above 0"),
        (
            "[{backbone: resnet*, gpus_per_trial: 0.5}]",
            r"gpus_per_trial: found 0.5, allowed an",
        ),
        ("[resnet18]", "found a list, allowed a list of mappings"),
        (
            "[{backbone: resnet18, workers_per_trial: 2}]",
            r"\[0\].workers_per_trial: found 2 without a finetune stage, allowed 1",
        ),
    ],
)
def test_wrong_entries_are_named(entries: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=message):
        experiment(
            "model.backbone={choice: [resnet10t, resnet18]}",
            f"search.resources.per_backbone={entries}",
        )


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("search.resources.gpu=-1", "at least 0"),
        ("search.resources.cpu=0", "above 0"),
        ("search.resources.cpu=-2", "above 0"),
        ("search.resources.wait=-1", "at least 0"),
    ],
)
def test_negative_requests_are_refused_by_the_file(entry: str, message: str) -> None:
    with pytest.raises(ExperimentError, match=f"--set {entry.partition('=')[0]}: .*{message}"):
        Experiment.parse("name: x\ndata: {source: typefaces}", overrides=[entry])


def test_threads_are_whole_and_at_least_one() -> None:
    assert Slots(0.5, 0, 1).threads == 1
    assert Slots(3.9, 0, 1).threads == 3
    assert Slots(8, 2, 1, workers=2).threads == 4


def test_one_machine_has_the_slots_of_its_own() -> None:
    request_ = ResourcesConfig(cpu=1, gpu=0)
    assert fit(request_, [TWO_CORES]).per_node == 2
    # Eight nodes of one slot are eight machines of one slot.
    single = {"CPU": 1.0}
    assert fit(request_, [single] * 8).per_node == 1
    assert fit(request_, [single, TWO_CORES, single]).per_node == 2
    # A head that trains nothing, and shares of the GPUs of a node.
    shared = ResourcesConfig(cpu=1, gpu=0.5)
    assert fit(shared, [single, FOUR_GPUS], 4).per_node == 4
    assert Slots(cpu=1, gpu=0, count=3).per_node == 3
    # Where nodes come later, the largest one of today counts.
    assert Slots(cpu=1, gpu=0, count=8, largest=2).per_node == 2
