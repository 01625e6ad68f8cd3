"""The whole way in one file: preflight, search, retrain, test, evidence, export."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from gsfl_tune.cluster import Slots, ray_session, refuse_unfit_nodes, slots
from gsfl_tune.evidence import Retrained, linear_probe_result, paired_bootstrap, write_evidence
from gsfl_tune.experiment import Experiment
from gsfl_tune.export import bundle_from_network, write_best_training
from gsfl_tune.run import RunDirectory, StudyName, write_json, write_text
from gsfl_tune.run.manifest import Clock, Manifest
from gsfl_tune.run.results import (
    Difference,
    Finalist,
    Results,
    Score,
    read_results,
    write_results,
)
from gsfl_tune.run.storage import CHECKPOINT, EPOCHS, RunStorage
from gsfl_tune.search import (
    Candidate,
    Interrupt,
    Progress,
    Retraining,
    SearchFailed,
    SearchInterrupted,
    SearchTime,
    StorageWatcher,
    TimeBudget,
    TrialCosts,
    Utilisation,
    Watcher,
    Watchers,
    active_params,
    begin_or_go_on,
    best,
    check_run,
    choose_finalists,
    count_trials,
    fixed_to,
    pareto_entries,
    plain_space,
    plan_time,
    provisional,
    reasons,
    refuse_small_disk,
    refuse_what_fails_later,
    rehearse_largest,
    run_lock,
    run_study,
    stored_run,
    write_trials,
)
from gsfl_tune.search.tracking import TensorBoard, show_winner
from gsfl_tune.training import CheckpointError, Training, Workspace, environment
from gsfl_tune.training.preflight import fit_groups
from gsfl_tune.training.standalone import broken_checkpoint, open_workspace


def search(
    experiment: Experiment,
    run_dir: str | Path | None = None,
    *,
    resume: bool | None = False,
    change_space: bool = False,
    address: str | None = None,
    cache_dir: Path | None = None,
    watchers: Sequence[Watcher] | None = None,
) -> Results:
    """Searches, retrains, tests and exports.

    Args:
        experiment: What to search.
        run_dir: The run directory; default ``runs/NAME``.
        resume: Continue the run that is there; None: if there is one, else begin it.
        change_space: Whether a run that is continued may get another space: trials that are
            configurations of it keep their states.
        address: Of a Ray cluster; default: Ray starts in this process.
        cache_dir: Root of the nodes' caches.
        watchers: Are told of every change; default: a display on standard output.

    Returns:
        What ``results.json`` holds.

    Raises:
        UserError: For everything that the user can mend.
        SearchInterrupted: After Ctrl-C or SIGTERM.
        SearchFailed: When no trial came to its end.
    """
    run = RunDirectory(run_dir or Path("runs") / experiment.name)
    manifest = Manifest(run)
    watchers = [Progress()] if watchers is None else watchers
    notice = Watchers(*watchers).notice
    if experiment.defaults().storage is None:
        check_run(run, resume=resume)
    stored = stored_run(experiment, run, notice, resume=resume, address=address)
    with run_lock(run), stored as storage:
        # Everything that can be refused is, before the run directory is written to.
        started = time.monotonic()
        check_run(run, resume=resume)
        interrupt = Interrupt(run)
        workspace = open_workspace(experiment, cache_dir)
        experiment = fit_groups(experiment, workspace)
        counted = "search.trials" not in experiment.automatic
        begun = begin_or_go_on(
            experiment, run, workspace.dataset.digest, resume=resume, changing=change_space
        )
        experiment, plan = begun.experiment, begun.plan
        elapsed = manifest.elapsed(started, anew=begun.anew)
        if begun.before is None and manifest.finished(experiment):
            return read_results(run.results_file)
        assumed = provisional(experiment)
        refuse_what_fails_later(assumed, workspace, notice, address)
        costs = TrialCosts.of(workspace.dataset)
        with ray_session(address):
            config = experiment.defaults().search
            resources = slots(config.resources, config.max_concurrent)
            refuse_small_disk(assumed, resources.count)
            refuse_unfit_nodes(assumed, run.path, workspace.cache_dir, notice)
            rehearse_largest(
                assumed,
                resources=resources,
                side=workspace.dataset.pool.side,
                cache_dir=workspace.cache_dir,
                storage=storage.place if storage is not None else None,
            )
            if plan is None:
                plan = plan_time(
                    experiment,
                    workspace,
                    resources,
                    costs,
                    spent=elapsed(),
                    cache_dir=workspace.cache_dir,
                    storage=storage.place if storage is not None else None,
                )
            if plan is not None:
                experiment = fixed_to(experiment, plan)
            begun.prepare(run, experiment, notice)
            if plan is not None:
                write_json(run.plan_file, plan.to_json())
                for line in plan.lines():
                    notice(line)
            write_text(run.experiment_file, experiment.to_yaml())
            write_json(run.data_file, workspace.dataset.summary())
            for line in workspace.dataset.notices:
                notice(line)
            manifest.begin(
                experiment,
                data=workspace.dataset.digest,
                environment=environment(),
                seconds=time.monotonic() - started,
            )
            if storage is not None:
                watchers = [*watchers, StorageWatcher(storage, interrupt, notice)]
                storage.start()
            watchers = [*watchers, Utilisation(run, resources.count), TensorBoard(run, experiment)]
            _Search(
                experiment=experiment,
                run=run,
                manifest=manifest,
                workspace=workspace,
                slots=resources,
                interrupt=interrupt,
                watchers=watchers,
                costs=costs,
                budget=None
                if plan is None
                else TimeBudget.of(plan, experiment, elapsed, costs, workspace.dataset),
                counted=counted,
                storage=storage,
            ).run_all()
            show_winner(run)
        interrupt.clear()
    return read_results(run.results_file)


@dataclass(frozen=True)
class _Search:
    """One search on the Ray that this process is connected to."""

    experiment: Experiment
    run: RunDirectory
    manifest: Manifest
    workspace: Workspace
    slots: Slots
    interrupt: Interrupt
    watchers: Sequence[Watcher]
    costs: TrialCosts
    budget: TimeBudget | None = None
    counted: bool = True
    storage: RunStorage | None = None

    @property
    def retraining(self) -> Retraining:
        """The retrains at the end."""
        return Retraining(
            run=self.run,
            resources=self.slots,
            side=self.workspace.dataset.pool.side,
            cache_dir=self.workspace.cache_dir,
            max_failures=self.experiment.defaults().search.max_failures,
            watchers=self.watchers,
            interrupt=self.interrupt,
            storage=self.storage,
            costs=self.costs,
            budget=self.budget,
        )

    def run_all(self) -> None:
        """Every step of the protocol; each finds what an earlier driver has finished."""
        config = self.experiment.defaults().search
        clock = self.manifest.clock
        with clock("search") as spent:
            finalists = self._finalists(self.experiment, "search", spent)
        rivals: list[Candidate] = []
        if self._controls_itself:
            with clock("control search") as spent:
                rivals = self._rivals(spent)
        with clock("retraining"):
            finalists = self.retraining.race(finalists, "training the finalists")
            winner = best(finalists, config.metric, self.costs.seconds)
            if rivals:
                rivals = self.retraining.race(rivals, "training the control's finalists")
            control, kind = self._control(winner, rivals)
            winner, tested = self.retraining.conclude(winner, control)
        if not winner.test:
            raise SearchFailed(f"the winner could not be retrained; see {self.run.finals}")
        if tested is not None and not (tested.test and tested.validation):
            self._notice("the control could not be trained with every seed; there is none")
            tested = None
        self._conclude(winner, tested, kind, finalists)

    @property
    def _controls_itself(self) -> bool:
        """Whether the control has a search of its own."""
        tuned = self.experiment.defaults().search.control == "tuned"
        return tuned and "gsfl" in self.experiment.values("model.head")

    # --- search ---------------------------------------------------------------------------

    def _finalists(self, experiment: Experiment, name: StudyName, clock: Clock) -> list[Candidate]:
        limit: SearchTime | None = None
        if self.budget is not None:
            share = 0.5 if name == "search" and self._controls_itself else 1.0
            limit = SearchTime(self.budget, share, self.counted)
        outcome = run_study(
            experiment,
            self.run,
            name,
            resources=self.slots,
            feature_dim=self.workspace.feature_dim(experiment.defaults()),
            side=self.workspace.dataset.pool.side,
            cache_dir=self.workspace.cache_dir,
            watchers=self.watchers,
            interrupt=self.interrupt,
            clock=clock,
            storage=self.storage,
            costs=self.costs,
            limit=limit,
        )
        if outcome.interrupted:
            raise SearchInterrupted
        chosen = choose_finalists(outcome.study, experiment.defaults().search.finalists)
        if not chosen:
            raise SearchFailed(f"no {name} trial came to a rung:\n{reasons(outcome.study)}")
        return [
            Candidate(
                label=f"{name}-{trial.number}",
                config=experiment.configure(trial.params),
                trial=trial.number,
                params=active_params(experiment, trial.params),
            )
            for trial in chosen
        ]

    def _rivals(self, clock: Clock) -> list[Candidate]:
        """Finalists of the control's own search; none if it came to nothing."""
        try:
            return self._finalists(plain_space(self.experiment), "control", clock)
        except SearchFailed as error:
            self._notice(f"{error}\nthe control takes the winner's configuration instead")
            return []

    def _control(
        self, winner: Candidate, rivals: list[Candidate]
    ) -> tuple[Candidate | None, Literal["tuned", "matched"]]:
        config = self.experiment.defaults().search
        if any(rival.validation for rival in rivals):
            return best(rivals, config.metric, self.costs.seconds), "tuned"
        if config.control == "off" or winner.config.model.head == "plain":
            return None, "matched"
        return winner.plain(), "matched"

    def _notice(self, text: str) -> None:
        for watcher in self.watchers:
            watcher.notice(text)

    # --- evidence and export --------------------------------------------------------------

    def _conclude(
        self, winner: Candidate, control: Candidate | None, kind: str, finalists: list[Candidate]
    ) -> None:
        workspace = self.workspace
        if winner.config.data.fit != self.experiment.defaults().data.fit:
            # The search chose how images are cut: features and groups are those of its choice.
            chosen = self.experiment.fixed({"data.fit": winner.config.data.fit})
            workspace = open_workspace(chosen, self.workspace.cache_dir)
        difference: Difference | None = None
        with self.manifest.clock("evidence"):
            groups = workspace.groups(winner.config) if winner.config.model.head == "gsfl" else None
            predictions = self.retraining.predictions(winner)
            correct = np.stack([each.correct for each in predictions])
            if control is not None:
                rival = [each.correct for each in self.retraining.predictions(control)]
                difference = paired_bootstrap(correct, rival)
            probe = linear_probe_result(workspace, winner.config, correct)
            write_evidence(
                self.run,
                workspace,
                self._retrained(winner),
                self._retrained(control) if control else None,
                predictions=predictions,
                groups=groups,
                notice=self._notice,
            )
            if self.storage is not None:
                self.storage.settle()
            write_trials(self.run)
        results = Results(
            name=self.experiment.name,
            metric=self.experiment.defaults().search.metric,
            trials=count_trials(self.run),
            winner=winner.outcome(),
            control=control.outcome(kind) if control else None,
            difference=difference,
            probe=probe,
            finalists=[
                Finalist(each.trial, Score.table(each.validation))
                for each in finalists
                if each.validation
            ],
            pareto=pareto_entries(self.experiment, self.run),
            groups={}
            if groups is None
            else dict(zip(workspace.dataset.classes, map(int, groups), strict=True)),
            cost={"seconds": self.manifest.seconds(), "slots": self.slots.count},
            environment=environment(),
        )
        self._export(workspace, winner, groups, results)
        write_results(self.run.results_file, results)

    def _retrained(self, candidate: Candidate) -> Retrained:
        """Where the retrained models lie; a storage may have kept them until now."""
        jobs = self.retraining.jobs(candidate, "train+validation")
        if self.storage is not None:
            for job in jobs:
                self.storage.bring(job.directory / EPOCHS, job.directory / CHECKPOINT)
        return Retrained(candidate.config, {job.seed: job.directory for job in jobs})

    def _export(
        self,
        workspace: Workspace,
        winner: Candidate,
        groups: np.ndarray | None,
        results: Results,
    ) -> None:
        """The bundle is the first seed's model, never the best on the test split."""
        job = self.retraining.jobs(winner, "train+validation")[0]
        training = Training(winner.config, workspace, job.directory, seed=job.seed, fit=job.fit)
        if not _restored(training):
            raise SearchFailed(
                f"{training.checkpoint_path}: the retrained model is gone; remove "
                f"{job.directory} and resume"
            )
        network = training.trained_network()
        bundle_from_network(
            self.run.best,
            network,
            winner.config,
            classes=workspace.dataset.classes,
            groups=None if groups is None else [int(group) for group in groups],
            side=workspace.dataset.pool.side,
            metrics=results.to_json(),
        )
        write_best_training(self.run.best_training, network, training.centers)


def _restored(training: Training) -> bool:
    try:
        return training.look()
    except CheckpointError as error:
        raise broken_checkpoint(error) from error
