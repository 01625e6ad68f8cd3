"""The longest silence of every long command, in a pipe and in a terminal of 80 columns.

Searches of the embedded typefaces with a finetune stage, on empty caches, by trials and by time,
then what is done with a run: evidence, an ONNX export, one training; and searches that get Ctrl-C.
Every command runs twice, once with a pipe and once with a pseudo-terminal for its output. For each
the page says how long it was silent at most, between which lines (from the last word to the exit,
too), and whether the output is what it has to be: no carriage returns in a pipe, no row
that is redrawn wider than the terminal.

    python benchmarks/silence.py                        # some 20 minutes on two cores
    python benchmarks/silence.py --old ../old --only pipe    # adds an older version to the page
    python benchmarks/silence.py --logs benchmarks/results/silence    # keeps what was said, too
    python benchmarks/silence.py -- gsfl-tune search birds.yaml --time 20m    # any other command
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from _report import publish, table

ROOT = Path(__file__).parents[1]
SPACE = ROOT / "search_spaces" / "typefaces.yaml"
COLUMNS, LINES = 80, 24
# Few images and epochs: what is measured are the waits between lines, not the search.
FEW = ("data.typefaces.train=24", "data.typefaces.test=8")
SMALL = (
    *FEW,
    "data.views=2",
    "training.head.epochs=3",
    "training.finetune.epochs=2",
    "search.time_budget=null",
    "search.finalists=2",
    "search.final_seeds=1",
)
# How long it is watched, before each command, how busy others keep the machine.
_BEFORE_SECONDS = 3.0
# Escape sequences that move the cursor, clear or colour.
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[()][A-Z0-9]|\x1b[=>]")


@dataclass
class Heard:
    """What a command said and when.

    Attributes:
        where: ``pipe`` or ``terminal``.
        chunks: (seconds since the start, text), as they came.
        seconds: Of the whole command.
        code: Its exit code.
        signalled: When it got Ctrl-C, if it did.
    """

    where: str
    chunks: list[tuple[float, str]] = field(default_factory=list)
    seconds: float = 0.0
    code: int = 0
    signalled: float | None = None

    @property
    def text(self) -> str:
        """Everything."""
        return "".join(text for _, text in self.chunks)

    def gaps(self) -> list[tuple[float, float, str, str]]:
        """(seconds, when it began, line before, line after), longest first.

        The time from the last word to the exit is one of them: nobody is told anything then.
        """
        times = [(0.0, "start"), *self.chunks, (self.seconds, "exit")]
        found = [
            (after - before, before, _last(said), _first(next_said))
            for (before, said), (after, next_said) in pairwise(times)
        ]
        return sorted(found, reverse=True)

    @property
    def last(self) -> float:
        """When the last word came."""
        return self.chunks[-1][0] if self.chunks else 0.0

    def write(self, file: Path) -> None:
        """Writes what it said, each part with its time."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(
            "".join(f"[{at:8.2f}] {text}\n" for at, text in self.chunks)
            + f"[{self.seconds:8.2f}] (exit {self.code})\n"
        )

    def answered(self) -> float | None:
        """Seconds from Ctrl-C to the next word, None without it."""
        if self.signalled is None:
            return None
        return min((at for at, _ in self.chunks if at > self.signalled), default=self.seconds) - (
            self.signalled
        )

    def width(self) -> int | None:
        """Columns of the widest row that is redrawn; None in a pipe, where none is."""
        if self.where == "pipe":
            return None
        # What stays ends with a line break, what is redrawn does not.
        last = [_ESCAPE.sub("", text).rpartition("\n")[2] for _, text in self.chunks]
        return max((len(row.rpartition("\r")[2]) for row in last), default=0)

    def faults(self) -> str:
        """What is wrong with the output, in a few words."""
        found = []
        if self.where == "pipe" and "\r" in self.text:
            found.append("carriage returns")
        if self.where == "pipe" and "\x1b" in self.text:
            found.append("escape sequences")
        return ", ".join(found) or "none"


def listen(
    command: list[str], where: str, environment: dict[str, str], interrupt: str | None = None
) -> Heard:
    """Runs a command and notes what it says.

    Args:
        command: The command.
        where: ``pipe`` or ``terminal``.
        environment: Of the command.
        interrupt: Word in the output after which it gets Ctrl-C, once, 6 s later.
    """
    heard = Heard(where)
    if where == "terminal":
        reader, writer = pty.openpty()
        size = struct.pack("HHHH", LINES, COLUMNS, 0, 0)
        fcntl.ioctl(writer, termios.TIOCSWINSZ, size)
        environment = environment | {"TERM": "xterm-256color"}
    else:
        reader, writer = os.pipe()
    started = time.monotonic()
    process = subprocess.Popen(
        command, stdout=writer, stderr=writer, stdin=subprocess.DEVNULL, env=environment, cwd=ROOT
    )
    os.close(writer)
    due: float | None = None
    while True:
        ready, _, _ = select.select([reader], [], [], 0.1)
        now = time.monotonic() - started
        if ready:
            try:
                data = os.read(reader, 1 << 16)
            except OSError:  # a terminal whose last writer is gone
                data = b""
            if not data:
                break
            heard.chunks.append((now, data.decode(errors="replace")))
            if interrupt is not None and due is None and interrupt in heard.text:
                due = now + 6
        if due is not None and now >= due and heard.signalled is None:
            process.send_signal(signal.SIGINT)
            heard.signalled = now
        if process.poll() is not None and not ready:
            break
    os.close(reader)
    heard.code = process.wait()
    heard.seconds = time.monotonic() - started
    return heard


def _last(text: str) -> str:
    return next((line for line in reversed(_lines(text))), "")


def _first(text: str) -> str:
    return next(iter(_lines(text)), "")


def _lines(text: str) -> list[str]:
    lines = re.split(r"[\r\n]+", _ESCAPE.sub("", text))
    return [" ".join(line.split()) for line in lines if line.strip()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--keep", type=Path, default=Path("runs/silence"))
    parser.add_argument("--only", choices=["pipe", "terminal"])
    parser.add_argument("--match", default="", help="only commands with this text in their names")
    parser.add_argument("--logs", type=Path, metavar="DIR", help="keep what was said there too")
    parser.add_argument("--old", type=Path, help="checkout of an older version, measured instead")
    parser.add_argument("command", nargs="*", help="another command, after --")
    args = parser.parse_args()
    args.keep.mkdir(parents=True, exist_ok=True)
    known = args.keep / "rows.json"
    rows = json.loads(known.read_text()) if known.exists() and not args.command else {}
    for where in [args.only] if args.only else ["pipe", "terminal"]:
        for name, row in measured(args, where).items():
            rows[f"{name}, {where}, {row['version']}"] = row
            print(row, flush=True)
    if args.command:
        print(page(list(rows.values())))
        return
    known.write_text(json.dumps(rows))
    publish("silence", "The longest silence", page(list(rows.values())))


def measured(args: argparse.Namespace, where: str) -> dict[str, dict[str, Any]]:
    """What every command said, in a pipe or in a terminal."""
    version = "before" if args.old else "now"
    keep = args.keep.resolve() / f"{version}-{where}"
    if not args.match:
        shutil.rmtree(keep, ignore_errors=True)
    keep.mkdir(exist_ok=True)
    environment = os.environ | {
        "PYTHONPATH": str((args.old or ROOT).resolve()),
        "GSFL_TUNE_CACHE": str(keep / "cache"),
    }
    run, space = str(keep / "run"), str(SPACE)
    small = [part for each in SMALL for part in ("--set", each)]
    few = [part for each in FEW for part in ("--set", each)]
    stopped = [*small, "--trials", "40"]
    commands: dict[str, tuple[list[str], str | None]] = {
        "search --time 180s": (
            ["search", space, *few, "--time", "180s", "--run-dir", str(keep / "timed")],
            None,
        ),
        "search --trials 6": (["search", space, *small, "--trials", "6", "--run-dir", run], None),
        "evidence": (["evidence", run], None),
        "export --format onnx": (["export", run, str(keep / "onnx"), "--format", "onnx"], None),
        "train": (["train", space, *small, "--dir", str(keep / "train")], None),
        "search, Ctrl-C while trials run": (
            ["search", space, *stopped, "--run-dir", str(keep / "stopped")],
            "trial 0",
        ),
        "search, Ctrl-C while it starts": (
            ["search", space, *stopped, "--run-dir", str(keep / "early")],
            "watch it",
        ),
    }
    if args.command:
        commands = {" ".join(args.command): (args.command, None)}
    base = [] if args.command else [sys.executable, "-m", "gsfl_tune"]
    rows = {}
    for name, (words, interrupt) in commands.items():
        if args.match not in name:
            continue
        busy = psutil.cpu_percent(_BEFORE_SECONDS)
        heard = listen([*base, *words], where, environment, interrupt)
        log = f"{re.sub(r'[^a-z]+', '-', name.lower()).strip('-')[:60]}.log"
        heard.write(keep / log)
        if args.logs is not None:
            heard.write(args.logs / f"{version}-{where}-{log}")
        gaps = heard.gaps()
        seconds, at, before, after = gaps[0]
        rows[name] = {
            "version": version,
            "command": name,
            "where": where,
            "seconds": heard.seconds,
            "longest": seconds,
            "second": gaps[1][0] if len(gaps) > 1 else 0.0,
            "at": at,
            "exit": heard.seconds - heard.last,
            "before": before.replace(f"{ROOT}/", ""),
            "after": after.replace(f"{ROOT}/", ""),
            "answered": heard.answered(),
            "width": heard.width(),
            "lines": heard.text.count("\n"),
            "faults": heard.faults(),
            "code": heard.code,
            "busy": busy,
        }
    return rows


def page(rows: list[dict[str, Any]]) -> str:
    """The table, and where the silences were."""
    header = [
        *("command", "output", "version", "s in all", "longest silence, s", "the second, s"),
        "from the last word to the exit, s",
        *("answer to Ctrl-C, s", "lines", "widest redrawn row", "faults", "exit code"),
    ]
    cells = [
        [
            row["command"],
            row["where"],
            row["version"],
            f"{row['seconds']:.0f}",
            f"{row['longest']:.1f}",
            f"{row['second']:.1f}",
            f"{row['exit']:.1f}",
            "" if row["answered"] is None else f"{row['answered']:.1f}",
            str(row["lines"]),
            "" if row["width"] is None else str(row["width"]),
            row["faults"],
            str(row["code"]),
        ]
        for row in rows
    ]
    places = [
        f"- {row['command']}, {row['where']}, {row['version']}: at {row['at']:.0f} s, after "
        f"`{row['before']}`, before `{row['after']}`"
        for row in rows
    ]
    text = f"{table(header, cells)}\n\n{_others(rows)}Where the longest ones were:\n\n"
    return text + "\n".join(places)


def _others(rows: list[dict[str, Any]]) -> str:
    """How busy others kept the machine, where that is known."""
    busy = [row["busy"] for row in rows if row.get("busy") is not None]
    if not busy or max(busy) < 5:
        return ""
    return (
        f"Other work ran beside it: just before the commands it used {min(busy):.0f} to "
        f"{max(busy):.0f} % of the cores, {sum(busy) / len(busy):.0f} % on average.\n\n"
    )


if __name__ == "__main__":
    main()
