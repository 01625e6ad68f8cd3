"""How right "about 4:10 left" is: searches are recorded, and forecasts made of the recordings.

`record` runs a search and writes what its watchers are told, and when, to a small JSON file;
`tests/search/observers/recorded` has such files, and a test forecasts every moment of them anew.
`show` prints how far off the forecasts of this version are.

    python benchmarks/forecast.py record search_spaces/typefaces.yaml --run-dir runs/recorded \
        --out tests/search/observers/recorded/typefaces.json
    python benchmarks/forecast.py show tests/search/observers/recorded/*.json
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

from gsfl_tune import Experiment
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.pipeline import search
from gsfl_tune.run import RunDirectory, read_json
from gsfl_tune.search import Progress, Watcher
from gsfl_tune.search.costs.time_budget import SearchTime, TimeBudget
from gsfl_tune.search.costs.time_plan import TimePlan
from gsfl_tune.search.costs.trial_costs import TrialCosts
from gsfl_tune.search.observers.base import Said, States
from gsfl_tune.search.observers.time_left import of_jobs, of_study
from gsfl_tune.search.workers.retrain import Job
from gsfl_tune.training.pricing import Measured, Work

_SECONDS = 1.0


class Recorder(Watcher):
    """Writes down what a forecast is told."""

    def __init__(self) -> None:
        self.started_at = time.monotonic()
        self.events: list[list[Any]] = []
        self._states: States = dict
        self._study: Any = None
        self._said = 0.0

    def _note(self, what: str, **content: Any) -> None:
        self.events.append([round(time.monotonic() - self.started_at, 2), what, content])

    def hears(self, states: States) -> None:
        self._states = states

    def begin(self, study: Any, budget: int | None, slots: int) -> None:
        self._study = study
        self._note("begin", study=study.name, budget=budget, slots=slots)

    def timed(self, found: Sequence[Measured]) -> None:
        self._note("timed", found=[asdict(each) for each in found])

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        protected = bool(self._study.trial(number).user_attrs.get("protected"))
        self._note("started", number=number, params=dict(params), protected=protected)

    def rung(self, number: int, k: int, value: float) -> None:
        self._note("rung", number=number, k=k, value=round(value, 5))

    def occupied(self, result: Mapping[str, Any], seconds: float) -> None:
        keys = ("trial_number", "epoch", "measured", "place_machine", "job")
        known = {key: result[key] for key in keys if key in result}
        self._note("occupied", result=known, seconds=round(seconds, 3))

    def ended(self, number: int) -> None:
        trial = self._study.trial(number)
        self._note("ended", number=number, state=trial.state.name)

    def tick(self) -> None:
        now = time.monotonic()
        if now - self._said < _SECONDS:
            return
        self._said = now
        states = self._states().items()
        self._note("states", said={name: said and said[1:] for name, said in states})

    def finish(self, *, interrupted: bool) -> None:
        self._note("finish")

    def jobs_begin(self, title: str, total: int, done: int) -> None:
        self._note("jobs_begin", title=title, total=total, done=done)

    def job_ended(self, name: str, result: Mapping[str, Any]) -> None:
        self._note("job_ended", name=name, measured=result.get("measured"))

    def jobs_finish(self, *, interrupted: bool) -> None:
        self._note("jobs_finish")


@dataclass(frozen=True)
class Moment:
    """What was told when.

    Attributes:
        at: Seconds since the search began.
        told: Seconds that were said to be left.
        left: Seconds that were left.
        phase: Of the run.
        evidence: Seconds of what was said for evidence and export.
        trained: Seconds that were left until the last retrain.
    """

    at: float
    told: float
    left: float
    phase: str
    evidence: float
    trained: float

    @property
    def good(self) -> bool:
        """Whether it is right within a factor of 1.5."""
        return _close(self.told, self.left)

    @property
    def good_of_trainings(self) -> bool:
        """Whether it is, leaving out evidence and export.

        They count with what they take on an idle machine, whatever else runs there.
        """
        return _close(self.told - self.evidence, self.trained)


def _close(one: float, other: float) -> bool:
    return one <= 1.5 * other and other <= 1.5 * one


class _Played:
    """The study of a recording, as far as a forecast asks it."""

    def __init__(self) -> None:
        self._attributes: dict[int, dict[str, Any]] = {}

    def begin(self, number: int, *, protected: bool) -> None:
        self._attributes[number] = {"protected": protected}

    def trial(self, number: int) -> Any:
        return SimpleNamespace(user_attrs=self._attributes[number])

    def created(self) -> int:
        return len(self._attributes)


def replayed(recording: Mapping[str, Any]) -> list[Moment]:
    """What this version says is left, at every moment of a recorded search."""
    player = _Player(recording)
    for at, what, content in recording["events"]:
        player.now = at
        getattr(player, what)(**content)
    return player.told


class _Player:
    def __init__(self, recording: Mapping[str, Any]) -> None:
        self.now = 0.0
        self.told: list[Moment] = []
        self._end = recording["seconds"]
        self._trained = max(at for at, what, _ in recording["events"] if what == "jobs_finish")
        self._slots = recording["slots"]
        counts = recording["counts"]
        self._experiment = Experiment.parse(recording["experiment"])
        self._costs = TrialCosts(
            train=counts["train"],
            validation=counts["validation"],
            test=counts["test"],
            classes=recording["classes"],
        )
        self._budget: TimeBudget | None = None
        if recording["plan"] is not None:
            self._budget = TimeBudget(
                TimePlan(**recording["plan"]),
                lambda: self.now,
                self._costs,
                control=self._experiment.defaults().search.control,
                retrain=self._costs.retrain,
            )
        self._params: dict[tuple[str, int], dict[str, Any]] = {}
        self._values: dict[int, float] = {}
        self._complete: list[int] = []
        self._study = ""
        self._played = _Played()
        self._forecast: Any = None
        self._jobs: Any = None
        self._flying: set[str] = set()
        self._said: dict[str, Any] = {}
        self._left: Any = None
        self._phase = ""

    def _config(self) -> Config:
        found = self._leading()
        return found[0] if found else self._experiment.defaults()

    def _leading(self) -> list[Config]:
        search = self._experiment.defaults().search
        sign = metric_of(search.metric).sign
        ended = sorted(self._complete, key=lambda number: -sign * self._values[number])
        numbers = ended[: search.finalists]
        return [self._experiment.configure(self._params[self._study, n]) for n in numbers]

    def timed(self, found: list[dict[str, Any]]) -> None:
        for each in found:
            known = each.pop("work")
            work = Work(**{**known, "kind": tuple(known["kind"])})
            self._costs.costs.observe(Measured(work, **each))

    # --- a study --------------------------------------------------------------------------

    def begin(self, study: str, budget: int | None, slots: int) -> None:
        self._study, self._phase, self._complete = study, study, []
        self._played, self._said = _Played(), {}
        limit = None
        if self._budget is not None:
            limit = SearchTime(self._budget, counted=budget is not None)
        self._forecast, self._left = of_study(
            self._experiment, study, self._costs, limit,
            budget=budget or 10**6, slots=slots, best=self._leading,
        )  # fmt: skip
        self._forecast.clock = lambda: self.now
        self._forecast.hears(lambda: self._said)
        self._forecast.begin(self._played, budget, slots)

    def started(self, number: int, params: dict[str, Any], protected: bool) -> None:
        self._params[self._study, number] = params
        self._played.begin(number, protected=protected)
        self._forecast.started(number, params, again=False)

    def rung(self, number: int, k: int, value: float) -> None:
        self._values[number] = value

    def occupied(self, result: dict[str, Any], seconds: float) -> None:
        if "trial_number" in result:
            config = self._experiment.configure(
                self._params[self._study, int(result["trial_number"])]
            )
            self._costs.observe(config, result)
            self._forecast.occupied(result, seconds)

    def ended(self, number: int, state: str) -> None:
        self._forecast.ended(number)
        self._said.pop(f"trial {number}", None)
        if state == "COMPLETE":
            self._complete.append(number)

    def finish(self) -> None:
        self._left = None

    # --- retrains -------------------------------------------------------------------------

    def jobs_begin(self, title: str, total: int, done: int, names: list[str]) -> None:
        self._phase, self._flying, self._said = title, set(), {}
        jobs = [self._job(name) for name in names]
        waiting = range(done, total)
        self._jobs, self._left = of_jobs(jobs, waiting, self._costs, self._slots)
        self._jobs.clock, self._jobs.states = lambda: self.now, lambda: self._said

    def job_ended(self, name: str, measured: dict[str, Any]) -> None:
        self._jobs.ended(name)
        job = self._job(name)
        self._costs.observe(job.config, {"measured": measured}, fit=job.fit)
        self._said.pop(name, None)

    def jobs_finish(self) -> None:
        self._left = None

    def _job(self, name: str) -> Job:
        label, _, rest = name.partition(" seed ")
        study, number, *plain = label.split("-")
        seed, _, part = rest.partition(", ")
        config = self._experiment.configure(self._params[study, int(number)])
        if plain:
            model = config.model.model_copy(update={"head": "plain"})
            config = config.model_copy(update={"model": model})
        fit: Any = "train" if part else "train+validation"
        return Job(name=name, config=config, seed=int(seed), directory=Path(label, seed), fit=fit)

    # --- both -----------------------------------------------------------------------------

    def states(self, said: dict[str, list[Any] | None]) -> None:
        for name in said:
            if self._phase not in ("search", "control") and name not in self._flying:
                self._flying.add(name)
                self._jobs.started(name)
        self._said = {name: words and Said("", *words) for name, words in said.items()}
        if self._left is not None:
            config = self._config()
            seeds = config.search.final_seeds
            evidence = self._costs.evidence(config, seeds=seeds, slots=self._slots)
            times = self._end - self.now, self._phase, evidence, self._trained - self.now
            self.told.append(Moment(self.now, self._left(), *times))


class _Loader(yaml.SafeLoader):
    """Reads `off` as the word that it is in an experiment, as YAML 1.2 does."""


_Loader.yaml_implicit_resolvers = {
    first: [each for each in found if each[0] != "tag:yaml.org,2002:bool" or first in "tTfF"]
    for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def _anywhere(text: str) -> str:
    """An experiment that is read where its images are not: nobody opens them again."""
    content = yaml.load(text, _Loader)
    if "path" in content["data"]:
        del content["data"]["path"]
        content["data"]["source"] = "typefaces"
    return str(yaml.safe_dump(content, sort_keys=False))


def _with_names(events: list[list[Any]]) -> list[list[Any]]:
    """With the names of retrains where they begin: watchers hear of each when it has a slot."""
    names: list[str] = []
    for _, what, content in reversed(events):
        if what == "job_ended" or what == "states":
            said = [content["name"]] if what == "job_ended" else content["said"]
            names = [*said, *(name for name in names if name not in said)]
        elif what == "jobs_begin":
            content["names"], names = [name for name in names if " seed " in name], []
        elif what == "finish":
            names = []
    return events


def record(args: argparse.Namespace) -> None:
    """Runs a search and writes the recording."""
    experiment = Experiment.load(args.file, overrides=args.overrides)
    recorder = Recorder()
    run = RunDirectory(args.run_dir)
    results = search(experiment, run.path, watchers=[Progress(), recorder])
    end = round(time.monotonic() - recorder.started_at, 2)
    data = read_json(run.data_file)
    recording = {
        "experiment": _anywhere(Experiment.load(run.experiment_file).to_yaml()),
        "counts": data["counts"],
        "classes": len(data["classes"]),
        "plan": read_json(run.plan_file) if run.plan_file.exists() else None,
        "slots": results.cost["slots"],
        "preflight": results.cost["seconds"]["preflight"],
        "seconds": end,
        "events": _with_names(recorder.events),
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps(recording, separators=(",", ":")) + "\n")


def show(args: argparse.Namespace) -> None:
    """Prints how far off the forecasts are."""
    for file in args.recordings:
        told = replayed(json.loads(file.read_text()))
        whole = 100 * sum(each.good for each in told) / len(told)
        trained = 100 * sum(each.good_of_trainings for each in told) / len(told)
        print(
            f"{file.name}: within a factor of 1.5 for {whole:.0f} % of the time, {trained:.0f} % "
            "without evidence and export"
        )
        if args.all:
            for each in told[:: max(1, len(told) // 60)]:
                ratio = each.told / max(each.left, 1e-9)
                print(
                    f"  {each.at:7.1f} s  told {each.told:7.1f}  was {each.left:7.1f}  {ratio:.2f}"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(required=True)
    recording = commands.add_parser("record", help="run a search and write the recording")
    recording.add_argument("file")
    recording.add_argument("--set", dest="overrides", action="append", default=[])
    recording.add_argument("--run-dir", type=Path, required=True)
    recording.add_argument("--out", type=Path, required=True)
    recording.set_defaults(act=record)
    showing = commands.add_parser("show", help="how far off the forecasts are")
    showing.add_argument("recordings", type=Path, nargs="+")
    showing.add_argument("--all", action="store_true", help="single moments too")
    showing.set_defaults(act=show)
    args = parser.parse_args()
    args.act(args)


if __name__ == "__main__":
    main()
