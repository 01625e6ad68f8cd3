"""The end of a run: what its winner is worth beside simpler models, and the bundles."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from gsfl_tune.activity import activity
from gsfl_tune.evidence import (
    LinearProbe,
    Retrained,
    Tested,
    Yardstick,
    difference,
    find,
    mean_interval,
    measure_probe,
    write_evidence,
)
from gsfl_tune.experiment import Config, Experiment
from gsfl_tune.export import bundle_from_network, write_best_training
from gsfl_tune.models import LinearHead, Network
from gsfl_tune.run import RunDirectory
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.run.results import Finalist, Results, Score, write_results
from gsfl_tune.run.storage import CHECKPOINT, EPOCHS, RunStorage
from gsfl_tune.run.verdict import best_on_validation
from gsfl_tune.search import (
    Candidate,
    Retraining,
    SearchFailed,
    count_trials,
    pareto_entries,
    write_trials,
)
from gsfl_tune.training import CheckpointError, Training, Workspace, environment
from gsfl_tune.training.standalone import broken_checkpoint, open_workspace

Groups = NDArray[np.int64]


@dataclass(frozen=True)
class Conclusion:
    """What is known once winner and control are retrained and tested.

    Attributes:
        experiment: What was searched.
        run: The run directory.
        manifest: Its clocks.
        workspace: Data and caches.
        retraining: Where the retrained models lie.
        slots: Trials at once, for the page.
        notice: Told what could not be done.
        storage: Where the run is kept beside its directory.
    """

    experiment: Experiment
    run: RunDirectory
    manifest: Manifest
    workspace: Workspace
    retraining: Retraining
    slots: int
    notice: Callable[[str], None]
    storage: RunStorage | None = None

    def write(
        self, winner: Candidate, control: Candidate | None, kind: str, finalists: list[Candidate]
    ) -> Results:
        """Compares, looks at the test images, writes bundles, evidence and ``results.json``.

        Args:
            winner: Retrained and tested.
            control: Likewise, if there is one.
            kind: Of the control: ``matched`` or ``tuned``.
            finalists: With their validation metrics.

        Raises:
            SearchFailed: When a retrained model is gone.
        """
        workspace = self._workspace(winner.config)
        with self.manifest.clock("evidence"):
            groups = workspace.groups(winner.config) if winner.config.model.head == "gsfl" else None
            predictions = self.retraining.predictions(winner)
            others = self.retraining.predictions(control) if control is not None else []
            correct = np.stack([each.correct for each in predictions])
            yardstick = measure_probe(workspace, winner.config)
            evidence = write_evidence(
                self.run,
                workspace,
                self._retrained(winner),
                self._retrained(control) if control else None,
                predictions=predictions,
                groups=groups,
                notice=self.notice,
            )
            if self.storage is not None:
                self.storage.settle()
            write_trials(self.run)
        results = Results(
            name=self.experiment.name,
            metric=self.experiment.defaults().search.metric,
            trials=count_trials(self.run),
            winner=replace(winner.outcome(), interval=mean_interval(correct)),
            probe=yardstick.result(correct),
            finalists=[
                Finalist(each.trial, Score.table(each.validation))
                for each in finalists
                if each.validation
            ],
            pareto=pareto_entries(self.experiment, self.run),
            groups={}
            if groups is None
            else dict(zip(workspace.dataset.classes, map(int, groups), strict=True)),
            cost={"seconds": self.manifest.seconds(), "slots": self.slots},
            environment=environment(),
        )
        with activity("comparing: drawing seeds and images again"):
            if control is not None:
                rival = np.stack([each.correct for each in others])
                results = replace(
                    results,
                    control=replace(control.outcome(kind), interval=mean_interval(rival)),
                    difference=difference(correct, rival),
                )
            tested = Tested.of(predictions, others, yardstick)
            findings = find(results, evidence, tested, space=self.experiment.space)
            results = replace(results, findings=findings)
        with activity("writing the bundles"):
            self._write_bundles(results, winner, control, yardstick, groups, workspace)
        write_results(self.run.results_file, results)
        return results

    def _workspace(self, config: Config) -> Workspace:
        """The search may choose how images are cut: features and groups are those of its choice."""
        if config.data.fit == self.experiment.defaults().data.fit:
            return self.workspace
        chosen = self.experiment.fixed({"data.fit": config.data.fit})
        return open_workspace(chosen, self.workspace.cache_dir)

    def _retrained(self, candidate: Candidate) -> Retrained:
        """Where the retrained models lie; a storage may have kept them until now."""
        jobs = self.retraining.jobs(candidate, "train+validation")
        if self.storage is not None:
            for job in jobs:
                self.storage.bring(job.directory / EPOCHS, job.directory / CHECKPOINT)
        return Retrained(candidate.config, {job.seed: job.directory for job in jobs})

    # --- bundles --------------------------------------------------------------------------

    def _write_bundles(
        self,
        results: Results,
        winner: Candidate,
        control: Candidate | None,
        yardstick: Yardstick,
        groups: Groups | None,
        workspace: Workspace,
    ) -> None:
        """``best/`` is the winner; what is better on validation lies beside it."""
        network, training = self._network(winner, workspace)
        named = None if groups is None else [int(group) for group in groups]
        content = results.to_json()
        classes, side = workspace.dataset.classes, workspace.dataset.pool.side
        bundle_from_network(
            self.run.best,
            network,
            winner.config,
            classes=classes,
            groups=named,
            side=side,
            metrics=content,
        )
        write_best_training(self.run.best_training, network, training.centers)
        model = best_on_validation(results)
        if model == "winner":
            # Of an earlier end of this run, with other seeds.
            shutil.rmtree(self.run.best_simple, ignore_errors=True)
            return
        config = winner.config
        if model == "control" and control is not None:
            config = control.config
            workspace = self._workspace(config)
            network, _ = self._network(control, workspace)
        else:
            network = probe_network(workspace, config, yardstick.probe)
        bundle_from_network(
            self.run.best_simple,
            network,
            config.model_copy(update={"model": config.model.model_copy(update={"head": "plain"})}),
            classes=classes,
            groups=None,
            side=side,
            metrics=content,
            model=model,
        )

    def _network(self, candidate: Candidate, workspace: Workspace) -> tuple[Network, Training]:
        """The first seed's model, never the best on the test split."""
        job = self.retraining.jobs(candidate, "train+validation")[0]
        training = Training(candidate.config, workspace, job.directory, seed=job.seed, fit=job.fit)
        try:
            restored = training.look()
        except CheckpointError as error:
            raise broken_checkpoint(error) from error
        if not restored:
            raise SearchFailed(
                f"{training.checkpoint_path}: the retrained model is gone; remove "
                f"{job.directory} and resume"
            )
        return training.trained_network(), training


def probe_network(workspace: Workspace, config: Config, probe: LinearProbe) -> Network:
    """The network that a linear probe is: the frozen backbone, and the probe for a head.

    Args:
        workspace: Data and caches.
        config: Decides backbone, image size and pooling.
        probe: Fitted on features of this configuration.
    """
    extractor = workspace.extractor(config)
    head = LinearHead(probe.weights.shape[1], probe.weights.shape[0])
    with torch.no_grad():
        head.classifier.weight.copy_(torch.from_numpy(probe.weights))
        head.classifier.bias.copy_(torch.from_numpy(probe.bias))
    network = Network(
        workspace.new_backbone(config),
        copy.deepcopy(extractor.projection),
        extractor.pooling(),
        head,
    )
    return network.cpu().eval().requires_grad_(False)
