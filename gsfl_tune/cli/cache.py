"""``gsfl-tune cache``: the cache of this node, which avoids repeated computation."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from typing import TYPE_CHECKING, Any

from gsfl_tune.cli._base import BAD_INPUT, FINISHED, Command

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from gsfl_tune.cache.entries import Entry

_SECONDS = {"m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}


class Cache(Command):
    """Lists, measures and empties the cache of this node."""

    name = "cache"
    help = "show what is cached on this machine and how much it takes, or remove it"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "action",
            nargs="?",
            choices=["list", "size", "clear"],
            default="list",
            help="list entries (default), show totals and the limit, or remove what is not in use",
        )
        parser.add_argument(
            "--kind",
            metavar="KIND",
            action="append",
            help="only this kind; may be given many times",
        )
        parser.add_argument(
            "--older-than",
            metavar="AGE",
            type=_age,
            help="only entries unused for this long, such as 12h, 30d or 4w",
        )
        parser.add_argument("--yes", action="store_true", help="clear without asking")
        parser.add_argument("--json", action="store_true", help="print JSON")

    def run(self, args: argparse.Namespace) -> int:
        """Lists, measures or clears the cache.

        Raises:
            UserError: For an unknown kind, or an invalid limit.
        """
        from gsfl_tune.cache.entries import KINDS, cache_directory, cache_limit, entries
        from gsfl_tune.experiment.errors import UserError

        for kind in args.kind or ():
            if kind not in KINDS:
                raise UserError(f"--kind: found '{kind}', allowed {', '.join(KINDS)}")
        cache = cache_directory()
        limit = cache_limit(cache)
        before = time.time() - (args.older_than or 0)
        listed = [
            entry
            for entry in entries(cache)
            if (not args.kind or entry.kind in args.kind)
            and (args.older_than is None or entry.used < before)
        ]
        if args.action == "clear":
            return _clear(cache, listed, yes=args.yes, as_json=args.json)
        if args.json:
            _print_json(_list_json(listed) if args.action == "list" else _sizes(listed, limit))
        elif args.action == "list":
            _print_list(cache, listed)
        else:
            _print_sizes(cache, listed, limit)
        return FINISHED


def _age(text: str) -> int:
    match = re.fullmatch(r"(\d+)\s*([mhdw])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"found '{text}', allowed a number with m, h, d or w")
    return int(match[1]) * _SECONDS[match[2]]


def _clear(cache: Path, listed: Sequence[Entry], *, yes: bool, as_json: bool) -> int:
    from gsfl_tune.cache.entries import remove, sweep
    from gsfl_tune.experiment.units import decimal_size

    total = sum(entry.size for entry in listed)
    question = f"remove {len(listed)} entries ({decimal_size(total)}) from {cache}?"
    if listed and not yes:
        if not sys.stdin.isatty():
            print(f"{question} Confirm with --yes.", file=sys.stderr)
            return BAD_INPUT
        if input(f"{question} [y/N] ").strip().lower() not in ("y", "yes"):
            print("nothing removed")
            return FINISHED
    gone = [entry for entry in listed if remove(entry)]
    sweep(cache)
    freed = sum(entry.size for entry in gone)
    kept = len(listed) - len(gone)
    if as_json:
        _print_json({"removed": len(gone), "bytes": freed, "in_use": kept})
        return FINISHED
    print(f"removed {len(gone)} entries, freed {decimal_size(freed)}")
    if kept:
        print(f"kept {kept}, as running processes use or build them")
    return FINISHED


def _print_list(cache: Path, listed: Sequence[Entry]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from gsfl_tune.experiment.units import decimal_size

    console = Console(highlight=False)
    if not listed:
        console.print(f"{cache}: empty", markup=False, soft_wrap=True)
        return
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("kind", no_wrap=True)
    table.add_column("size", justify="right", no_wrap=True)
    table.add_column("last used", no_wrap=True)
    table.add_column("what", overflow="fold")
    table.add_column("", no_wrap=True)
    now = time.time()
    for entry in listed:
        state = "" if entry.state == "free" else entry.state
        what = Text(entry.what or entry.path.name)
        table.add_row(entry.kind, decimal_size(entry.size), _ago(now - entry.used), what, state)
    console.print(table)
    total = decimal_size(sum(entry.size for entry in listed))
    console.print(f"{total} in {cache}", markup=False, soft_wrap=True)


def _print_sizes(cache: Path, listed: Sequence[Entry], limit: int | None) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from gsfl_tune.cache.entries import DIRECTORY_VARIABLE, LIMIT_VARIABLE
    from gsfl_tune.experiment.units import decimal_size

    console = Console(highlight=False)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), collapse_padding=True, pad_edge=False)
    table.add_column("kind")
    table.add_column("entries", justify="right")
    table.add_column("size", justify="right")
    sizes = _sizes(listed, limit)
    for kind, content in sizes["kinds"].items():
        table.add_row(kind, f"{content['entries']:,}", decimal_size(content["bytes"]))
    table.add_section()
    table.add_row("all", f"{len(listed):,}", decimal_size(sizes["bytes"]))
    console.print(table)
    most = "none" if limit is None else decimal_size(limit)
    console.print(f"limit: {most} ({LIMIT_VARIABLE})", markup=False)
    console.print(f"folder: {cache} ({DIRECTORY_VARIABLE})", markup=False, soft_wrap=True)


def _sizes(listed: Sequence[Entry], limit: int | None) -> dict[str, Any]:
    from gsfl_tune.cache.entries import KINDS

    kinds = {}
    for kind in KINDS:
        sizes = [entry.size for entry in listed if entry.kind == kind]
        if sizes:
            kinds[kind] = {"entries": len(sizes), "bytes": sum(sizes)}
    return {"kinds": kinds, "bytes": sum(entry.size for entry in listed), "limit": limit}


def _list_json(listed: Sequence[Entry]) -> list[dict[str, Any]]:
    return [
        {
            "kind": entry.kind,
            "path": str(entry.path),
            "bytes": entry.size,
            "last_used": round(entry.used, 3),
            "what": entry.what,
            "state": entry.state,
        }
        for entry in listed
    ]


def _print_json(content: object) -> None:
    print(json.dumps(content, indent=2, ensure_ascii=False))


def _ago(seconds: float) -> str:
    for unit, name in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        count = int(seconds // unit)
        if count:
            return f"{count} {name if count > 1 else name[:-1]} ago"
    return "just now"
