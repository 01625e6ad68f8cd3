"""``run.json``: marks a directory as a run, says what made it and how long it has taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from threading import Event, RLock, Thread
from typing import Any

from gsfl_tune.experiment import Experiment, UserError
from gsfl_tune.experiment.errors import first_line
from gsfl_tune.run.atomic import read_json, write_json
from gsfl_tune.run.layout import RunDirectory

FORMAT = 1

# What a user may change to continue a run that is finished.
_SETTINGS = ("trials", "control", "finalists", "final_seeds", "enqueue", "time_budget", "target")

# When the space was changed last, in seconds since 1970.
SPACE_CHANGED = "space_changed"

# The time that a killed driver may lose.
SECONDS_BETWEEN_WRITES = 15.0


class Manifest:
    """Reads and writes the manifest of a run.

    Args:
        run: The run directory; it need not exist yet.
    """

    def __init__(self, run: RunDirectory) -> None:
        self.run = run
        # A clock writes in a thread of its own.
        self._lock = RLock()

    def check(self, *, resume: bool | None) -> None:
        """Refuses to begin a run over another one, and to continue a run that does not exist.

        Args:
            resume: Whether a run must exist; None accepts both.

        Raises:
            UserError: If the run exists and must not, or the other way round; says what to do.
        """
        path = self.run.path
        if not self.run.manifest_file.exists():
            if resume:
                raise UserError(f"{path}: found no run to resume; leave out --resume to begin one")
            return
        if resume is False:
            raise UserError(
                f"{path}: a run is there already; --resume continues it, --run-dir names another"
            )
        try:
            found = dict(read_json(self.run.manifest_file)).get("format")
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.run.manifest_file}: cannot be read ({error})") from error
        if found != FORMAT:
            raise UserError(
                f"{path}: found a run of format {found}, this version reads {FORMAT}; "
                "continue it with the version of gsfl-tune that began it"
            )

    def refuse_other_data(self, digest: str) -> None:
        """Refuses to continue a run with other images or another split.

        Raises:
            UserError: If the digest is not that of the run's first driver.
        """
        known = self._read().get("data")
        if known is not None and known != digest:
            raise UserError(
                f"{self.run.path}: the images or their split are not those that the run began "
                f"with (digest {digest[:12]}, was {known[:12]}); trials on different images "
                "cannot be compared: begin a new run, or continue it with the version of gsfl-tune "
                "that began it if the images are the same"
            )

    def finished(self, experiment: Experiment) -> bool:
        """Returns whether the run has results for these numbers of trials, finalists and seeds."""
        if not self.run.results_file.exists():
            return False
        # Runs of earlier versions lack newer settings, which were unset.
        known = {**dict.fromkeys(_SETTINGS), **self._read().get("settings", {})}
        return bool(known == _settings(experiment))

    def features(self) -> dict[str, Any] | None:
        """Returns how the run computes frozen features; None before it has begun.

        It is empty for a run that a version without the choice began.
        """
        return dict(self._read().get("features", {})) if self.run.manifest_file.exists() else None

    def begin(
        self,
        experiment: Experiment,
        *,
        data: str,
        environment: dict[str, Any],
        seconds: float,
        features: dict[str, Any] | None = None,
    ) -> None:
        """Writes the manifest; entries of earlier drivers are kept.

        For each driver it has the times of its begin and of its last write, in seconds since 1970.
        Time between two drivers does not count as search time.

        Results of an earlier, smaller budget are removed, as they are not the results of this run.

        Args:
            experiment: The experiment, bounds clamped to the data.
            data: Digest of the images and their split.
            environment: Versions and machine.
            seconds: Duration of the preflight.
            features: How frozen features are computed, and why.
        """
        known = self._read()
        self.run.results_file.unlink(missing_ok=True)
        before = known.get("seconds", {})
        changed = {key: known[key] for key in (SPACE_CHANGED,) if key in known}
        write_json(
            self.run.manifest_file,
            {
                **changed,
                "format": FORMAT,
                "name": experiment.name,
                "created": known.get("created", datetime.now(UTC).isoformat(timespec="seconds")),
                "settings": _settings(experiment),
                "data": data,
                "environment": environment,
                "features": features or {},
                "drivers": [*known.get("drivers", []), {"begin": _now(), "end": _now()}],
                "seconds": {
                    **before,
                    "preflight": round(before.get("preflight", 0.0) + seconds, 2),
                },
            },
        )

    def space_changed(self, when: float | None = None) -> None:
        """Notes that rungs have the numbers of another space from a time on; default: now."""
        with self._lock:
            content = self._read()
            if content:
                when = _now() if when is None else when
                write_json(self.run.manifest_file, {**content, SPACE_CHANGED: when})

    def last_begin(self) -> float:
        """Returns when the last driver began, in seconds since 1970; 0 if none is known."""
        drivers = self._read().get("drivers")
        return float(drivers[-1]["begin"]) if drivers else 0.0

    @contextmanager
    def clock(self, phase: str) -> Iterator[Clock]:
        """Adds the duration of a phase, also when it is interrupted; a resume adds to it.

        A thread writes it every few seconds, so that little is lost if this process is killed,
        whatever it is doing.
        """
        clock, over = Clock(self, phase), Event()
        thread = Thread(target=clock.keep, args=(over,), name=f"clock of {phase}", daemon=True)
        thread.start()
        try:
            yield clock
        finally:
            over.set()
            thread.join()
            clock.write()

    def elapsed(self, started: float, *, anew: bool = False) -> Callable[[], float]:
        """Returns a function that gives the seconds of the run so far, earlier drivers included.

        Args:
            started: When this driver began, by the monotonic clock.
            anew: Whether to leave earlier drivers out, because the run begins again.
        """
        before = 0.0 if anew else sum(self._read().get("seconds", {}).values())
        return lambda: before + time.monotonic() - started

    def seconds(self) -> dict[str, float]:
        """Returns the seconds of each phase and their ``total``."""
        seconds: dict[str, float] = self._read()["seconds"]
        return {**seconds, "total": round(sum(seconds.values()), 2)}

    def set_seconds(self, phase: str, seconds: float) -> None:
        """Writes the seconds of a phase so far, over all drivers."""
        with self._lock:
            content = self._read()
            content["seconds"][phase] = round(seconds, 2)
            for driver in content.get("drivers", [])[-1:]:
                driver["end"] = _now()
            write_json(self.run.manifest_file, content)

    @contextmanager
    def ending(self, *interruptions: type[BaseException]) -> Iterator[None]:
        """Notes how the driver ended: ``finished``, ``interrupted`` or ``failed`` with a reason.

        A driver that is killed notes nothing.

        Args:
            interruptions: Exceptions that mean that the driver was asked to stop.
        """
        stops: tuple[type[BaseException], ...] = (KeyboardInterrupt, *interruptions)
        try:
            yield
        except stops:
            self._note_end({"state": "interrupted"})
            raise
        except BaseException as error:
            self._note_end({"state": "failed", "reason": first_line(error)})
            raise
        self._note_end({"state": "finished"})

    def _note_end(self, ending: dict[str, str]) -> None:
        # A full disk, or a run directory that is gone, is told by what raised the error.
        with suppress(OSError, ValueError), self._lock:
            content = self._read()
            if content.get("drivers"):
                content["drivers"][-1] |= {"end": _now(), "ending": ending}
                write_json(self.run.manifest_file, content)

    def _read(self) -> dict[str, Any]:
        file = self.run.manifest_file
        content: dict[str, Any] = read_json(file) if file.exists() else {}
        return content


class Clock:
    """Measures the duration of a phase of a run, over all drivers.

    Args:
        manifest: Manifest with the time of earlier drivers.
        phase: Name of the phase.
    """

    def __init__(self, manifest: Manifest, phase: str) -> None:
        self._manifest = manifest
        self._phase = phase
        self._before = float(manifest.seconds().get(phase, 0.0))
        self._started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Returns the seconds of the phase, earlier drivers included."""
        return self._before + time.monotonic() - self._started

    def keep(self, over: Event) -> None:
        """Writes the time every few seconds until the phase is over.

        Args:
            over: Set at the end of the phase.
        """
        while not over.wait(SECONDS_BETWEEN_WRITES):
            # A full disk, or a run directory that is gone, ends the run elsewhere, with a message.
            with suppress(OSError, ValueError, LookupError):
                self.write()

    def write(self) -> None:
        """Writes the time to the manifest."""
        self._manifest.set_seconds(self._phase, self.seconds)


def _now() -> float:
    return round(time.time(), 2)


def _settings(experiment: Experiment) -> dict[str, Any]:
    search = experiment.defaults().search
    return {name: getattr(search, name) for name in _SETTINGS}
