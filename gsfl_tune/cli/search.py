"""``gsfl-tune search``: all steps from a YAML file to the best checkpoint."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from gsfl_tune.cli._base import (
    FAILED,
    FINISHED,
    INTERRUPTED,
    Command,
    add_budget,
    add_overrides,
    budget_overrides,
    load_experiment,
    refuse_change_without_resume,
)

if TYPE_CHECKING:
    from gsfl_tune.experiment import Experiment
    from gsfl_tune.run.results import Results
    from gsfl_tune.search.observers.terminal import Progress


_STOPS = {bytes([signal.SIGINT]), bytes([signal.SIGTERM])}
# By then a handler has answered, unless a call of a library blocks Python.
_ANSWERED_SECONDS = 0.3


class Search(Command):
    """Searches, retrains, tests and exports."""

    name = "search"
    help = "search a space, retrain and test the winner, export it"

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the arguments."""
        parser.add_argument(
            "file",
            metavar="FILE_OR_PATH",
            help="experiment file (YAML); or images, for which one is written as `init` does and "
            "kept as RUN/starter.yaml",
        )
        add_overrides(parser)
        parser.add_argument(
            "--run-dir", type=Path, metavar="DIR", help="run directory (default: runs/NAME)"
        )
        parser.add_argument(
            "--storage",
            metavar="URL",
            help="also keep the run at a path, s3://, gs://, ...; the same as --set storage=URL",
        )
        add_budget(parser)
        resume = parser.add_mutually_exclusive_group()
        resume.add_argument(
            "--resume",
            action="store_true",
            help="continue the run that is in the directory, or in the storage",
        )
        resume.add_argument(
            "--resume-if-begun",
            dest="resume",
            action="store_const",
            const=None,
            help="like --resume if there is a run, else begin it: for schedulers that start a "
            "command again",
        )
        parser.add_argument(
            "--change-space",
            action="store_true",
            help="with --resume: the file may have another space; trials that are configurations "
            "of it keep their states",
        )
        parser.add_argument(
            "--address",
            metavar="ADDR",
            help="address of a Ray cluster (default: RAY_ADDRESS, else Ray starts in this process)",
        )
        add_trackers(parser)
        parser.add_argument(
            "--metrics",
            metavar="[HOST:]PORT",
            help="serve numbers about the search to Prometheus, on 127.0.0.1 unless told otherwise",
        )
        parser.add_argument(
            "--traces",
            metavar="URL",
            help="send a span for each trial to an OpenTelemetry collector, as http://HOST:4318",
        )

    def run(self, args: argparse.Namespace) -> int:
        """Runs the pipeline and prints the answer."""
        refuse_change_without_resume(args)
        args.overrides = [*args.overrides, *budget_overrides(args)]
        if args.storage is not None:
            args.overrides = [*args.overrides, f"storage={args.storage}"]
        from gsfl_tune.activity import activity
        from gsfl_tune.cli._starter import experiment_of_images, names_images
        from gsfl_tune.search.observers.terminal import Progress

        # Shows activity from here on, as loading PyTorch and Ray takes seconds too.
        with Progress() as progress, stoppable() as stop_if_asked:
            with activity("reading the experiment, loading PyTorch"):
                if names_images(args.file):
                    experiment = experiment_of_images(args, progress.notice)
                else:
                    experiment = load_experiment(args)
            stop_if_asked()
            run_dir = args.run_dir or Path("runs") / experiment.name
            code = self._search(args, experiment, run_dir, progress, stop_if_asked)
        if code != FINISHED:
            return code
        from gsfl_tune.report import load_results, print_results

        print_results(load_results(run_dir))
        words = ["gsfl-tune", "report", str(run_dir), "--open"]
        print(f"Charts and evidence: {shlex.join(words)}")
        return FINISHED

    def _search(
        self,
        args: argparse.Namespace,
        experiment: Experiment,
        run_dir: Path,
        progress: Progress,
        stop_if_asked: Callable[[], None],
    ) -> int:
        from gsfl_tune.activity import activity

        with activity("loading Ray"):
            from gsfl_tune.pipeline import SearchFailed, SearchInterrupted, search
            from gsfl_tune.run import RunDirectory
            from gsfl_tune.run.storage import run_url
            from gsfl_tune.search.observers.telemetry import open_telemetry
            from gsfl_tune.search.observers.tracking import Tracking, open_trackers, redacted
        stop_if_asked()

        trackers = open_trackers(mlflow=args.mlflow, wandb=args.wandb)
        telemetry = open_telemetry(
            metrics=args.metrics,
            traces=args.traces,
            run=experiment.name,
            notice=progress.notice,
        )
        tracking = Tracking(trackers, RunDirectory(run_dir), progress.notice)
        results: Results | None = None
        progress.notice(f"run directory: {run_dir}")
        progress.notice(f"watch it: {shlex.join(['gsfl-tune', 'watch', str(run_dir)])}")
        storage = experiment.defaults().storage
        if storage is not None:
            progress.notice(f"storage: {run_url(storage, experiment.name)}")
        try:
            results = search(
                experiment,
                run_dir,
                resume=args.resume,
                change_space=args.change_space,
                address=args.address,
                watchers=[progress, tracking, *telemetry],
            )
        except (SearchInterrupted, KeyboardInterrupt):
            if not RunDirectory(run_dir).manifest_file.exists():
                raise  # nothing was begun, so nothing can be resumed
            words = ["gsfl-tune", "search", args.file, "--run-dir", str(run_dir), "--resume"]
            for override in args.overrides:
                words += ["--set", override]
            if args.address:
                words += ["--address", args.address]
            if args.mlflow:
                words += ["--mlflow", redacted(args.mlflow)]
            if args.wandb:
                words += ["--wandb", args.wandb]
            for option in ("metrics", "traces"):
                if getattr(args, option):
                    words += [f"--{option}", redacted(getattr(args, option))]
            progress.notice(
                f"interrupted; nothing finished is lost. Continue with:\n  {shlex.join(words)}"
            )
            return INTERRUPTED
        except OSError as error:
            # The files in the run directory are complete: every write is atomic.
            begun = RunDirectory(run_dir).manifest_file.exists()
            what = "the run stopped, --resume continues it" if begun else "the run could not begin"
            print(f"{run_dir}: {what}: {error}", file=sys.stderr)
            return FAILED
        except SearchFailed as error:
            print(f"{run_dir}: {error}", file=sys.stderr)
            return FAILED
        finally:
            with activity("sending the end of the run to the trackers"):
                tracking.close(results)
                for each in telemetry:
                    each.close()
        return FINISHED


@contextmanager
def stoppable() -> Iterator[Callable[[], None]]:
    """Handles Ctrl-C and SIGTERM at any stage of the search, and confirms them at once.

    While trials run, the search handles them itself (`gsfl_tune.search.control.interrupt`).

    Yields:
        Function that raises the interrupt again if there was one. Libraries may swallow it while
        they are imported, by an ``except`` without a class.
    """
    from gsfl_tune.activity import Activity, begin, current, end

    said: list[Activity] = []

    def say() -> None:
        one = current()
        if one is None or not one.urgent:
            words = "asked to stop: ending running work"
            said.append(begin(Activity(words, urgent=True)))

    asked = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        asked.set()
        say()
        raise KeyboardInterrupt

    def stop_if_asked() -> None:
        if asked.is_set():
            raise KeyboardInterrupt

    def unraisable(what: Any) -> None:
        # Raised in a callback, as of a module that is imported, where Python prints and drops it;
        # `stop_if_asked` raises it again.
        if not (asked.is_set() and what.exc_type is KeyboardInterrupt):
            reported(what)

    def listen() -> None:
        # Python's handlers wait for a library call to return, which may take seconds.
        while byte := os.read(reader, 1):
            if byte in _STOPS:
                time.sleep(_ANSWERED_SECONDS)
                say()

    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    woken = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    listener = threading.Thread(target=listen, name="signals", daemon=True)
    listener.start()
    reported, sys.unraisablehook = sys.unraisablehook, unraisable
    before = {each: signal.signal(each, stop) for each in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop_if_asked
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
        sys.unraisablehook = reported
        signal.set_wakeup_fd(woken)
        os.close(writer)
        listener.join()
        os.close(reader)
        for one in said:
            end(one)


def add_trackers(parser: argparse.ArgumentParser) -> None:
    """Adds --mlflow and --wandb for `search` and `track`."""
    parser.add_argument(
        "--mlflow",
        metavar="URI",
        help="log every trial to MLflow too, such as http://HOST:5000 or sqlite:///mlflow.db",
    )
    parser.add_argument(
        "--wandb",
        metavar="PROJECT",
        help="log every trial to Weights & Biases too: PROJECT or ENTITY/PROJECT",
    )
