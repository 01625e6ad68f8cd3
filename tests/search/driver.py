"""A search in a process of its own, to be killed: ``python -m tests.search.driver RUN CACHE``.

Joins the Ray at RAY_ADDRESS, or starts its own.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from gsfl_tune.cluster import Slots, ray_session
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory, run_lock
from gsfl_tune.search import Interrupt, Progress
from tests.search.experiments import experiment, searched


def main(path: str, cache: str, *overrides: str) -> int:
    run = RunDirectory(path)
    try:
        with run_lock(run), ray_session(cpus=2):
            interrupt = Interrupt(run)
            outcome = searched(
                experiment(*overrides),
                run,
                resources=Slots(cpu=1, gpu=0, count=2),
                cache_dir=Path(cache),
                watchers=[Progress(Console(highlight=False, width=200))],
                interrupt=interrupt,
                save_seconds=0.1,
            )
            interrupt.clear()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 3 if outcome.interrupted else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
