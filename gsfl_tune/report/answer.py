"""The first tab of the page: test results, warnings, cost and commands of a run."""

from __future__ import annotations

import json
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from gsfl_tune.experiment.metrics import METRIC_TITLES, is_share, metric_of
from gsfl_tune.report.files import SEARCH, RunFiles
from gsfl_tune.report.settings import Setting, flat, settings
from gsfl_tune.report.tables import duration, measured_over, of_the_bundle, percent, spanned
from gsfl_tune.run.further import further_rows
from gsfl_tune.run.results import Finding, Interval, Outcome, Results, Score
from gsfl_tune.run.verdict import ahead, first_card


@dataclass(frozen=True)
class ModelRow:
    """Holds one row of the table of tested models."""

    name: str
    scores: list[str]


@dataclass(frozen=True)
class Answer:
    """Holds what the first tab of the page shows.

    Attributes:
        finished: Whether there is a tested winner.
        headline: The main number.
        interval: Its interval, shown behind it; empty if unknown.
        unit: What the number measures.
        first: Shown before the number if a simpler model is better on validation.
        sentences: What the number means.
        findings: The problems that were found, the most severe first.
        models: Winner, control, probe.
        settings: The winner's searched parameters (the best trial's, while there is no winner).
        settings_title: Heading that names the trial or model of `settings`.
        config: The winner's complete configuration, dotted paths.
        facts: Label and value: cost, hardware, images.
        seconds: Phase and its duration.
        looks: Problems to check before the number is used.
        commands: A purpose and its command.
        versions: Library and version.
        trained_on: Which images the models were retrained on.
        covered: Says what the intervals of the table cover; empty where it has none.
        control: Says what the control is; empty where there is none.
    """

    finished: bool
    headline: str
    unit: str
    interval: str = ""
    first: str = ""
    sentences: list[str] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    models: list[ModelRow] = field(default_factory=list)
    further_heads: list[str] = field(default_factory=list)
    further: list[tuple[str, list[str]]] = field(default_factory=list)
    settings: list[Setting] = field(default_factory=list)
    settings_title: str = ""
    config: list[tuple[str, str]] = field(default_factory=list)
    facts: list[tuple[str, str]] = field(default_factory=list)
    seconds: list[tuple[str, str]] = field(default_factory=list)
    looks: list[str] = field(default_factory=list)
    commands: list[tuple[str, str]] = field(default_factory=list)
    versions: list[tuple[str, str]] = field(default_factory=list)
    trained_on: str = "training and validation images"
    covered: str = ""
    control: str = ""


def answer(files: RunFiles) -> Answer:
    """Returns the results of a finished run, or the state of an unfinished one."""
    results = files.results.results
    return _finished(files, results) if results else _unfinished(files)


def format_metric(metric: str, value: float | None) -> str:
    """Formats a value of the search metric for reading."""
    return metric_of(metric).text(value)


def _finished(files: RunFiles, results: Results) -> Answer:
    winner, control = results.winner, results.control
    sentences = []
    if control is not None:
        accuracy = percent(control.test["accuracy"], control.interval)
        sentences.append(f"The control ({_kind(control)}) has {accuracy}.")
    elif results.findings is None:
        sentences.append(
            "There is no control, so this run does not show whether the shared features help."
        )
    sentences += first_card(results)
    if own := of_the_bundle(winner):
        sentences.append(own)
    first = ahead(results) or ""
    found = results.findings
    if found is None:
        sentences.append("The version that made this run did not check for findings.")
    trial = "" if winner.trial is None else f" (trial {winner.trial})"
    heads, further = further_rows(results)
    return Answer(
        finished=True,
        first=first,
        headline=percent(winner.test["accuracy"]),
        interval=spanned(winner.interval),
        unit=f"test accuracy of the winner; {measured_over(winner)}",
        sentences=sentences,
        findings=[each for each in found or () if each.sentence != first],
        models=list(_models(results)),
        further_heads=heads,
        further=further,
        settings=settings(files, winner.params),
        settings_title=f"The winner's configuration{trial}",
        config=list(flat(winner.config)),
        facts=_facts(files),
        seconds=_seconds(results.cost.get("seconds") or {}),
        looks=list(_looks(files)),
        commands=_commands(files, winner),
        versions=_versions(results.environment),
        trained_on=_trained_on(files),
        covered=_covered(winner.interval),
        control=f"The control is {_kind(control)}." if control else "",
    )


def _kind(control: Outcome) -> str:
    return {
        "tuned": "a plain head with a search of its own, of the same budget",
        "matched": "the same configuration with a plain head, without a search of its own",
    }.get(control.kind or "", "a plain head")


def _covered(interval: Interval | None) -> str:
    if interval is None:
        return ""
    if interval.covers_seeds:
        return "The interval of an accuracy is over seeds and test images."
    return (
        "The interval of an accuracy is over the test images alone: what another seed would change "
        "is not known."
    )


def _trained_on(files: RunFiles) -> str:
    shots = files.data.get("shots")
    if shots is None:
        return "training and validation images"
    return f"{shots} training image{'s' if shots > 1 else ''} of each class"


def _unfinished(files: RunFiles) -> Answer:
    run = files.results
    board = run.leaderboard(1)
    best = board[0] if board else None
    sentences = ["There is no tested winner yet: the test images are used once, at the end."]
    running = sum(trial.state == "RUNNING" for trial in files.trials)
    if running:
        plural = "trials are" if running > 1 else "trial is"
        sentences.append(f"{running} {plural} running, or were when the search was stopped.")
    directory = str(run.run.path)
    words = ["gsfl-tune", "search", str(run.run.experiment_file), "--run-dir", directory]
    return Answer(
        finished=False,
        headline=format_metric(run.metric, best["value"]) if best else "–",
        unit=f"best {run.metric} so far (trial {best['trial']})"
        if best
        else f"{run.metric}: no trial has finished yet",
        sentences=sentences,
        settings=settings(files, best["params"]) if best else [],
        settings_title=f"The best finished trial so far (trial {best['trial']})" if best else "",
        facts=_facts(files),
        seconds=_seconds(files.manifest.get("seconds") or {}),
        looks=list(_looks(files)),
        commands=[("Continue the run, if it is not running", shlex.join([*words, "--resume"]))],
        versions=_versions(files.manifest.get("environment") or {}),
    )


def _models(results: Results) -> Iterator[ModelRow]:
    winner, control, probe = results.winner, results.control, results.probe
    yield ModelRow("winner", _cells(winner.test, winner.interval))
    if found := winner.calibration:
        # Bundles give the same answers with other probabilities.
        after = {name: score for name, score in found.after.items() if not is_share(name)}
        cells = _cells({**winner.test, **after}, None)
        yield ModelRow(f"winner, calibrated (T = {found.temperature:.2f})", cells)
    if control:
        kind = f", {control.kind}" if control.kind else ""
        yield ModelRow(f"control{kind}", _cells(control.test, control.interval))
    if probe:
        yield ModelRow("linear probe", _cells(probe.test, probe.interval))
    if results.ensemble:
        seeds = len(results.ensemble.seeds)
        yield ModelRow(
            f"ensemble of the winner's {seeds} seeds", _cells(results.ensemble.test, None)
        )
    if results.flip:
        flip = results.flip
        yield ModelRow(f"seed {flip.seed} on {flip.images:,} images", _cells(flip.plain, None))
        yield ModelRow(f"seed {flip.seed}, mirrored too", _cells(flip.test, None))


def _cells(test: Mapping[str, Score], interval: Interval | None) -> list[str]:
    cells = []
    for name in METRIC_TITLES:
        score = test.get(name)
        if score is None:
            cells.append("–")
        elif is_share(name):
            cells.append(percent(score, interval if name == "accuracy" else None))
        else:
            cells.append(f"{score.mean:.3f}")
    return cells


def models_chart(results: Results) -> list[dict[str, Any]]:
    """Returns the test accuracy of every tested model for the script, one value per seed."""
    tested: list[tuple[str, Mapping[str, Score]]] = [("winner", results.winner.test)]
    if results.control:
        tested.append(("control", results.control.test))
    if results.probe:
        tested.append(("linear probe", results.probe.test))
    return [
        {"name": name, "mean": test["accuracy"].mean, "values": test["accuracy"].values}
        for name, test in tested
    ]


# --- cost ---------------------------------------------------------------------------------


def _facts(files: RunFiles) -> list[tuple[str, str]]:
    run = files.results
    counts = run.counts
    names = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "failed"}
    shown = [f"{n} {names.get(s, s.lower())}" for s, n in counts.items() if n]
    facts = [("Trials", f"{sum(counts.values())}: {', '.join(shown)}" if shown else "none yet")]
    spent = sum(trial.seconds for trial in files.trials)
    if spent:
        facts.append(("Training time of all trials", duration(spent)))
    total = (run.results.cost if run.results else {}).get("seconds", {}).get("total")
    if total:
        facts.append(("Total time", duration(total)))
    if run.results and run.results.cost.get("slots"):
        facts.append(("Concurrent trials", str(run.results.cost["slots"])))
    busy = run.utilisation.get("slots_busy")
    if busy is not None:
        facts.append(("Slots busy", f"{100 * busy:.0f} % of the time"))
    for gpu in run.utilisation.get("gpus") or ():
        share = gpu["busy"] if gpu["busy"] is not None else gpu["occupied"]
        if share is not None:
            facts.append((f"GPU {gpu['gpu']} of {gpu['node']} busy", f"{100 * share:.0f} %"))
    features = files.manifest.get("features") or {}
    if features:
        facts.append(("Frozen features", f"{features['precision']} ({features['reason']})"))
    computed = Counter(each.precision for each in files.trials if each.precision)
    if computed:
        told = ", ".join(
            f"{name} in {n} trial{'s' if n > 1 else ''}" for name, n in computed.most_common()
        )
        facts.append(("Finetune stage", told))
    parts = files.data.get("counts") or {}
    if parts:
        text = ", ".join(f"{count} {part}" for part, count in parts.items())
        facts.append(("Images", f"{text}, in {len(files.data.get('classes') or ())} classes"))
    if not files.data.get("split_optimistic", True):
        facts += [("Split", notice) for notice in files.data.get("split_notices") or ()]
    return facts


def _seconds(seconds: Mapping[str, float]) -> list[tuple[str, str]]:
    return [(name, duration(value)) for name, value in seconds.items()]


def _versions(environment: Mapping[str, Any]) -> list[tuple[str, str]]:
    if not environment:
        return []
    rows = [("Python", str(environment.get("python", "?")))]
    rows += [(str(k), str(v)) for k, v in (environment.get("packages") or {}).items()]
    rows.append(("system", f"{environment.get('system', '?')}, {environment.get('cpus')} CPUs"))
    rows += [("GPU", str(gpu)) for gpu in environment.get("gpus") or ()]
    return rows


# --- problems and commands ----------------------------------------------------------------


def _looks(files: RunFiles) -> Iterator[str]:
    """Lists problems other than the findings, for a run in any state."""
    trials = [trial for trial in files.study(SEARCH) if not trial.outside]
    failed = sum(trial.state == "FAIL" for trial in trials)
    if failed and failed * 5 >= len(trials):
        yield f"{failed} of {len(trials)} trials failed: see the reasons under Search."
    elif failed:
        yield f"{failed} trial{'s' if failed > 1 else ''} failed: see the reasons under Search."
    broken = len(files.data.get("broken") or ())
    if broken:
        yield f"{broken} images could not be read and were left out."
    conflicting = (files.data.get("duplicates") or {}).get("conflicting") or ()
    if conflicting:
        yield f"{len(conflicting)} sets of identical images have different labels."
    # Earlier runs do not say whether their validation part is too easy.
    if files.data.get("split_optimistic", True):
        yield from files.data.get("split_notices") or ()
    yield from files.problems


def _commands(files: RunFiles, winner: Outcome) -> list[tuple[str, str]]:
    run = files.results.run
    experiment, best = str(run.experiment_file), str(run.best)
    commands = [
        (
            "Search again, the same way (same seeds, space and protocol)",
            ["gsfl-tune", "search", experiment, "--run-dir", f"{run.path}-again"],
        )
    ]
    overrides = list(_overrides(files, winner))
    if overrides:
        words = ["gsfl-tune", "train", experiment]
        for path, value in overrides:
            words += ["--set", f"{path}={value}"]
        commands.append(("Train the winner's configuration alone", words))
    commands += [
        ("Predict with the winner", ["gsfl-tune", "predict", best, "IMAGE"]),
        (
            "Export the best of winner, control and linear probe on validation",
            ["gsfl-tune", "export", str(run.path), "FOLDER", "--best-of-all"],
        ),
        (
            'Answer "unknown" where the confidence is low',
            ["gsfl-tune", "predict", best, "IMAGE", "--threshold", "auto"],
        ),
        ("Evaluate the winner on other images", ["gsfl-tune", "evaluate", best, "FOLDER"]),
    ]
    return [(title, shlex.join(words)) for title, words in commands]


def _overrides(files: RunFiles, winner: Outcome) -> Iterator[tuple[str, str]]:
    """Lists the configuration paths set by the winner's parameters, with their values."""
    if files.experiment is None:
        return
    known = {each.name: each for each in files.experiment.space.parameters}
    for name in winner.params:
        parameter = known.get(name)
        if parameter is None:
            continue
        if parameter.merges:
            yield parameter.path, str(winner.params[name])
            continue
        for value in _leaf(winner.config, parameter.path.split(".")):
            yield parameter.path, _yaml(value)


def _leaf(config: Mapping[str, Any], keys: Sequence[str]) -> list[Any]:
    """Returns the value at a path in a list, empty if the path is missing; a value may be null."""
    found: Any = config
    for key in keys:
        if not isinstance(found, Mapping) or key not in found:
            return []
        found = found[key]
    return [found]


def _yaml(value: Any) -> str:
    """Writes a value as ``--set`` reads it."""
    if isinstance(value, str) and yaml.safe_load(value) == value:
        return value
    return json.dumps(value)


def listed(words: Iterable[Any], most: int = 12) -> str:
    """Joins words with commas, at most `most` of them."""
    all_words = [str(word) for word in words]
    more = len(all_words) - most
    return ", ".join(all_words[:most]) + (f" and {more} more" if more > 0 else "")
