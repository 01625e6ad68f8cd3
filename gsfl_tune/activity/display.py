"""A display of this process's activity: a redrawn line on a terminal, else a line now and then."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from gsfl_tune.activity.record import current

# Where lines cannot be redrawn, one is printed after this silence. A user must not wait longer than
# five seconds, and a busy interpreter may delay the thread.
QUIET_SECONDS = 3.5
# The first line comes sooner, as the process has already spent time loading.
FIRST_SECONDS = 1.5
# Urgent activity is repeated sooner.
URGENT_SECONDS = 2.0
_REFRESH_SECONDS = 0.25


def activity_text() -> str:
    """Returns what this process does now, in words; empty if unknown."""
    one = current()
    return "" if one is None else one.text()


class Display:
    """Shows the activity of this process on a console, from a separate thread.

    On a terminal, one line at the bottom, below an optional `body`, is redrawn in place and never
    wider than the terminal. In a pipe or a file there are plain lines: messages, and the activity
    after a few seconds without any other line.

    Args:
        console: Output; default: standard output.
        text: Returns the activity in words; empty if there is nothing to show.
        lines: Returns the activity for a terminal, one text per row; default: `text` alone.

    Attributes:
        body: Makes what stands above the line on a terminal; None for nothing.
    """

    def __init__(
        self,
        console: Console | None = None,
        text: Callable[[], str] = activity_text,
        lines: Callable[[], list[str]] | None = None,
    ) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self.body: Callable[[], RenderableType] | None = None
        self.text = text
        self.lines = lines or (lambda: [self.text()])
        self._depth = 0
        self._live: Live | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()
        self._lock = threading.RLock()
        self._said = time.monotonic()
        self._urgent: object = None

    def __enter__(self) -> Display:
        self.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts the display; every call needs a call of `stop`."""
        self._depth += 1
        if self._depth > 1:
            return
        self._said = time.monotonic() - max(0.0, QUIET_SECONDS - FIRST_SECONDS)
        if self.console.is_terminal:
            # Output to a file or a pipe must still go there while the display is on a terminal.
            here = self.console.file.isatty()
            self._live = Live(
                self._rows(),
                console=self.console,
                auto_refresh=False,
                transient=True,
                redirect_stdout=here and sys.stdout.isatty(),
                redirect_stderr=here and sys.stderr.isatty(),
            )
            self._live.start()
        self._over = threading.Event()
        self._thread = threading.Thread(
            target=self._watch, args=(self._over,), name="display", daemon=True
        )
        self._thread.start()

    def stop(self) -> None:
        """Removes the line after the last `stop`, one per `start`."""
        self._depth -= 1
        if self._depth <= 0:
            self.close()

    def close(self) -> None:
        """Removes the line, whatever the number of starts."""
        self._depth = 0
        thread, self._thread = self._thread, None
        if thread is not None:
            self._over.set()
            thread.join()
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    def say(self, text: str) -> None:
        """Prints a line above what is redrawn."""
        with self._lock:
            self._said = time.monotonic()
            self.console.print(text, markup=False)

    def show(self, body: RenderableType) -> None:
        """Prints permanent output above what is redrawn."""
        with self._lock:
            self._said = time.monotonic()
            self.console.print(body)

    def refresh(self) -> None:
        """Redraws the line on a terminal."""
        live = self._live
        if live is not None:
            with self._lock:
                live.update(self._rows(), refresh=True)

    def _rows(self) -> RenderableType:
        # A row that is too long is cut: a line that wraps cannot be redrawn in place.
        rows = [Text(line, no_wrap=True, overflow="ellipsis") for line in self.lines() if line]
        body = self.body  # another thread may reset the attribute
        return Group(*([] if body is None else [body()]), *rows)

    def _watch(self, over: threading.Event) -> None:
        while not over.wait(_REFRESH_SECONDS):
            try:
                self._look()
            except (ValueError, OSError):
                return  # the reader is gone, or the file is closed

    def _look(self) -> None:
        if self._live is not None:
            self.refresh()
            return
        one = current()
        urgent = one if one is not None and one.urgent else None
        quiet = time.monotonic() - self._said
        fresh = urgent is not None and urgent is not self._urgent
        if quiet < (URGENT_SECONDS if urgent is not None else QUIET_SECONDS) and not fresh:
            return
        self._urgent = urgent
        if text := self.text():
            self.say(text)
