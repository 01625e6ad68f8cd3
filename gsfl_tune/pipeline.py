"""The whole pipeline: checks, search, retraining, test, evidence, export."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from gsfl_tune.activity import activity
from gsfl_tune.arguments import instance, one_of, path_of, several
from gsfl_tune.cluster import Slots, ray_session, refuse_unfit_nodes, slots
from gsfl_tune.conclusion import Conclusion
from gsfl_tune.experiment import Config, Experiment
from gsfl_tune.experiment.heads import GROUPED_HEADS
from gsfl_tune.run import RunDirectory, StudyName, run_lock, write_json, write_text
from gsfl_tune.run.manifest import Clock, Manifest
from gsfl_tune.run.results import Results, read_results
from gsfl_tune.run.storage import DriverCopy
from gsfl_tune.search import (
    Candidate,
    Follows,
    Interrupt,
    Presence,
    Prices,
    Progress,
    Retraining,
    RunContext,
    SearchFailed,
    SearchInterrupted,
    SearchTime,
    StorageWatcher,
    TimeBudget,
    TrialCosts,
    Utilisation,
    Watcher,
    Watchers,
    begin_or_go_on,
    best,
    check_run,
    choose_finalists,
    control_of,
    curves_of,
    fixed_to,
    no_finalist,
    plain_space,
    plan_time,
    present,
    refuse_small_disk,
    refuse_what_fails_later,
    rehearse_and_price,
    run_study,
    stored_run,
)
from gsfl_tune.search.observers.running_estimate import EstimateFile
from gsfl_tune.search.observers.tracking import TensorBoard, show_winner
from gsfl_tune.training import Workspace, environment
from gsfl_tune.training.at_once import most_at_once
from gsfl_tune.training.fit_groups import fit_groups
from gsfl_tune.training.fit_precision import fit_precision
from gsfl_tune.training.pin_weights import keep_pins, pin_weights, read_pins
from gsfl_tune.training.standalone import open_workspace


def search(
    experiment: Experiment,
    run_dir: str | Path | None = None,
    *,
    resume: bool | None = False,
    change_space: bool = False,
    address: str | None = None,
    cache_dir: str | Path | None = None,
    watchers: Sequence[Watcher] | None = None,
) -> Results:
    """Searches, retrains, tests and exports.

    Args:
        experiment: Experiment to search.
        run_dir: The run directory; default ``runs/NAME``.
        resume: Whether to continue the existing run; None: if there is one, else begin it.
        change_space: Whether a resumed run may get another space: trials that are
            configurations of it keep their states.
        address: Address of a Ray cluster; default: Ray starts in this process.
        cache_dir: Root of the nodes' caches.
        watchers: Receive every change; default: a display on standard output.

    Returns:
        The content of ``results.json``.

    Raises:
        UserError: For every problem that the user can fix.
        TypeError, ValueError: If an argument is of another kind.
        SearchInterrupted: After Ctrl-C or SIGTERM.
        SearchFailed: When no trial completed.
    """
    instance(
        Experiment, experiment, "search: experiment", "an Experiment, as Experiment.load returns"
    )
    one_of(resume, "search: resume", (True, False, None))
    one_of(change_space, "search: change_space", (True, False))
    if run_dir is not None:
        path_of(run_dir, "search: run_dir")
    if address is not None:
        instance(str, address, "search: address", "the address of a Ray cluster, such as 'auto'")
    caches = None if cache_dir is None else path_of(cache_dir, "search: cache_dir")
    if watchers is not None:
        watchers = several(Watcher, watchers, "search: watchers", "a list of Watchers")
    run = RunDirectory(run_dir or Path("runs") / experiment.name)
    manifest = Manifest(run)
    display = Progress() if watchers is None else None
    watchers = watchers or ([display] if display else [])
    notice = Watchers(*watchers).notice
    if experiment.defaults().storage is None:
        check_run(run, resume=resume)
    stored = stored_run(experiment, run, notice, resume=resume, address=address)
    with (
        display or nullcontext(),
        run_lock(run),
        stored as storage,
        present(run),
        ExitStack() as opening,
    ):
        # Of steps without words of their own.
        opening.enter_context(activity("preparing the search"))
        # Everything that can be refused is refused before the run directory is written to.
        started = time.monotonic()
        check_run(run, resume=resume)
        interrupt = Interrupt(run)
        # Without a resume, a run that is there has come to no trial.
        pinned = read_pins(run.path) if resume is not False else {}
        experiment, pinned = pin_weights(experiment, pinned, notice)
        workspace = open_workspace(experiment, caches)
        experiment = fit_groups(experiment, workspace)
        alone = not (address or os.environ.get("RAY_ADDRESS"))
        experiment, features = fit_precision(
            experiment, workspace, known=manifest.features(), alone=alone
        )
        begun = begin_or_go_on(
            experiment, run, workspace.dataset.digest, resume=resume, changing=change_space
        )
        experiment, plan = begun.experiment, begun.plan
        elapsed = manifest.elapsed(started, anew=begun.anew)
        if begun.same_space and manifest.finished(experiment):
            return read_results(run.results_file)
        assumed = experiment.provisional()
        refuse_what_fails_later(
            assumed, workspace, notice, address, known_teachers=begun.teachers(run)
        )
        costs = TrialCosts.of(workspace.dataset, assumed.defaults().search.folds)
        with ray_session(address):
            defaults = experiment.defaults()
            most = most_at_once(defaults) if alone else defaults.search.max_concurrent
            backbones = experiment.values("model.backbone")
            resources = slots(defaults.search.resources, most, backbones)
            costs.node_slots = resources.per_node
            refuse_small_disk(assumed, resources.count)
            refuse_unfit_nodes(assumed, run.path, workspace.cache_dir, notice)
            place = storage.address if storage is not None else None
            # Else a resume knows of no speed before the first report, and may end at once.
            begun.recall_prices(run, costs)
            timed = rehearse_and_price(
                assumed, workspace, resources, costs, cache_dir=workspace.cache_dir, storage=place
            )
            if plan is not None:
                costs.assume(experiment.defaults(), plan.training)
            else:
                plan = plan_time(
                    experiment,
                    workspace,
                    resources,
                    costs,
                    spent=elapsed,
                    cache_dir=workspace.cache_dir,
                    storage=place,
                )
            if plan is not None:
                experiment = fixed_to(experiment, plan)
            begun.prepare(run, experiment, notice)
            if plan is not None:
                lines = plan.lines()
                if begun.plan is None:
                    write_json(run.plan_file, plan.to_json())
                else:
                    lines = plan.lines_of_resume(elapsed())
                for line in lines:
                    notice(line)
            write_text(run.experiment_file, experiment.to_yaml())
            keep_pins(run.path, pinned)
            write_json(run.data_file, workspace.dataset.summary())
            for line in workspace.dataset.notices:
                notice(line)
            for line in features.lines():
                notice(line)
            manifest.begin(
                experiment,
                data=workspace.dataset.digest,
                features=features.to_json(),
                environment=environment(),
                seconds=time.monotonic() - started,
            )
            if storage is not None:
                watchers = [*watchers, StorageWatcher(storage, interrupt, notice)]
                storage.start()
            watchers = [*watchers, Utilisation(run, resources.count), TensorBoard(run, experiment)]
            watchers = [*watchers, Presence(run, interrupt), EstimateFile(run)]
            Watchers(*watchers).timed(timed)
            opening.close()
            with manifest.ending(SearchInterrupted):
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
                    else TimeBudget.of(
                        plan,
                        experiment,
                        elapsed,
                        costs,
                        lambda config: resources.of(config.model.backbone).count,
                    ),
                    counted=begun.counted,
                    storage=storage,
                ).run_all()
                show_winner(run)
        interrupt.clear()
        run.estimate_file.unlink(missing_ok=True)
    return read_results(run.results_file)


@dataclass(frozen=True)
class _Search:
    """Runs one search on the Ray that this process is connected to."""

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
    storage: DriverCopy | None = None

    @property
    def retraining(self) -> Retraining:
        """Returns the retrains at the end."""
        return self._before(None)

    def _before(self, follows: Follows | None) -> Retraining:
        """Returns the retrains for a race, with the time that what follows it leaves.

        Args:
            follows: What comes after the race; None for what the kind of control says.
        """
        return Retraining(
            context=self.context,
            max_failures=self.experiment.defaults().search.max_failures,
            budget=None if self.budget is None else self.budget.followed_by(follows),
        )

    @cached_property
    def context(self) -> RunContext:
        """Returns what study and retrains share."""
        return RunContext(
            run=self.run,
            resources=self.slots,
            interrupt=self.interrupt,
            side=self.workspace.dataset.pool.side,
            cache_dir=self.workspace.cache_dir,
            watchers=self.watchers,
            storage=self.storage,
            costs=self.costs,
        )

    def run_all(self) -> None:
        """Runs every step of the protocol; each finds what an earlier driver has finished."""
        config = self.experiment.defaults().search
        clock = self.manifest.clock
        with clock("search") as spent:
            finalists = self._finalists(self.experiment, "search", spent)
        rivals: list[Candidate] = []
        if self._controls_itself:
            with clock("control search") as spent:
                rivals = self._rivals(spent, finalists[0].config)
        with clock("retraining"):
            # A control without a race is validated beside its retrains, as a matched one is.
            alone = self._controls_itself and len(rivals) < 2
            retraining = self._before("matched" if alone else None)
            finalists = retraining.race(finalists, "training the finalists")
            winner = best(finalists, config.metric, self.costs.seconds)
            if rivals:
                retraining = self._before("raced" if winner.validation else "matched")
                rivals = retraining.race(rivals, "training the control's finalists")
            control, kind = self._control(winner, rivals)
            winner, tested = self.retraining.conclude(winner, control)
        if not (winner.test and winner.validation):
            raise SearchFailed(f"the winner could not be retrained; see {self.run.finals}")
        if tested is not None and not (tested.test and tested.validation):
            self._notice("the control could not be trained with every seed; the run has no control")
            tested = None
        raced = [winner if each.label == winner.label else each for each in finalists]
        Conclusion(
            experiment=self.experiment,
            run=self.run,
            manifest=self.manifest,
            workspace=self.workspace,
            retraining=self.retraining,
            slots=self.slots.count,
            notice=self._notice,
            storage=self.storage,
        ).write(winner, tested, kind, raced)

    @property
    def _controls_itself(self) -> bool:
        """Returns whether the control has a search of its own."""
        return control_of(self.experiment) == "tuned"

    # --- search ---------------------------------------------------------------------------

    def _finalists(
        self, experiment: Experiment, name: StudyName, clock: Clock, winner: Config | None = None
    ) -> list[Candidate]:
        limit: SearchTime | None = None
        if self.budget is not None:
            share = 0.5 if name == "search" and self._controls_itself else 1.0
            limit = SearchTime(self.budget, share, self.counted, winner)
        outcome = run_study(
            experiment,
            self.context,
            name,
            feature_dim=self.workspace.feature_dim(experiment.defaults()),
            clock=clock,
            limit=limit,
        )
        if outcome.interrupted:
            raise SearchInterrupted
        prices = None
        if self.budget is None:  # a budget in time says itself what may be spent
            dataset = self.workspace.dataset
            folds = experiment.defaults().search.folds
            images = len(dataset.pool if folds else dataset.validation_index)
            prices = Prices.measured(outcome.study, self.run, images, self._notice)
        chosen = choose_finalists(
            outcome.study,
            experiment.defaults().search.finalists,
            curves_of(outcome.study, self.run),
            prices,
        )
        if not chosen:
            raise SearchFailed(no_finalist(outcome.study))
        return [
            Candidate(
                label=f"{name}-{trial.number}",
                config=experiment.configure(trial.params),
                trial=trial.number,
                params=experiment.space.active_params(trial.params),
            )
            for trial in chosen
        ]

    def _rivals(self, clock: Clock, winner: Config) -> list[Candidate]:
        """Returns the finalists of the control's own search; none if it had no result.

        Args:
            clock: Time of this search.
            winner: The best configuration of the first search, whose finals come after this one.
        """
        try:
            return self._finalists(plain_space(self.experiment), "control", clock, winner)
        except SearchFailed as error:
            self._notice(f"{error}\nthe control takes the winner's configuration instead")
            return []

    def _control(
        self, winner: Candidate, rivals: list[Candidate]
    ) -> tuple[Candidate | None, Literal["tuned", "matched"]]:
        config = self.experiment.defaults().search
        if len(rivals) == 1 or any(rival.validation for rival in rivals):
            return best(rivals, config.metric, self.costs.seconds), "tuned"
        if config.control == "off" or winner.config.model.head not in GROUPED_HEADS:
            return None, "matched"
        return winner.plain(), "matched"

    def _notice(self, text: str) -> None:
        for watcher in self.watchers:
            watcher.notice(text)
