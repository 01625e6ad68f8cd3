"""The display of a running search: a live table on a terminal, else plain lines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console, Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from gsfl_tune.activity import current, duration
from gsfl_tune.activity.display import Display
from gsfl_tune.experiment.metrics import LATENCY
from gsfl_tune.search.observers.base import OVER, States, Watcher
from gsfl_tune.search.study.goals import knn_by_epoch
from gsfl_tune.search.workers.replicates import error_text, errors_of

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from gsfl_tune.search.study.study import Study

# The rate of a single trial is too uncertain for an estimate.
TRIALS_BEFORE_ESTIMATE = 2
# Most running trials that are shown, in a line and in a table.
_IN_LINE, _IN_TABLE = 3, 8
_ESTIMATE_SECONDS = 0.5


def shown(value: Any) -> str:
    """Formats a parameter's value briefly."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


class _Clock:
    """Measures the elapsed time and estimates the rest.

    Args:
        total: Number of counted pieces; None where only time ends the phase.
        done: Number of pieces done before.
        left: Returns how many seconds are left; default: the average time per piece so far.
    """

    def __init__(
        self, total: int | None, done: int, left: Callable[[], float] | None = None
    ) -> None:
        self._start = time.monotonic()
        self._total = total
        self._left = left
        self._first: tuple[float, int] | None = None
        self._before = done
        # Seconds that are left, and the time of that estimate.
        self._known: tuple[float, float] | None = None

    def look(self) -> None:
        """Updates the estimate, in the thread that owns the data and not in that of the display."""
        now = time.monotonic()
        if self._left is not None and (
            self._known is None or now - self._known[1] >= _ESTIMATE_SECONDS
        ):
            self._known = self._left(), now

    def line(self, done: int) -> str:
        """Returns ``2:03, about 4:10 left``, without the estimate as long as there is none."""
        now = time.monotonic()
        text = duration(now - self._start)
        if self._left is not None:
            if self._known is None:
                return text
            left, at = self._known
            return f"{text}, about {duration(max(0.0, left - (now - at)))} left"
        if self._first is None:
            # The first piece includes worker starts and cold caches, so it does not count.
            if done > self._before:
                self._first = (now, done)
            return text
        since, already = self._first
        fresh = done - already
        if self._total is not None and fresh >= TRIALS_BEFORE_ESTIMATE and done < self._total:
            text += f", about {duration((now - since) / fresh * (self._total - done))} left"
        return text


class Progress(Watcher):
    """Shows the progress of a run.

    A separate thread shows what the driver does and what its trials do (see
    `gsfl_tune.search.ray_tune.heartbeat`). It reads only what was stored here at each event.

    Args:
        console: Output; default standard output. A live table on a terminal, else one line per
            important event, and one after some seconds without any line.
        display: Draws the output; default: a display on `console`.
    """

    def __init__(self, console: Console | None = None, display: Display | None = None) -> None:
        self.display = display or Display(console)
        self.display.text = self._line
        self.display.lines = self._rows
        self.console = self.display.console
        self._study: Study | None = None
        self._budget: int | None = 0
        self._left: Callable[[], float] | None = None
        self._states: States | None = None
        self._slots = 0
        self._best: FrozenTrial | None = None
        self._best_text = ""
        self._counts: Mapping[str, int] = {}
        self._clock = _Clock(0, 0)
        self._title = ""
        self._jobs: tuple[int, int] | None = None

    def __enter__(self) -> Progress:
        self.display.start()
        return self

    def __exit__(self, *error: object) -> None:
        # After an error in a study, no event has ended it.
        self._study, self._jobs, self.display.body = None, None, None
        self.display.close()

    # --- a study --------------------------------------------------------------------------

    def expects(self, left: Callable[[], float]) -> None:
        """Stores the source of the remaining time."""
        self._left = left

    def hears(self, states: States) -> None:
        """Stores the source of the trials' and retrains' states."""
        self._states = states

    def begin(self, study: Study, budget: int | None, slots: int) -> None:
        """Starts the display of a study."""
        self._study, self._budget, self._slots = study, budget, slots
        self._note()
        done = self._ended_count()
        self._clock = _Clock(budget, done, self._taken())
        self._clock.look()
        self.display.body = self.frame
        self.display.start()
        if not self.console.is_terminal:
            before = f", {done} of them finished before" if done else ""
            trials = "as many trials as there is time for" if budget is None else f"{budget} trials"
            self._say(f"{study.name}: {trials}{before}, {slots} at once")

    def started(self, number: int, params: Mapping[str, Any], *, again: bool) -> None:
        """Shows a line for a trial that an earlier driver had begun."""
        if again:
            self._say(f"trial {number} continues where it stopped")
        self._note()
        self.display.refresh()

    def paused(self, number: int) -> None:
        """Shows one line, or a new frame."""
        self.ended(number)

    def ended(self, number: int) -> None:
        """Shows one line per trial, or a new frame."""
        if self._study is None:
            return
        self._note()
        is_best = self._best is not None and self._best.number == number
        if self.console.is_terminal:
            self.display.refresh()
            return
        trial = self._study.trial(number)
        state = trial.state.name
        rungs = self._study.rungs(trial)
        if state == "COMPLETE":
            text = f"complete, {self._numbers(trial)}" + (" (best so far)" if is_best else "")
        elif state == "PRUNED" and not rungs:
            text = "stopped before its first rung"
        elif state in ("PRUNED", "RUNNING"):
            last, stopped = max(rungs), state == "PRUNED"
            if last < 0:
                epoch, accuracy = list(knn_by_epoch(trial).items())[-1]
                text = "pruned" if stopped else "paused"
                text += f" at pretraining epoch {epoch}, kNN accuracy {accuracy:.4f}"
            else:
                text = f"pruned at rung {last}" if stopped else f"paused at rung {last}"
                text += f", {self._study.metric} {rungs[last]:.4f}{error_text(trial)}"
        else:
            text = f"failed: {trial.user_attrs.get('reason', 'unknown')}"
        count = self._ended_count()
        self._say(f"trial {number} {text} [{self._of(count)}, {self._clock.line(count)}]")

    def notice(self, text: str) -> None:
        """Prints a message above the table."""
        self._say(text)

    def tick(self) -> None:
        """Updates the estimate now and then."""
        self._clock.look()

    def finish(self, *, interrupted: bool) -> None:
        """Leaves the last frame on the screen."""
        if self._study is None:
            return
        self._note()
        self._close()
        if interrupted:
            self._say("interrupted; --resume continues from here")
        elif not self.console.is_terminal:
            self._say(f"{self._study.name}: {self._counts_text()}")
            self._say_best()
        self._study = None

    # --- retrains -------------------------------------------------------------------------

    def jobs_begin(self, title: str, total: int, done: int) -> None:
        """Starts the display of retrains."""
        self._title, self._jobs = title, (done, total)
        self._clock = _Clock(total, done, self._taken())
        self._clock.look()
        self.display.body = self.frame
        self.display.start()
        if not self.console.is_terminal:
            trainings = f"{total} training" + "s" * (total > 1)
            self._say(f"{title}: {trainings}" + (f", {done} done before" if done else ""))

    def job_ended(self, name: str, result: Mapping[str, Any]) -> None:
        """Shows one line per retrain, or a new frame."""
        done, total = self._jobs or (0, 0)
        self._jobs = (done + 1, total)
        if "failed" in result:
            self._say(f"{name} failed: {result['failed']}")
        elif not self.console.is_terminal:
            self._say(f"{name} done [{done + 1}/{total}, {self._clock.line(done + 1)}]")
        self.display.refresh()

    def jobs_finish(self, *, interrupted: bool) -> None:
        """Leaves the last frame on the screen."""
        self._close()
        self._jobs = None
        if interrupted:
            self._say("interrupted; --resume continues from here")

    # --- current activity -----------------------------------------------------------------
    # The display's thread calls these: attributes that may be reset meanwhile are read only once.

    def _line(self) -> str:
        """Returns the current activity in a line; empty if unknown."""
        one = current()
        urgent = one is not None and one.urgent
        head = self._head_text()
        parts = [one.text()] if one is not None and (urgent or head is None) else []
        if head is not None and not urgent:
            parts.append(head)
        parts += self._trials(_IN_LINE)
        if len(parts) == 1 and head is not None and one is not None:
            parts.append(one.text())
        return "; ".join(parts)

    def _rows(self) -> list[str]:
        """Returns the same for the place below the table, which shows the rest."""
        one = current()
        trials = [f"  {line}" for line in self._trials(_IN_TABLE)]
        shows = one is not None and (one.urgent or not trials)
        return ([one.text()] if one is not None and shows else []) + trials

    def _head_text(self) -> str | None:
        """Returns the progress of study or retrains; None between them."""
        study, jobs = self._study, self._jobs
        if study is not None:
            done = self._ended_count()
            return f"{study.name} {self._of(done)}, {self._clock.line(done)}"
        if jobs is not None:
            done, total = jobs
            return f"{self._title} {done}/{total}, {self._clock.line(done)}"
        return None

    def _trials(self, most: int) -> list[str]:
        """Returns what trials or retrains do, one text each."""
        states = self._states
        if states is None or (self._study is None and self._jobs is None):
            return []
        found = [f"{name}: {said.text if said else 'starting'}" for name, said in states().items()]
        if len(found) > most:
            found = [*found[: most - 1], f"and {len(found) - most + 1} more"]
        return found

    # --- frames ---------------------------------------------------------------------------

    def frame(self) -> RenderableType:
        """Returns the content of the terminal without the current activity."""
        study = self._study
        if study is None:
            done, total = self._jobs or (0, 0)
            return self._head(self._title, done, total, self._clock.line(done))
        done = self._ended_count()
        title = f"{study.name}, {self._slots} at once"
        parts: list[RenderableType] = [
            self._head(title, done, self._budget, self._clock.line(done)),
            Text.from_markup(self._counts_text(markup=True)),
        ]
        best = self._best
        if best is not None:
            words = ("best ", (self._best_text, "bold"), f" {study.metric}, trial {best.number}")
            parts.append(Text.assemble(*words))
            parts.append(_params(study.space.active_params(best.params), self.console.width))
        return Group(*parts)

    def _note(self) -> None:
        """Stores what the frame shows of the study, which another thread must not read."""
        assert self._study is not None
        best = self._study.best()
        self._best_text = "" if best is None else f"{self._study.value(best):.4f}"
        self._best, self._counts = best, self._study.states()

    def _taken(self) -> Callable[[], float] | None:
        """Returns, and resets, the source of the remaining time for the phase that begins."""
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
        counts = self._counts
        parts = [
            ("done", counts["COMPLETE"], "green"),
            ("running", counts["RUNNING"], "cyan"),
            *([("paused", counts["PAUSED"], "blue")] if counts["PAUSED"] else []),
            ("pruned", counts["PRUNED"], "yellow"),
            ("failed", counts["FAIL"], "red"),
        ]
        if not markup:
            return ", ".join(f"{count} {name}" for name, count, _ in parts)
        return "   ".join(
            f"[{style if count else 'dim'}]{count} {name}[/]" for name, count, style in parts
        )

    def _say_best(self) -> None:
        best = self._best
        if best is not None and self._study is not None:
            self._say(f"best: trial {best.number}, {self._numbers(best)}")
            for name, value in self._study.space.active_params(best.params).items():
                self._say(f"  {name}: {shown(value)}")

    def _numbers(self, trial: FrozenTrial) -> str:
        assert self._study is not None
        text = f"{self._study.metric} {self._study.value(trial):.4f}{error_text(trial)}"
        for key, value in zip(self._study.goals.further, trial.values[1:], strict=True):
            text += f", {value:.2f} ms per image" if key == LATENCY else f", {key} {value:.4g}"
            error = errors_of(trial).get(key)
            text += f" ± {error:.2g}" if error is not None and error > 1e-9 else ""
        return text

    def _ended_count(self) -> int:
        return sum(self._counts.get(state, 0) for state in OVER)

    def _say(self, text: str) -> None:
        self.display.say(text)

    def _close(self) -> None:
        """Leaves the last frame on the screen and removes what is redrawn."""
        if self.console.is_terminal and self.display.body is not None:
            self.display.show(self.frame())
        self.display.body = None
        self.display.stop()


def _params(params: Mapping[str, Any], width: int) -> RenderableType:
    """Formats names and values in two pairs of columns where they fit."""
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
