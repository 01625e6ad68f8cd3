"""The results of a run in a terminal, readable at 80 columns."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.table import Table
from rich.text import Text

from gsfl_tune.experiment.metrics import METRIC_TITLES, is_share, metric_of
from gsfl_tune.report.decomposition import evidence_parts, load_evidence
from gsfl_tune.report.results import RunResults
from gsfl_tune.report.trials import UNRELIABLE, doubt
from gsfl_tune.run.further import further_rows
from gsfl_tune.run.results import Interval, Outcome, Results, Score
from gsfl_tune.run.verdict import ahead, best_on_validation, first_card


class ResultsView:
    """Renders a run: test results first, then the configuration, the best trials and the rest."""

    def __init__(self, run: RunResults) -> None:
        self.run = run

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields the parts with an empty line between them."""
        parts = self._finished(self.run.results) if self.run.results else self._unfinished()
        for number, part in enumerate(parts):
            if number:
                yield Text("")
            yield part

    def _finished(self, results: Results) -> Iterator[RenderableType]:
        yield _headline(results)
        yield _test_table(results)
        further = _further(results)
        if further is not None:
            yield further
        sentences = first_card(results)
        if sentences:
            yield Text("\n".join(sentences))
        findings = _findings(results)
        if findings is not None:
            yield findings
        yield _configuration(results.winner)
        if results.pareto:
            yield _front(results, self.run)
        yield from evidence_parts(load_evidence(self.run.run.evidence_file))
        yield from self._rest()

    def _unfinished(self) -> Iterator[RenderableType]:
        file, path = (
            shlex.quote(str(p)) for p in (self.run.run.experiment_file, self.run.run.path)
        )
        yield Group(
            Text(f"{self.run.name}: not finished, so there is no tested winner yet.", "bold"),
            "If it is not running, continue it with",
            _whole(f"  gsfl-tune search {file} --run-dir {path} --resume"),
        )
        yield from self._rest()

    def _rest(self) -> Iterator[RenderableType]:
        rows = self.run.leaderboard()
        if rows:
            yield _leaderboard(rows, self.run.metric)
        counts = ", ".join(
            f"{count} {_STATES.get(state, state.lower())}"
            for state, count in self.run.counts.items()
            if count
        )
        lines: list[RenderableType] = [Text(f"Trials: {counts or 'none yet'}")]
        if self.run.results and self.run.results.cost.get("seconds"):
            lines.append(Text(f"Time: {_cost(self.run.results.cost['seconds'])}"))
        lines += [Text(line) for line in utilisation_lines(self.run.utilisation)]
        results = self.run.results
        if self.run.bundle:
            lines.append(_whole(f"Bundle: {self.run.bundle}"))
            if results is not None and (own := of_the_bundle(results.winner)):
                lines.append(Text(own))
        # A folder of an earlier end of the run may be left.
        simpler = results is not None and best_on_validation(results) != "winner"
        if simpler and self.run.run.best_simple.is_dir():
            lines.append(_whole(f"Better on validation: {self.run.run.best_simple}"))
        yield Group(*lines)


_STATES = {"COMPLETE": "finished", "PRUNED": "stopped early", "FAIL": "failed"}


def print_results(run: RunResults, console: Console | None = None) -> None:
    """Prints the view of a run."""
    # Paths and commands stay on one line so that they can be copied; the rest is wrapped.
    (console or Console(highlight=False)).print(ResultsView(run), crop=False)


def utilisation_lines(utilisation: Mapping[str, Any]) -> list[str]:
    """Describes how busy slots and the GPUs of each node were; omits what was not measured."""
    lines = []
    if utilisation["slots_busy"] is not None:
        lines.append(f"Slots: busy {_share(utilisation['slots_busy'])} of the time")
    nodes: dict[str, list[Mapping[str, Any]]] = {}
    for gpu in utilisation["gpus"]:
        nodes.setdefault(gpu["node"], []).append(gpu)
    for node, gpus in nodes.items():
        parts = []
        for name, verb in (("occupied", "with a trial"), ("busy", "busy")):
            shares = [gpu[name] for gpu in gpus]
            if any(share is not None for share in shares):
                parts.append(f"{verb} {', '.join(map(_share, shares))}")
        if parts:
            plural = "s" if len(gpus) > 1 else ""
            lines.append(f"GPU{plural} of {node}: {'; '.join(parts)} of the time")
    return lines


def _share(value: float | None) -> str:
    return "?" if value is None else f"{100 * value:.0f} %"


def percent(score: Score, interval: Interval | None = None) -> str:
    """Formats a share as ``87.4 %``, with its interval if any: ``87.4 % (84.0 to 90.2)``."""
    return f"{100 * score.mean:.1f} % {spanned(interval)}".rstrip()


def spanned(interval: Interval | None) -> str:
    """Formats an interval of a share as ``(84.0 to 90.2)``; empty if there is none."""
    return f"({100 * interval.low:.1f} to {100 * interval.high:.1f})" if interval else ""


def measured_over(outcome: Outcome) -> str:
    """Says what the first number is a mean of and what its interval covers."""
    seeds = len(outcome.seeds)
    many = f"{seeds} seeds" if seeds > 1 else "one seed"
    interval = outcome.interval
    if interval is None:
        return f"mean over {many}" if seeds > 1 else many
    over = f"{many} and the test images" if interval.covers_seeds else "the test images, one seed"
    return f"{100 * interval.level:.0f} % interval over {over}"


def of_the_bundle(winner: Outcome) -> str:
    """Says which of the seeds the bundle holds: the numbers above are means. Empty for one seed."""
    values = winner.test["accuracy"].values
    if len(values) < 2:
        return ""
    return (
        f"The bundle of the winner holds the first of its {len(values)} seeds, which has "
        f"{100 * values[0]:.1f} % on the test images (seeds: {100 * min(values):.1f} to "
        f"{100 * max(values):.1f} %)."
    )


def _whole(line: str) -> Text:
    return Text(line, no_wrap=True, overflow="ignore")


def _headline(results: Results) -> RenderableType:
    winner = results.winner
    text = f"{results.name}: test accuracy {percent(winner.test['accuracy'], winner.interval)}"
    if results.control:
        text += f", control {percent(results.control.test['accuracy'])}"
    over = Text(f"({measured_over(winner)})")
    first = ahead(results)
    lines = [Text(first, style="bold red")] if first else []
    return Group(*lines, Text(text, style="bold"), over)


def _findings(results: Results) -> RenderableType | None:
    """Renders the findings, the most severe first."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    first = ahead(results)
    rows = [each for each in results.findings or () if each.sentence != first]
    for each in rows:
        table.add_row(Text(each.severity, _STYLES.get(each.severity, "")), Text(each.sentence))
    return Group(Text("Findings", "bold"), table) if rows else None


_STYLES = {"severe": "bold red", "warning": "yellow"}


def _test_table(results: Results) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("on the test images")
    for title in METRIC_TITLES.values():
        table.add_column(title, justify="right", no_wrap=True)
    seeds = len(results.winner.seeds)
    winner = results.winner
    rows: list[tuple[str, Mapping[str, Score], Interval | None]] = [
        (f"winner ({seeds} seed{'s' if seeds > 1 else ''})", winner.test, winner.interval)
    ]
    if results.control:
        kind = f", {results.control.kind}" if results.control.kind else ""
        rows.append((f"control{kind}", results.control.test, results.control.interval))
    if results.probe:
        rows.append(("linear probe", results.probe.test, results.probe.interval))
    if results.ensemble:
        rows.append((f"ensemble of {len(results.ensemble.seeds)}", results.ensemble.test, None))
    if results.flip:
        # Many test images are not all passed twice.
        seen = f"{results.flip.images:,} images"
        rows.append((f"seed {results.flip.seed}, {seen}", results.flip.plain, None))
        rows.append(("  mirrored too", results.flip.test, None))
    for title, test, interval in rows:
        cells = [
            percent(test["accuracy"], interval),
            *(_cell(name, test.get(name)) for name in METRIC_TITLES if name != "accuracy"),
        ]
        table.add_row(Text(title), *cells)
        if test is winner.test and (found := winner.calibration) is not None:
            # Bundles give the same answers with other probabilities.
            known = [
                "" if is_share(name) else _cell(name, found.after.get(name))
                for name in METRIC_TITLES
            ]
            table.add_row(f"  calibrated, T = {found.temperature:.2f}", *known)
    return table


def _further(results: Results) -> RenderableType | None:
    models, rows = further_rows(results)
    if not rows:
        return None
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("further, on the test images")
    for model in models:
        table.add_column(model, justify="right", no_wrap=True)
    for title, cells in rows:
        table.add_row(Text(title), *cells)
    return table


def _cell(name: str, score: Score | None) -> str:
    if score is None:
        return "-"
    return f"{100 * score.mean:.1f} %" if is_share(name) else f"{score.mean:.3f}"


def _configuration(winner: Outcome) -> RenderableType:
    number = "" if winner.trial is None else f" (trial {winner.trial})"
    if not winner.params:
        return Text(f"Winner's configuration{number}: nothing was searched.")
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name, value in winner.params.items():
        table.add_row(Text(name), Text(show(value)))
    return Group(Text(f"Winner's configuration{number}", "bold"), table)


def _leaderboard(rows: list[dict[str, Any]], metric: str) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right", min_width=5)
    name = metric_of(metric).name
    table.add_column(Text(name), justify="right", no_wrap=True, min_width=max(6, len(name)))
    several = any("replicates" in row for row in rows)
    if several:
        table.add_column("error", justify="right", no_wrap=True)
        table.add_column("replicates", justify="right", no_wrap=True)
    # Folded, not cut: a comparison of trials needs every difference.
    table.add_column("parameters", overflow="fold")
    for row in rows:
        cells = [str(row["trial"]), f"{row['value']:.4f}"]
        if several:
            error = row.get("error")
            cells += ["-" if error is None else f"{error:.4f}", str(row.get("replicates", "-"))]
        table.add_row(*cells, Text(_parameters(row["params"])))
    return Group(Text("Best trials", "bold"), table)


# Of an entry of the front: what is not an objective, or has a column of its own.
_NO_OBJECTIVE = (
    "trial",
    "accuracy",
    "latency_reliable",
    "params",
    "config",
    "errors",
    "replicates",
)
_HEADS = {"latency_ms": "ms an image", "size_mb": "MB"}


def _spread(error: float | None) -> str:
    # Equal numbers may differ in their last bits from their mean.
    return f" ± {error:.2g}" if error is not None and error > 1e-9 else ""


def _front(results: Results, run: RunResults) -> RenderableType:
    entries, winner = results.pareto, results.winner.trial
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("trial", justify="right", min_width=5)
    # Whatever its key is called, it is the first objective.
    table.add_column(Text(metric_of(results.metric).name), justify="right", no_wrap=True)
    keys = [key for key in entries[0] if key not in _NO_OBJECTIVE]
    for key in keys:
        title = Text(_HEADS.get(key, metric_of(key).name))
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("parameters", overflow="fold")
    for entry in entries:
        number = f"{entry['trial']}{' (winner)' if entry['trial'] == winner else ''}"
        doubtful = entry.get("latency_reliable") is False
        errors = entry.get("errors", {})
        first = next(iter(errors.values()), None)
        cells = [f"{entry['accuracy']:.4f}{_spread(first)}"]
        for key in keys:
            latency = key == "latency_ms"
            value = entry[key]
            text = f"{value:.2f}" if latency else f"{value:.4g}"
            cells.append(f"{text}{' ?' if latency and doubtful else ''}{_spread(errors.get(key))}")
        table.add_row(number, *cells, Text(_parameters(entry["params"])))
    everything = "both" if len(keys) == 1 else "all"
    if "latency_ms" not in keys:
        return Group(
            Text(f"Pareto front: no trial beats one of these in {everything}", "bold"), table
        )
    return Group(
        Text(f"Pareto front: no trial beats one of these in {everything}", "bold"),
        table,
        *_doubts(entries, run),
        "Export the fastest that is at most half a point less accurate than the best with",
        _whole(
            f"  gsfl-tune export {shlex.quote(str(run.run.path))} FOLDER --pick fastest-within 0.5"
        ),
    )


def _doubts(entries: Sequence[Mapping[str, Any]], run: RunResults) -> Iterator[str]:
    """Explains the question marks of a front: spread and load of each, where they are known."""
    marked = [each["trial"] for each in entries if each.get("latency_reliable") is False]
    if not marked:
        return
    yield f"? unreliable: {UNRELIABLE}"
    for row in run.study("search").to_dict("records"):
        if row["number"] in marked and (reason := doubt(row)) not in (None, UNRELIABLE):
            yield f"  trial {row['number']}: {reason}"


def _parameters(params: Mapping[str, Any]) -> str:
    return ", ".join(f"{name.split('.', 1)[-1]} {show(value)}" for name, value in params.items())


def show(value: Any) -> str:
    """Formats a parameter's value with three significant digits."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _cost(seconds: Mapping[str, float]) -> str:
    parts = [f"{name} {duration(value)}" for name, value in seconds.items() if name != "total"]
    total = seconds.get("total")
    return ", ".join(parts + ([f"total {duration(total)}"] if total is not None else []))


def duration(seconds: float) -> str:
    """Formats seconds as ``1 h 05 min``, ``3 min 20 s`` or ``7 s``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
