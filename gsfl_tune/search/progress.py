"""What a user sees while a search runs: a live table, or plain lines where there is no terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gsfl_tune.search.watcher import Watcher

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from gsfl_tune.search.study import Study

REFRESH_SECONDS = 0.25
# A rate of one trial says nothing.
TRIALS_BEFORE_ESTIMATE = 2


def duration(seconds: float) -> str:
    """``1:02:03`` or ``2:03``."""
    whole = int(seconds + 0.5)
    hours, minutes, rest = whole // 3600, whole // 60 % 60, whole % 60
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def shown(value: Any) -> str:
    """A parameter's value, short."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _Clock:
    """Elapsed time and an estimate of what is left.

    Args:
        total: Of what is counted; None where only time ends it.
        done: Before.
        left: Says how many seconds are left; default: as many a piece as there were until now.
    """

    def __init__(
        self, total: int | None, done: int, left: Callable[[], float] | None = None
    ) -> None:
        self._start = time.monotonic()
        self._total = total
        self._left = left
        self._first: tuple[float, int] | None = None
        self._before = done

    def line(self, done: int) -> str:
        """``2:03, about 4:10 left``, as soon as there is something to estimate from."""
        now = time.monotonic()
        text = duration(now - self._start)
        if self._left is not None:
            return f"{text}, about {duration(self._left())} left"
        if self._first is None:
            # Worker processes that start and caches that fill are no measure of the rest.
            if done > self._before:
                self._first = (now, done)
            return text
        since, already = self._first
        fresh = done - already
        if self._total is not None and fresh >= TRIALS_BEFORE_ESTIMATE and done < self._total:
            text += f", about {duration((now - since) / fresh * (self._total - done))} left"
        return text


class Progress(Watcher):
    """Shows how a run goes.

    Args:
        console: Where to; default standard output. A live table on a terminal, else one line
            per event that is worth one.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(highlight=False, soft_wrap=True)
        self._live: Live | None = None
        self._refreshed = 0.0
        self._study: Study | None = None
        self._budget: int | None = 0
        self._left: Callable[[], float] | None = None
        self._slots = 0
        self._best: int | None = None
        self._clock = _Clock(0, 0)
        self._title = ""
        self._jobs = (0, 0)

    # --- a study --------------------------------------------------------------------------

    def expects(self, left: Callable[[], float]) -> None:
        """Notes who knows what is left."""
        self._left = left

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Starts the display of a study."""
        self._study, self._budget, self._slots = study, budget, slots
        best = study.best()
        self._best = best.number if best else None
        done = self._ended_count()
        self._clock = _Clock(budget, done, self._taken())
        if self.console.is_terminal:
            self._open()
        else:
            before = f", {done} of them finished before" if done else ""
            trials = "as many trials as there is time for" if budget is None else f"{budget} trials"
            self._say(f"{study.name}: {trials}{before}, {slots} at once")

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """A trial that an earlier driver had begun is worth a line."""
        if again:
            self._say(f"trial {number} goes on where it was")
        self._refresh()

    def ended(self, number: int) -> None:
        """One line per trial, or a new frame."""
        if self._study is None:
            return
        best = self._study.best()
        is_best = best is not None and best.number == number
        self._best = best.number if best else None
        if self._live is not None:
            self._refresh(force=True)
            return
        trial = self._study.trial(number)
        state = trial.state.name
        rungs = self._study.rungs(trial)
        if state == "COMPLETE":
            text = f"complete, {self._numbers(trial)}" + (" (best so far)" if is_best else "")
        elif state == "PRUNED" and not rungs:
            text = "stopped before its first rung"
        elif state == "PRUNED":
            last = max(rungs)
            text = f"pruned at rung {last}, {self._study.metric} {rungs[last]:.4f}"
        else:
            text = f"failed: {trial.user_attrs.get('reason', 'unknown')}"
        count = self._ended_count()
        self._say(f"trial {number} {text} [{self._of(count)}, {self._clock.line(count)}]")

    def notice(self, text: str) -> None:
        """Printed above the table."""
        self._say(text)

    def tick(self) -> None:
        """Draws a frame now and then."""
        self._refresh()

    def finish(self, *, interrupted: bool) -> None:
        """Leaves the last frame on the screen."""
        if self._study is None:
            return
        self._close()
        if interrupted:
            self._say("interrupted; --resume goes on from here")
        elif not self.console.is_terminal:
            self._say(f"{self._study.name}: {self._counts_text()}")
            self._say_best()
        self._study = None

    # --- retrains -------------------------------------------------------------------------

    def jobs_begin(self, title: str, total: int, done: int) -> None:
        """Starts the display of retrains."""
        self._title, self._jobs = title, (done, total)
        self._clock = _Clock(total, done, self._taken())
        if self.console.is_terminal:
            self._open()
        else:
            self._say(f"{title}: {total} trainings" + (f", {done} done before" if done else ""))

    def job_ended(self, name: str, result: Mapping[str, Any]) -> None:
        """One line per retrain that says something, or a new frame."""
        done, total = self._jobs
        self._jobs = (done + 1, total)
        if "failed" in result:
            self._say(f"{name} failed: {result['failed']}")
        elif self._live is None:
            self._say(f"{name} done [{done + 1}/{total}, {self._clock.line(done + 1)}]")
        self._refresh(force=True)

    def jobs_finish(self, *, interrupted: bool) -> None:
        """Leaves the last frame on the screen."""
        self._close()
        if interrupted:
            self._say("interrupted; --resume goes on from here")

    # --- frames ---------------------------------------------------------------------------

    def frame(self) -> RenderableType:
        """What the terminal shows now."""
        if self._study is None:
            done, total = self._jobs
            return self._head(self._title, done, total, self._clock.line(done))
        done = self._ended_count()
        title = f"{self._study.name}, {self._slots} at once"
        parts: list[RenderableType] = [
            self._head(title, done, self._budget, self._clock.line(done)),
            Text.from_markup(self._counts_text(markup=True)),
        ]
        best = self._study.best()
        if best is not None:
            parts.append(
                Text.from_markup(
                    f"best [bold]{self._study.value(best):.4f}[/bold] {self._study.metric}, "
                    f"trial {best.number}"
                )
            )
            parts.append(_params(self._study.space.active_params(best.params), self.console.width))
        return Group(*parts)

    def _taken(self) -> Callable[[], float] | None:
        """Who knows what is left of what begins now."""
        left, self._left = self._left, None
        return left

    def _of(self, count: int) -> str:
        return f"{count}" if self._budget is None else f"{count}/{self._budget}"

    def _head(self, title: str, done: int, total: int | None, clock: str) -> RenderableType:
        grid = Table.grid(expand=True, padding=(0, 1))
        grid.add_column(no_wrap=True)
        grid.add_column(ratio=1)
        grid.add_column(no_wrap=True)
        grid.add_column(no_wrap=True, justify="right")
        counted = f"{done} trials" if total is None else f"{done}/{total}"
        bar: RenderableType = Text("")
        if total is not None:
            bar = ProgressBar(total=max(1, total), completed=done)
        grid.add_row(Text(title, style="bold"), bar, counted, Text(clock, style="dim"))
        return grid

    def _counts_text(self, *, markup: bool = False) -> str:
        assert self._study is not None
        counts = self._study.counts()
        parts = [
            ("done", counts["COMPLETE"], "green"),
            ("running", counts["RUNNING"], "cyan"),
            ("pruned", counts["PRUNED"], "yellow"),
            ("failed", counts["FAIL"], "red"),
        ]
        if not markup:
            return ", ".join(f"{count} {name}" for name, count, _ in parts)
        return "   ".join(
            f"[{style if count else 'dim'}]{count} {name}[/]" for name, count, style in parts
        )

    def _say_best(self) -> None:
        best = self._study.best() if self._study else None
        if best is not None and self._study is not None:
            self._say(f"best: trial {best.number}, {self._numbers(best)}")
            for name, value in self._study.space.active_params(best.params).items():
                self._say(f"  {name}: {shown(value)}")

    def _numbers(self, trial: FrozenTrial) -> str:
        assert self._study is not None
        text = f"{self._study.metric} {self._study.value(trial):.4f}"
        return f"{text}, {trial.values[1]:.2f} ms an image" if self._study.latency else text

    def _ended_count(self) -> int:
        counts = self._study.counts() if self._study else {}
        return sum(counts.get(state, 0) for state in ("COMPLETE", "PRUNED", "FAIL"))

    def _say(self, text: str) -> None:
        self.console.print(text, markup=False)

    def _open(self) -> None:
        self._close()
        self._live = Live(
            self.frame(), console=self.console, auto_refresh=False, redirect_stderr=True
        )
        self._live.start(refresh=True)

    def _refresh(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if self._live is None or (not force and now - self._refreshed < REFRESH_SECONDS):
            return
        self._refreshed = now
        self._live.update(self.frame(), refresh=True)

    def _close(self) -> None:
        if self._live is not None:
            self._live.update(self.frame(), refresh=True)
            self._live.stop()
            self._live = None


def _params(params: Mapping[str, Any], width: int) -> RenderableType:
    """Names and values in two pairs of columns where they fit."""
    items = [(name, shown(value)) for name, value in params.items()]
    longest = max((len(name) + len(value) + 6 for name, value in items), default=0)
    pairs = 2 if len(items) > 5 and 2 * longest <= width else 1
    rows = -(-len(items) // pairs)
    grid = Table.grid(padding=(0, 2))
    for row in range(rows):
        cells: list[RenderableType] = []
        for column in range(pairs):
            index = column * rows + row
            name, value = items[index] if index < len(items) else ("", "")
            cells += [Text(f"  {name}", style="dim"), Text(value)]
        grid.add_row(*cells)
    return grid
