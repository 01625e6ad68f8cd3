"""Section ``search`` of an experiment file: sampler, scheduler, resources and limits."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from gsfl_tune.experiment.names import Named
from gsfl_tune.experiment.section import Fraction, NonNegative, Positive, Section
from gsfl_tune.experiment.units import Duration, Size


class SamplerConfig(Section):
    """The sampler, which proposes configurations."""

    name: Annotated[str, Named("sampler")] = Field(
        "tpe", description="tpe: each parameter by itself, with constant liar."
    )
    startup_trials: int = Field(10, ge=0, description="Random trials before the model takes over.")
    multivariate: bool = Field(
        False, description="tpe: all parameters jointly, grouped by condition."
    )
    near_defaults: Fraction = Field(
        0.5, description="tpe: share of the start-up trials near the defaults."
    )
    cost_ratio: Positive | None = Field(
        1.0,
        description="tpe, random: a configuration that costs r times as much as the defaults is "
        "tried with probability cost_ratio / r, else with other values of what makes it expensive. "
        "null: what a trial costs does not matter.",
    )

    @property
    def weighs_cost(self) -> float | None:
        """Returns the cost ratio; None where the sampler does not know what a trial costs.

        The others propose points of a sequence or of a model, which no other draw replaces.
        """
        return self.cost_ratio if self.name in ("random", "tpe") else None


class SchedulerConfig(Section):
    """The scheduler, which stops weak trials."""

    name: Literal["asha", "none"] = Field("asha", description="ASHA over the rungs of both stages.")
    grace: int = Field(5, ge=1, description="Head epochs before the first comparison.")
    reduction: int = Field(2, ge=2, description="One in this many trials survives a rung.")
    pretrain_grace: int | None = Field(
        None,
        ge=1,
        description="Epochs of a pretraining before trials are first compared within it, by the "
        "accuracy of 20 nearest neighbours on the validation part; null: they are not.",
    )
    by: Literal["epochs", "time"] = Field(
        "epochs",
        description="What is equal when trials are compared: epochs, or the seconds that the "
        "defaults take until then (expensive trials have fewer epochs by then).",
    )
    brackets: int = Field(1, ge=1, description="Brackets; the k-th skips the first k rungs.")
    promote: bool = Field(
        False,
        description="Weak trials pause in place of ending: one that later trials show to be good "
        "enough at its rung continues from its checkpoint, before a new trial begins.",
    )
    by_objectives: bool = Field(
        False,
        description="With several objectives: survivors of a rung are of the first Pareto fronts "
        "of all objectives, spread over the last one. Otherwise the first objective decides.",
    )


class ResourcesConfig(Section):
    """Resources of one trial."""

    cpu: Positive = Field(1.0, description="CPU cores per trial.")
    gpu: NonNegative | Literal["auto"] = Field(
        "auto", description="GPUs per trial; fractions below 1 share one; `auto`: 1 if any."
    )
    wait: NonNegative = Field(
        0.0,
        description="Seconds that a cluster may take to grow, by its autoscaler or as nodes start, "
        "to hold `max_concurrent` trials, else one. The search then begins with the nodes it has.",
    )
    gpus_per_trial: int | None = Field(
        None,
        ge=1,
        description="Whole GPUs over which a trial divides every batch of its finetune stage and "
        "of its pretraining, in place of `gpu`.",
    )
    workers_per_trial: int | None = Field(
        None,
        ge=1,
        description="Processes of a trial that divide every batch of its finetune stage and of its "
        "pretraining; default: one for each GPU. Set it where there are no GPUs.",
    )
    shard: bool = Field(
        False,
        description="The processes of a trial divide weights, gradients and optimiser state of the "
        "trained blocks among themselves too (FSDP2), and may be on several nodes: for a backbone "
        "that cannot be trained on one GPU.",
    )
    per_backbone: list[dict[str, Any]] = Field(
        default_factory=list,
        description="Other resources for trials with some backbones: [{backbone: vit_large*, cpu: "
        "8, gpu: 1}]. `backbone` is a name of the space, or a pattern with `*`; the first entry "
        "that fits counts. Keys: cpu, gpu, gpus_per_trial, workers_per_trial, shard.",
    )

    def of(self, backbone: str) -> ResourcesConfig | None:
        """Returns the resources of trials with a backbone; None where no entry names it.

        Args:
            backbone: A value of ``model.backbone``.
        """
        for entry in self.per_backbone:
            if fnmatchcase(backbone, entry["backbone"]):
                own = {key: value for key, value in entry.items() if key != "backbone"}
                rest = self.model_dump(exclude={"per_backbone", "wait"})
                if {"gpu", "gpus_per_trial"} & set(own):
                    # Both say how many GPUs, and the number of processes follows from it.
                    rest = {"cpu": self.cpu}
                return ResourcesConfig.model_validate({**rest, "wait": self.wait, **own})
        return None


class SearchConfig(Section):
    """Budget, objective and protocol. No leaf of this section can be a distribution."""

    trials: int = Field(50, ge=1, description="Trials of the search.")
    metric: Annotated[str, Named("metric", "validation/")] = Field(
        "validation/accuracy", description="Objective: a trial's value at its last epoch."
    )
    objectives: list[str] | None = Field(
        None,
        description="Two to four objectives in place of `metric`: [validation/accuracy, "
        "latency_ms]. ASHA and the winner go by the first; the Pareto front is in results.json. "
        "Further ones: latency_ms, size_mb, macs, and metrics of the validation images.",
    )
    constraints: list[str] = Field(
        default_factory=list,
        description="What a trial must keep to win: [latency_ms < 20, size_mb <= 30, macs < 5e8], "
        "or a metric of the validation images with >. The sampler goes by it too.",
    )
    cost_matrix: str | None = Field(
        None,
        description="CSV file of the cost of every answer, for `validation/expected_cost`: the "
        "first line names the answered classes, the first column the true ones.",
    )
    sampler: SamplerConfig = Field(default_factory=SamplerConfig, description="Sampler.")
    scheduler: SchedulerConfig = Field(default_factory=SchedulerConfig, description="Scheduler.")
    resources: ResourcesConfig = Field(
        default_factory=ResourcesConfig, description="Resources of one trial."
    )
    folds: int | None = Field(
        None,
        ge=2,
        description="Cross-validation: training and validation images are divided into so many "
        "folds. A trial that does well with one of them held out is trained again with the next "
        "one; its value is the mean.",
    )
    repeats: int = Field(
        1,
        ge=1,
        description="Seeds of a trial: one that does well is trained again with the next seed; its "
        "value is the mean. With `folds` each fold has so many seeds.",
    )
    seed: int = Field(0, ge=0, description="Seed of sampler and brackets.")
    control: Literal["matched", "tuned", "off"] = Field(
        "matched",
        description="Plain control: the winner's configuration, a search of its own, or none.",
    )
    finalists: int = Field(
        3,
        ge=1,
        description="Best trials that are trained again before one wins; with `folds` 1 where the "
        "file leaves it out: the best mean wins.",
    )
    final_seeds: int = Field(3, ge=1, description="Seeds of every retrain at the end.")
    enqueue: list[dict[str, Any]] = Field(
        default_factory=list, description="Configurations to try first: dotted path to value."
    )
    warm_start: list[str] = Field(
        default_factory=list,
        description="Earlier runs: their good configurations are tried first, and new ones are "
        "drawn near them.",
    )
    max_concurrent: int | None = Field(
        None, ge=1, description="Parallel trials; default: as many as the resources hold."
    )
    max_failures: int = Field(
        3,
        ge=0,
        description="How often a trial is started again after its own crash; the loss of its node "
        "does not count.",
    )
    time_budget: Duration | None = Field(
        None,
        description="Time for everything up to the tested bundle, over all resumes (90s, 20m, 6h, "
        "2d). Trials, epochs, finalists and seeds that the file leaves out follow from it.",
    )
    target: float | None = Field(
        None, description="Value of the metric at which a finished trial ends the search."
    )
    trial_timeout: Duration | None = Field(
        None, description="Longest time of one trial, which then fails (90s, 20m, 6h, 2d)."
    )
    last_checkpoints: int = Field(
        2,
        ge=1,
        le=100,
        description="Newest checkpoints that a running trial keeps; if the last one cannot be "
        "read, it continues from the one before.",
    )
    keep_checkpoints: int = Field(
        3, ge=0, description="Checkpoints of the best finished trials that are kept."
    )
    disk_budget: Size | None = Field(
        None, description="Largest size of all checkpoints of the run (500MB, 50GB)."
    )

    @property
    def named(self) -> tuple[str, ...]:
        """Returns the keys of the metrics that the search goes by, those of images and others."""
        limits = (re.split("[<>]", each)[0].strip() for each in self.constraints)
        return (self.metric, *(self.objectives or ()), *limits)

    @property
    def replicates(self) -> int:
        """Returns the most trainings of a trial: one for each fold and seed."""
        return (self.folds or 1) * self.repeats

    @model_validator(mode="before")
    @classmethod
    def _first_objective(cls, values: Any) -> Any:
        """Sets `metric` to the first objective, for code that compares trials by one number."""
        found = values.get("objectives") if isinstance(values, dict) else None
        if isinstance(found, list) and found and "metric" not in values:
            return {**values, "metric": found[0]}
        return values

    @model_validator(mode="before")
    @classmethod
    def _no_race(cls, values: Any) -> Any:
        """Leaves the race of the finalists out, with folds: its single split would decide."""
        if isinstance(values, dict) and values.get("folds") and "finalists" not in values:
            return {**values, "finalists": 1}
        return values
