"""Counts the classes that remote Parquet files name, in a bounded time and without copying one."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import threading
import time

import pyarrow.parquet as pq

from gsfl_tune.activity import activity
from gsfl_tune.child_environment import child_environment
from gsfl_tune.data.sources._remote import PARQUET, open_one
from gsfl_tune.data.sources._tables import Columns, class_names, features_of

# A price is not worth a longer wait for a server, and for the process that asks it to start.
_SECONDS = 10.0
_START_SECONDS = 60.0
# An answer, and that there was none, is known for at most this long: a price needs it several
# times.
_REMEMBERED = 60.0
_CODE = "from gsfl_tune.data.sources._remote_classes import answer; answer()"


def remote_classes(paths: tuple[str, ...], config: str | None, columns: Columns) -> int | None:
    """Returns the number of classes in the schema of a remote file; None if it is not known.

    The end of one file is read, where it lies.

    Args:
        paths: Files or folders, of which the first URL counts.
        config: Name of the configuration, if there are several.
        columns: Names of columns given in the experiment.
    """
    url = next(path for path in paths if "://" in path)
    return _asked(url, config, columns, int(time.monotonic() // _REMEMBERED))


@functools.lru_cache(maxsize=16)
def _asked(url: str, config: str | None, columns: Columns, _: int) -> int | None:
    """Asks in a process of its own.

    At the end of a process pyarrow waits for a server that does not answer, for 100 seconds
    (pyarrow 26.0, measured).
    """
    with activity("reading the class names of a remote file"):
        try:
            done = subprocess.run(
                [sys.executable, "-c", _CODE],
                input=json.dumps([url, config, columns.image, columns.label]),
                capture_output=True,
                text=True,
                timeout=_START_SECONDS + _SECONDS,
                env=child_environment(),
                check=True,
            )
            return int(done.stdout)
        except (OSError, ValueError, subprocess.SubprocessError):
            return None


def answer() -> None:
    """Reads a question from the standard input and prints the number of classes, if in time."""
    url, config, image, label = json.load(sys.stdin)

    def ask() -> None:
        name, stream = open_one(url, PARQUET, config)
        schema = pq.read_schema(stream)
        names = class_names(schema, features_of(schema), name, Columns(image, label))
        if names:
            print(len(names), flush=True)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(_SECONDS)
    os._exit(0)
