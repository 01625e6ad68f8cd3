"""What ``model.feature_precision: auto`` becomes in a search: bf16 where that saves time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from gsfl_tune.cores import usable_cores
from gsfl_tune.experiment import Experiment, ExperimentError, Problem
from gsfl_tune.models import pooling_class
from gsfl_tune.models.arithmetic import backbone_work
from gsfl_tune.models.frozen import has_bf16_units
from gsfl_tune.training.caches.engines import Rehearsal, rehearsal
from gsfl_tune.training.caches.features import all_cores
from gsfl_tune.training.caches.int8 import int8_problem
from gsfl_tune.training.pricing.passes import feature_passes
from gsfl_tune.training.workspace import Workspace, resolve_device

LEAF = "model.feature_precision"

# Whether `auto` may choose bf16: false until `benchmarks/feature_precision.py` shows, on ten
# paired seeds of two data sets, that heads lose nothing.
AUTO_MAY_BE_BF16 = False
# With less than this to compute in fp32, nothing is measured and nothing changes.
LEAST_SECONDS = 30.0
# bf16 must be faster by this factor.
_LEAST_GAIN = 1.3
# A cautious guess of what a core computes in fp32; measured for four backbones: 80 to 150.
FLOPS_A_CORE = 100e9


@dataclass(frozen=True)
class FeaturePrecision:
    """Holds the precision of a run's frozen features, and why it has it.

    Attributes:
        precision: ``fp32``, ``bf16``, ``int8``, or ``searched``.
        reason: Why, in words.
        images_per_second: As measured on the driver, by precision and engine; empty if nothing was.
        refused: Why OpenVINO is not used, by precision, or int8 is not; empty if it runs or was not
            asked.
    """

    precision: str
    reason: str
    images_per_second: Mapping[str, float]
    refused: Mapping[str, str]

    def to_json(self) -> dict[str, Any]:
        """Returns plain values."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Returns what people must know: a choice of bf16, and an engine that was refused."""
        found = [f"{LEAF}: bf16 ({self.reason})"] if self.images_per_second else []
        if self.precision != "bf16":
            found = []
        refused = dict(self.refused)
        if why_not := refused.pop("int8", ""):
            found.append(f"{LEAF}: int8 is not used, features are in fp32: {why_not}")
        why = dict.fromkeys(refused.values())
        return found + [f"OpenVINO is not used: {each}" for each in why if each != "not installed"]


def fit_precision(
    experiment: Experiment,
    workspace: Workspace,
    *,
    known: Mapping[str, Any] | None,
    alone: bool,
) -> tuple[Experiment, FeaturePrecision]:
    """Replaces ``auto`` by bf16 where features are computed faster; otherwise it stays (fp32).

    Args:
        experiment: The experiment.
        workspace: Its data.
        known: What an earlier driver of the run has chosen, empty if it was of a version without
            the choice; None for a new run. A run keeps its precision.
        alone: Whether this machine computes everything, and no cluster.
    """
    if known is not None and set(experiment.values(LEAF)) == {"auto"}:
        chosen = FeaturePrecision(
            known.get("precision", "fp32"),
            known.get("reason", "a version without the choice began the run"),
            known.get("images_per_second", {}),
            known.get("refused", {}),
        )
    else:
        dataset = workspace.dataset
        plain, augmented = feature_passes(experiment)
        looked_at = plain * (len(dataset.pool) + len(dataset.test)) + augmented * len(dataset.pool)
        chosen = decide(
            experiment,
            looked_at,
            alone=alone,
            device=workspace.device,
            measure=lambda: _measure(experiment, workspace),
        )
    if alone and experiment.values(LEAF) == ["int8"]:
        chosen = _int8(experiment, workspace) or chosen
    if chosen.precision == "bf16" and set(experiment.values(LEAF)) == {"auto"}:
        experiment = experiment.fixed({LEAF: "bf16"})
    return experiment, chosen


def _int8(experiment: Experiment, workspace: Workspace) -> FeaturePrecision | None:
    """Quantises the default backbone here, not in a worker, whose notices few read.

    Returns:
        What becomes of features where int8 was refused; None where it was not.
    """
    refuse_unfit_precision(experiment)
    config = experiment.defaults()
    if config.training.pretrain:  # its weights do not exist yet
        return None
    refused = workspace.extractor(config).refused
    reason = "int8, as the experiment says, was refused"
    return FeaturePrecision("fp32", reason, {}, {"int8": refused}) if refused else None


Measured = tuple[Rehearsal, Rehearsal]


def decide(
    experiment: Experiment,
    looked_at: int | None,
    *,
    alone: bool,
    device: torch.device,
    measure: Callable[[], Measured] | None,
) -> FeaturePrecision:
    """Decides which precision a search computes features in.

    Args:
        experiment: The experiment.
        looked_at: Passes of single images through the backbone; None if unknown.
        alone: Whether this machine computes everything.
        device: Device of the features.
        measure: Gives the speeds in fp32 and bf16; None to describe only what would be measured.
    """
    asked = experiment.values(LEAF)

    def fp32(reason: str) -> FeaturePrecision:
        return FeaturePrecision("fp32", reason, {}, {})

    if asked != ["auto"]:
        precision = asked[0] if len(asked) == 1 else "searched"
        return FeaturePrecision(precision, "as the experiment says", {}, {})
    if not AUTO_MAY_BE_BF16:
        return fp32("auto")
    if device.type != "cpu":
        return fp32("auto: on a GPU")
    if not alone:
        return fp32("auto: nodes of a cluster may have different CPUs")
    if set(experiment.values("training.precision")) == {"fp32"}:
        return fp32("auto: as training.precision says")
    if not has_bf16_units():
        return fp32("auto: this CPU does not multiply bf16")
    if looked_at is not None and estimate(experiment, looked_at) < LEAST_SECONDS:
        return fp32(f"auto: features take less than {LEAST_SECONDS:.0f} s")
    if measure is None:
        least = "" if looked_at else f", and features take {LEAST_SECONDS:.0f} s and more"
        reason = f"auto: if it is {_LEAST_GAIN} times as fast when the search begins{least}"
        return FeaturePrecision("bf16", reason, {}, {})
    return _faster(*measure())


def _faster(full: Rehearsal, half: Rehearsal) -> FeaturePrecision:
    both = {"fp32": full, "bf16": half}
    rates = {
        f"{precision} {engine}": round(rate, 1)
        for precision, each in both.items()
        for engine, rate in (("torch", each.torch), ("openvino", each.openvino))
        if rate
    }
    refused = {name: each.refused for name, each in both.items() if each.refused}
    best = {name: max(each.torch, each.openvino) for name, each in both.items()}
    gain = best["bf16"] / best["fp32"]
    precision = "bf16" if gain >= _LEAST_GAIN else "fp32"
    engine = "OpenVINO" if both[precision].openvino > both[precision].torch else "PyTorch"
    reason = (
        f"auto: bf16 runs {best['bf16']:.0f} images a second, fp32 {best['fp32']:.0f}; by {engine}"
    )
    return FeaturePrecision(precision, reason, rates, refused)


def estimate(experiment: Experiment, looked_at: int) -> float:
    """Returns a guess of the seconds that features take in fp32, without measuring.

    Args:
        experiment: The experiment; its default backbone counts.
        looked_at: Passes of single images.
    """
    config = experiment.defaults()
    reads = pooling_class(config.model.pooling).reads
    work = backbone_work(config.model.backbone, 0, config.data.image_size, reads).frozen
    return looked_at * work / (FLOPS_A_CORE * usable_cores())


def _measure(experiment: Experiment, workspace: Workspace) -> Measured:
    config = experiment.defaults()
    backbone, size = workspace.backbone(config), config.data.image_size
    shape, name = (3, size, size), f"{backbone.name}, {backbone.reads}"
    cache: Path = workspace.cache_dir
    with all_cores(workspace.device):
        full, half = (
            rehearsal(backbone, shape, precision=precision, name=name, cache_dir=cache)
            for precision in ("fp32", "bf16")
        )
    return full, half


def refuse_unfit_precision(experiment: Experiment) -> None:
    """Refuses bf16 features on a CPU that does not multiply bf16, and int8 where it cannot run.

    Raises:
        ExperimentError: If the file asks for bf16, the images run on the CPU, and that has no
            units; or for int8 on a GPU, or without the packages that it needs.
    """
    asked = experiment.values(LEAF)
    if not {"bf16", "int8"} & set(asked):
        return
    device = resolve_device(experiment.defaults().training.device)
    problems = {}
    if "bf16" in asked and device.type == "cpu" and not has_bf16_units():
        problems["bf16"] = (
            "found bf16, but this CPU does not multiply bf16 numbers (it has neither AMX nor "
            "AVX512-BF16); allowed: auto, fp32"
        )
    if "int8" in asked and (text := int8_problem(device)):
        problems["int8"] = text
    if problems:
        raise ExperimentError(
            [Problem(*experiment.locate(LEAF, each), LEAF, problems[each]) for each in problems]
        )
