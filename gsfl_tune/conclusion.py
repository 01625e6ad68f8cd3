"""The end of a run: comparison of the winner with simpler models, bundles and evidence."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gsfl_tune.activity import activity
from gsfl_tune.evidence import (
    Explained,
    Retrained,
    Searched,
    Tested,
    Work,
    Yardstick,
    difference,
    find,
    mean_interval,
    measure_probe,
    probe_network,
    write_evidence,
)
from gsfl_tune.experiment import Config, Experiment
from gsfl_tune.experiment.heads import CONTROL, SHARED_HEADS
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.export import bundle_from_network, write_best_training
from gsfl_tune.models import Network
from gsfl_tune.report.files import read_trials
from gsfl_tune.report.importance import importances
from gsfl_tune.report.rungs import pretraining_rungs
from gsfl_tune.report.slots import timeline
from gsfl_tune.run import RunDirectory, WorkerLog
from gsfl_tune.run.layout import CHECKPOINT_FILE, EPOCHS_FILE
from gsfl_tune.run.manifest import Manifest
from gsfl_tune.run.results import (
    Calibration,
    Ensemble,
    Finalist,
    Flip,
    Results,
    Score,
    write_results,
)
from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.run.verdict import best_on_validation
from gsfl_tune.search import (
    Candidate,
    Retraining,
    SearchFailed,
    count_trials,
    pareto_entries,
    write_trials,
)
from gsfl_tune.training import (
    CheckpointError,
    Predictions,
    Training,
    Workspace,
    environment,
)
from gsfl_tune.training.metrics import classification_metrics
from gsfl_tune.training.scoring import costs_of
from gsfl_tune.training.standalone import broken_checkpoint, open_workspace
from gsfl_tune.training.temperature import calibrate, log_probabilities

Groups = NDArray[np.int64]


@dataclass(frozen=True)
class Conclusion:
    """Writes the results once winner and control are retrained and tested.

    Attributes:
        experiment: The experiment.
        run: The run directory.
        manifest: Its clocks.
        workspace: Data and caches.
        retraining: Paths of the retrained models.
        slots: Concurrent trials, for the page.
        notice: Receives what could not be done.
        storage: Storage of the run in addition to its directory.
    """

    experiment: Experiment
    run: RunDirectory
    manifest: Manifest
    workspace: Workspace
    retraining: Retraining
    slots: int
    notice: Callable[[str], None]
    storage: DriverCopy | None = None

    def write(
        self, winner: Candidate, control: Candidate | None, kind: str, finalists: list[Candidate]
    ) -> Results:
        """Compares models on the test images; writes bundles, evidence and ``results.json``.

        Args:
            winner: The winner, retrained and tested.
            control: The control, retrained and tested, if there is one.
            kind: Kind of the control: ``matched`` or ``tuned``.
            finalists: The finalists with their validation metrics.

        Raises:
            SearchFailed: If a retrained model is gone.
        """
        workspace = self._workspace(winner.config)
        with self.manifest.clock("evidence"):
            shared = winner.config.model.head in SHARED_HEADS
            groups = workspace.groups(winner.config) if shared else None
            predictions = self.retraining.predictions(winner)
            others = self.retraining.predictions(control) if control is not None else []
            correct = np.stack([each.correct for each in predictions])
            yardstick = measure_probe(workspace, winner.config)
            validations = self.retraining.validations(winner)
            calibration = calibrated(validations, predictions)
            evidence = write_evidence(
                self.run,
                workspace,
                self._retrained(winner),
                self._retrained(control) if control else None,
                predictions=predictions,
                groups=groups,
                calibrated=calibration,
                notice=self.notice,
            )
            if self.storage is not None:
                self.storage.settle()
            write_trials(self.run)
        results = Results(
            name=self.experiment.name,
            metric=self.experiment.defaults().search.metric,
            trials=count_trials(self.run),
            winner=replace(
                winner.outcome(), interval=mean_interval(correct), calibration=calibration
            ),
            probe=yardstick.result(correct),
            ensemble=ensemble_of(
                winner.seeds,
                validations,
                predictions,
                costs_of(winner.config.search, workspace.dataset.classes),
            ),
            flip=_flip_of(winner.seeds[0], evidence.get("flip")),
            finalists=[
                Finalist(each.trial, Score.table(each.validation))
                for each in finalists
                if each.validation
            ],
            pareto=pareto_entries(self.experiment, self.run),
            pretraining=self._pretraining(),
            groups={}
            if groups is None
            else dict(zip(workspace.dataset.classes, map(int, groups), strict=True)),
            cost={"seconds": self.manifest.seconds(), "slots": self.slots},
            environment=environment(),
        )
        with activity("comparing winner, control and linear probe"):
            if control is not None:
                rival = np.stack([each.correct for each in others])
                results = replace(
                    results,
                    control=replace(
                        control.outcome(kind),
                        interval=mean_interval(rival),
                        calibration=calibrated(self.retraining.validations(control), others),
                    ),
                    difference=difference(correct, rival),
                )
            tested = Tested.of(predictions, others, yardstick)
            findings = find(
                results,
                evidence,
                tested,
                space=self.experiment.space,
                searched=self._searched(results),
            )
            results = replace(results, findings=findings)
        with activity("writing the bundles"):
            self._write_bundles(results, winner, control, yardstick, groups, workspace)
        write_results(self.run.results_file, results)
        return results

    def _pretraining(self) -> list[dict[str, Any]]:
        """Describes the rungs within pretrainings, by the accuracy of nearest neighbours."""
        if True not in self.experiment.values("training.pretrain"):
            return []
        records = read_trials(self.run, self.experiment.defaults().search.metric)
        found = pretraining_rungs([each for each in records if each.study == "search"])
        return [
            {
                "epoch": each.index,
                "reached": each.reached,
                "stopped": each.stopped,
                "median": each.median,
                "best": each.best,
            }
            for each in found
        ]

    def _searched(self, results: Results) -> Searched:
        """Collects what the page draws of the search, from the same functions."""
        records = read_trials(self.run, results.metric)
        own = [each for each in records if each.study == "search"]
        finished = [each for each in own if each.state == "COMPLETE"]
        forest = importances(own)
        slots = timeline(WorkerLog(self.run).read(), records)
        done = [(t.end or 0.0, t.value) for t in finished if t.feasible and t.value is not None]
        states = dict(results.trials)
        # A changed space gave them the state of failed ones, but what they tried was searched.
        for each in own:
            if each.outside:
                states[each.state] -= 1
        return Searched(
            rungs=[each.rungs for each in own],
            values=[value for _, value in sorted(done)],
            states=states,
            sign=metric_of(results.metric).sign,
            curves=[
                [value for value in each.curve.values[each.curve.before :] if value is not None]
                for each in finished
            ],
            front=len(results.pareto),
            explained=Explained(forest.trials, forest.explained, forest.shares)
            if forest is not None
            else None,
            # Without the log of the workers, interruptions count as work.
            work=Work(len(slots.lanes), slots.seconds, slots.busy)
            if slots is not None and slots.measured
            else None,
        )

    def _workspace(self, config: Config) -> Workspace:
        """Returns a workspace with a configuration's ``data.fit``, which the search may choose."""
        if config.data.fit == self.experiment.defaults().data.fit:
            return self.workspace
        chosen = self.experiment.fixed({"data.fit": config.data.fit})
        return open_workspace(chosen, self.workspace.cache_dir)

    def _retrained(self, candidate: Candidate) -> Retrained:
        """Returns the retrained models, fetched from a storage if needed."""
        jobs = self.retraining.jobs(candidate, "train+validation")
        if self.storage is not None:
            for job in jobs:
                self.storage.bring(job.directory / EPOCHS_FILE, job.directory / CHECKPOINT_FILE)
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
        """Writes the winner to ``best/``, and beside it a model that is better on validation."""
        network, training = self._network(winner, workspace)
        named = None if groups is None else [int(group) for group in groups]
        content = results.to_json()
        classes, side = workspace.dataset.classes, workspace.dataset.pool.side
        seen = workspace.dataset.trained_on(validation=True)
        # One of an earlier winner does not belong to this one.
        shutil.rmtree(self.run.best_training, ignore_errors=True)
        bundle_from_network(
            self.run.best,
            network,
            winner.config,
            classes=classes,
            groups=named,
            side=side,
            reading=workspace.dataset.reading,
            metrics=content,
            calibration=results.winner.calibration,
            trained_on=seen,
        )
        write_best_training(self.run.best_training, network, training.centers)
        model = best_on_validation(results)
        if model == "winner":
            # Left from an earlier conclusion of this run, with other seeds.
            shutil.rmtree(self.run.best_simple, ignore_errors=True)
            return
        config = winner.config
        if model == "control" and control is not None:
            config = control.config
            workspace = self._workspace(config)
            network, _ = self._network(control, workspace)
            calibration = results.control.calibration if results.control else None
        else:
            calibration = results.probe.calibration if results.probe else None
            network = probe_network(workspace, config, yardstick.probe)
            # Fitted and tested on images of the training size, see `measure_probe`.
            data = config.data.model_copy(update={"eval_image_size": None})
            config = config.model_copy(update={"data": data})
        bundle_from_network(
            self.run.best_simple,
            network,
            config.model_copy(update={"model": config.model.model_copy(update={"head": CONTROL})}),
            classes=classes,
            groups=None,
            side=side,
            reading=workspace.dataset.reading,
            metrics=content,
            model=model,
            calibration=calibration,
            trained_on=seen,
        )

    def _network(self, candidate: Candidate, workspace: Workspace) -> tuple[Network, Training]:
        """Loads the first seed's model, never the best on the test split."""
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


def calibrated(
    validations: Sequence[Predictions], tested: Sequence[Predictions], *, ensemble: bool = False
) -> Calibration | None:
    """Fits temperature and thresholds of a configuration; None if there is nothing to fit on.

    Args:
        validations: Predictions of trainings on the training part, which saw none of these images.
        tested: Predictions of the retrained models on the test images.
        ensemble: Whether the answer is the mean of the seeds' probabilities, not each seed's.
    """
    if not validations:
        return None
    return calibrate(
        np.stack([each.logits for each in validations]),
        validations[0].labels,
        np.stack([each.logits for each in tested]),
        tested[0].labels,
        ensemble=ensemble,
    )


def ensemble_of(
    seeds: Sequence[int],
    validations: Sequence[Predictions],
    tested: Sequence[Predictions],
    costs: NDArray[np.float64] | None = None,
) -> Ensemble | None:
    """Scores the mean of the probabilities of all seeds; None for a single seed.

    Args:
        seeds: Seeds of the retrained models.
        validations: See `calibrated`; with fewer than two the ensemble has no own temperature.
        tested: Predictions of the retrained models on the test images.
        costs: (C, C) costs of answers that the search goes by, if it does.
    """
    if len(tested) < 2:
        return None
    logits = np.stack([each.logits for each in tested]).astype(np.float64)
    (mean,) = log_probabilities(logits, 1.0, ensemble=True)
    found = calibrated(validations, tested, ensemble=True) if len(validations) > 1 else None
    scores = Score.table([classification_metrics(mean, tested[0].labels, costs=costs)])
    return Ensemble(list(seeds), scores, found)


def _flip_of(seed: int, measured: Mapping[str, Any] | None) -> Flip | None:
    if not measured or "error" in measured:
        return None
    plain, test = (Score.table([measured[name]]) for name in ("plain", "test"))
    return Flip(seed, measured["images"], plain, test)
