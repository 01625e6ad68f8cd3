"""The numbers of ``evidence.json`` in a terminal: errors, group probes and swap test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import read_json

_PARTS = {"f": "feature f", "s": "shared part s", "d": "discriminative part d"}
_MOST_PAIRS = 3
# Equal numbers may differ in their last bits from their mean.
_ROUNDING = 1e-7


def load_evidence(path: Path) -> dict[str, Any]:
    """Reads ``evidence.json``; empty if there is none.

    Raises:
        UserError: If it is damaged.
    """
    try:
        content = read_json(path)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: not an evidence file")
    return content


def print_evidence(evidence: Mapping[str, Any], console: Console | None = None) -> None:
    """Prints all parts with an empty line between them."""
    console = console or Console(highlight=False)
    for number, part in enumerate(evidence_parts(evidence)):
        if number:
            console.print()
        console.print(part)


def evidence_parts(evidence: Mapping[str, Any]) -> Iterator[RenderableType]:
    """Renders errors, probes, swap test and parts; leaves out what was not computed."""
    lines = list(_errors(evidence))
    if lines:
        yield Group(Text("Errors on the test images", "bold"), *lines)
    if _is_there(evidence, "probes"):
        yield _probes(evidence["probes"])
    if _is_there(evidence, "swap"):
        yield _swap(evidence["swap"])
    if _is_there(evidence, "parts"):
        yield _found(evidence["parts"])
    failed = [name for name, part in evidence.items() if _error(part)]
    notes = [f"{name}: {_error(evidence[name])}" for name in failed] + evidence.get("notes", [])
    if notes:
        yield Group(Text("Not computed", "bold"), *map(Text, notes))


def _errors(evidence: Mapping[str, Any]) -> Iterator[Text]:
    worst = evidence.get("worst_tenth")
    if worst:
        names = ", ".join(worst["classes"][:_MOST_PAIRS])
        more = len(worst["classes"]) - _MOST_PAIRS
        names += f" and {more} more" if more > 0 else ""
        yield Text(f"worst tenth of the classes: {_percent(worst['mean'])} right ({names})")
    errors = evidence.get("group_errors")
    if errors and errors["share_inside"] is not None:
        expected = errors["expected_inside"]
        chance = "" if expected is None else f" (by chance {_percent(expected)})"
        yield Text(f"inside the true class's group: {_percent(errors['share_inside'])}{chance}")
    pairs = evidence.get("most_confused", [])[:_MOST_PAIRS]
    if pairs:
        text = "; ".join(f"{' / '.join(each['classes'])} {sum(each['counts'])}" for each in pairs)
        yield Text(f"most confused, all seeds counted: {text}")


def _probes(probes: Mapping[str, Any]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("a linear probe on")
    table.add_column("groups", justify="right", no_wrap=True)
    table.add_column("random groups", justify="right", no_wrap=True)
    for row in probes["parts"]:
        name = row["part"]
        cells = [_spread(row["groups"]), _spread(row["random_groups"])]
        table.add_row(Text(_PARTS.get(name, name)), *cells)
    title = f"Linear probes for the group (chance {_percent(probes['chance'])})"
    return Group(Text(title, "bold"), table)


def _swap(swap: Mapping[str, Any]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("decoded from s of image a, d of image b")
    for title in ("follows s", "follows d", "chance"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("unswapped", justify="right", no_wrap=True)
    for question, kind in (
        ("group, of pairs across groups", "group"),
        ("class, of pairs inside a group", "class"),
    ):
        names = (
            f"{kind}_follows_shared",
            f"{kind}_follows_discriminative",
            f"chance_{kind}",
            f"unswapped_{kind}",
        )
        table.add_row(question, *(_percent(swap.get(name)) for name in names))
    judge = Text(
        f"{swap['pairs']} pairs; the judge classifies {_percent(swap['judge_accuracy'])} of "
        "the images' own features correctly."
    )
    return Group(Text("Swap test", "bold"), table, judge)


def _found(parts: Mapping[str, Any]) -> RenderableType:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("part")
    for title in ("found", "overlap", "shown"):
        table.add_column(title, justify="right", no_wrap=True)
    for row in [{"part": "all of them", **parts}, *parts["parts"]]:
        cells = (_percent(row["found"]), _percent(row["overlap"]), f"{row['shown']:,}")
        table.add_row(Text(row["part"]), *cells)
    title = f"Parts found in {parts['images']:,} test images, without annotations"
    return Group(Text(title, "bold"), table)


def _is_there(evidence: Mapping[str, Any], name: str) -> bool:
    return bool(evidence.get(name)) and not _error(evidence[name])


def _error(part: Any) -> str | None:
    return part.get("error") if isinstance(part, dict) else None


def _spread(score: Mapping[str, float]) -> str:
    """Formats mean and deviation; no deviation of one run, or of runs that are identical."""
    mean, points = _percent(score["mean"]), 100 * score["std"]
    if points < _ROUNDING:
        return mean
    return f"{mean} ± {points:.1f}" if points >= 0.05 else f"{mean} ± < 0.1"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
