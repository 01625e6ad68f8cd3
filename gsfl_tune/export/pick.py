"""Bundles of further trainings of a run: of a trial of its front, or without validation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gsfl_tune.bundles import files
from gsfl_tune.bundles.reading import read_description
from gsfl_tune.experiment.config import Config
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.experiment.metrics import metric_of
from gsfl_tune.export.bundle import bundle_from_network
from gsfl_tune.export.pick_findings import findings_of_pick, told_ahead
from gsfl_tune.run.layout import RunDirectory
from gsfl_tune.run.results import Finding, Outcome, Results, Score, read_results
from gsfl_tune.run.verdict import ahead
from gsfl_tune.training import CheckpointError, FitOn, NonFiniteLoss, Training, Workspace
from gsfl_tune.training.out_of_memory import out_of_memory
from gsfl_tune.training.temperature import calibrate

RULE = "fastest-within"


def parse_rule(words: list[str]) -> float:
    """Parses the points of accuracy that a choice may lose: ``fastest-within 0.5``.

    Raises:
        UserError: If it is not such a rule.
    """
    try:
        name, text = words
        points = float(text)
    except ValueError:
        name, points = "", -1.0
    if name != RULE or not 0 <= points <= 100:
        raise UserError(f"--pick: found {' '.join(words)}, allowed {RULE} POINTS, such as 0.5")
    return points


def choose(results: Results, points: float) -> dict[str, Any]:
    """Returns the fastest trial of the front within `points` of the best first objective.

    Args:
        results: Results of a finished run.
        points: Largest loss of the first objective (of accuracy, usually), in percentage points.

    Raises:
        UserError: If the search had one objective, or latency was none of them.
    """
    if not results.pareto:
        raise UserError(
            f"--pick: found a search with one objective ({results.metric}), allowed after a "
            "search with search.objectives: [validation/accuracy, latency_ms]"
        )
    if "latency_ms" not in results.pareto[0]:
        raise UserError(
            "--pick: found a search whose search.objectives do not name latency_ms, allowed after "
            "one that does"
        )
    best = max(entry["accuracy"] for entry in results.pareto)
    # Rounding must not exclude a trial that is exactly at the limit.
    able = [each for each in results.pareto if each["accuracy"] >= best - points / 100 - 1e-9]
    return min(able, key=lambda each: (each["latency_ms"], -each["accuracy"], each["trial"]))


def picked_bundle(
    run: RunDirectory,
    points: float,
    *,
    data: str | None = None,
    cache_dir: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Returns the bundle of a choice; at first use trains on train + validation and tests once.

    The search retrains only its winner, not other trials of the front. The choice gets the first
    of the protocol's seeds; ``RUN/picks/N`` keeps its bundle for the next export. A training on
    the training images alone gives its temperature, and tells how simpler models compare.

    Args:
        run: A finished run.
        points: See `choose`.
        data: Where the run's images are now; default: where they were.
        cache_dir: Root of the node's caches.
        say: Receives progress messages.

    Returns:
        A directory with a bundle.

    Raises:
        UserError: If there is no front, the images are gone, or the choice cannot be trained.
    """
    results = read_results(run.results_file)
    entry = choose(results, points)
    number = int(entry["trial"])
    # `accuracy` of an entry is the first objective, whatever that is.
    metric = metric_of(results.metric).name
    spoken = metric.replace("_", " ")
    say(
        f"picked trial {number}: validation {spoken} {entry['accuracy']:.4f}, "
        f"{entry['latency_ms']:.2f} ms per image"
        + (
            " (unreliable: measured while the machine was busy, or never steady)"
            if entry.get("latency_reliable") is False
            else ""
        )
    )
    if number == results.winner.trial:
        if first := ahead(results):
            say(first)
        return run.best
    target = run.path / "picks" / str(number)
    if target.is_dir():
        _say_of_kept(target, say)
        return target
    config, workspace = _opened(run, entry["config"], data, cache_dir)
    # First, as the final model has seen the validation images.
    said = {"what": "picked trial", "option": "--pick", "otherwise": f"other POINTS of {RULE}"}
    judged = _trained(run, number, config, workspace, say, fit="train", **said)
    training = _trained(run, number, config, workspace, say, fit="train+validation", **said)
    outcome = _outcome(judged, training, entry["params"], number)
    findings = findings_of_pick(results, outcome)
    for sentence in told_ahead(findings):
        say(sentence)
    return _written(target, results, outcome, training, findings)


def bundle_without_validation(
    run: RunDirectory,
    *,
    data: str | None = None,
    cache_dir: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Path:
    """Returns the winner as it was trained on the training images alone, such as for a teacher.

    The search has trained it so to validate it; where that is gone, it is trained again.
    ``RUN/picks/N-train`` keeps the bundle.

    Args:
        run, data, cache_dir, say: As for `picked_bundle`.

    Returns:
        A directory with a bundle.

    Raises:
        UserError: If the images or the winner's trial are gone, or it cannot be trained again.
    """
    results = read_results(run.results_file)
    winner = results.winner
    number, option = winner.trial, "--without-validation"
    if number is None:
        raise UserError(f"{option}: found no trial of the winner in {run.results_file}")
    target = run.path / "picks" / f"{number}-train"
    if target.is_dir():
        return target
    config, workspace = _opened(run, winner.config, data, cache_dir)
    training = _trained(
        run, number, config, workspace, say, fit="train", what="winner", option=option
    )
    outcome = _outcome(training, training, winner.params, number)
    return _written(target, results, outcome, training, [])


def _opened(
    run: RunDirectory, config: Mapping[str, Any], data: str | None, cache_dir: Path | None
) -> tuple[Config, Workspace]:
    """Opens the images of a trial, where they are now."""
    found = Config.model_validate(config)
    if data is not None:
        section = found.data.model_copy(update={"path": data})
        found = found.model_copy(update={"data": section})
    side = read_description(run.best)["preprocessing"]["side"]
    return found, Workspace.open(found.data, side=side, cache_dir=cache_dir)


def _outcome(
    judged: Training, training: Training, params: Mapping[str, Any], number: int
) -> Outcome:
    """Scores a trial: validated by one of its trainings and tested by the other."""
    held = judged.predict_as_exported("validation")
    tested = training.predict_as_exported("test")
    return Outcome(
        config=training.config.model_dump(mode="json"),
        validation=Score.table([judged.scoring.of("validation", held)]),
        test=Score.table([training.scoring.of("test", tested)]),
        seeds=[training.seed],
        params=dict(params),
        trial=number,
        calibration=calibrate(held.logits[None], held.labels, tested.logits[None], tested.labels),
    )


def _written(
    target: Path, results: Results, outcome: Outcome, training: Training, findings: list[Finding]
) -> Path:
    """Writes the bundle of a trial that is not the run's own."""
    dataset = training.workspace.dataset
    # Comparisons and ensemble belong to the run's own winner.
    said = replace(
        results,
        winner=outcome,
        control=None,
        difference=None,
        probe=None,
        ensemble=None,
        flip=None,
        findings=findings,
    )
    return bundle_from_network(
        target,
        training.trained_network(),
        training.config,
        classes=dataset.classes,
        groups=None if training.groups is None else [int(group) for group in training.groups],
        side=dataset.pool.side,
        reading=dataset.reading,
        metrics=said.to_json(),
        calibration=outcome.calibration,
        trained_on=dataset.trained_on(validation=training.fit == "train+validation"),
    )


def _say_of_kept(bundle: Path, say: Callable[[str], None]) -> None:
    """Says of a bundle that an earlier export has made what its user must know."""
    findings = files.read_json_file(bundle / files.METRICS).get("findings") or []
    for sentence in told_ahead(Finding(**each) for each in findings):
        say(sentence)
    if not read_description(bundle).get("calibration"):
        say(
            f"{bundle} was made by an older version and has no temperature and no thresholds; "
            "remove it to make it again"
        )


# Folders in which a search trains finalists, and retrains.
_FOLDERS: dict[FitOn, str] = {"train": "validate", "train+validation": "retrain"}


def _trained(
    run: RunDirectory,
    number: int,
    config: Config,
    workspace: Workspace,
    say: Callable[[str], None],
    *,
    fit: FitOn,
    what: str,
    option: str,
    otherwise: str = "",
) -> Training:
    """Trains a trial as the search would retrain it, or goes on where that stopped.

    Args:
        run: A finished run.
        number: Number of the trial.
        config: Its configuration.
        workspace: Its images.
        say: Receives progress messages.
        fit: What it is trained on.
        what: What the trial is, for people.
        option: The option that asked for it.
        otherwise: What its user may choose in place of it, if it cannot be trained.

    Raises:
        UserError: If its checkpoint is broken, or it cannot be trained.
    """
    seed = config.training.seed + 1
    # The folder in which the search would retrain it, so that existing work is reused.
    directory = run.finals / f"search-{number}" / _FOLDERS[fit] / f"seed-{seed}"
    training = Training(config, workspace, directory, seed=seed, fit=fit)
    try:
        training.restore()
    except CheckpointError as error:
        raise UserError(f"{error}; remove the file to train from the beginning") from error
    alone = config.data.shots or fit == "train"
    images = "the training images" if alone else "train + validation"
    if not training.finished:
        say(f"training the {what} on {images} for {training.total_epochs} epochs")
    try:
        while not training.finished:
            training.run_epoch()
            training.save()
    except (NonFiniteLoss, RuntimeError, MemoryError) as error:
        reason = str(error) if isinstance(error, NonFiniteLoss) else out_of_memory(error)
        if reason is None:
            raise
        allowed = f"; allowed: {otherwise}" if otherwise else ""
        raise UserError(
            f"{option}: trial {number} cannot be trained with seed {seed} ({reason}){allowed}"
        ) from error
    return training
