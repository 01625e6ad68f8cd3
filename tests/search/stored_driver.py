"""A search kept in a storage, in a process of its own with a Ray of its own.

``python -m tests.search.stored_driver RUN CACHE URL [OVERRIDE ...]``. No worker sees the run
directory: what trials leave is in the storage alone. A run that is there is resumed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console

from gsfl_tune.cluster import Slots, ray_session
from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory, run_lock, write_json
from gsfl_tune.search import (
    Interrupt,
    Progress,
    StorageWatcher,
    stored_run,
)
from tests.search.experiments import experiment, searched


def main(path: str, cache: str, url: str, *overrides: str) -> int:
    run = RunDirectory(path)
    progress = Progress(Console(highlight=False, width=300))
    tiny = experiment(f"storage={url}", *overrides)
    try:
        with (
            run_lock(run),
            stored_run(tiny, run, progress.notice, resume=True) as storage,
            ray_session(cpus=2),
        ):
            assert storage is not None
            storage.address = storage.address.model_copy(update={"token": "of another machine"})
            interrupt = Interrupt(run)
            write_json(run.manifest_file, {"format": 1})
            watchers = [progress, StorageWatcher(storage, interrupt, progress.notice)]
            storage.start()
            outcome = searched(
                tiny,
                run,
                resources=Slots(cpu=1, gpu=0, count=1),
                cache_dir=Path(cache),
                watchers=watchers,
                interrupt=interrupt,
                save_seconds=0.5,
                storage=storage,
            )
            interrupt.clear()
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    return 3 if outcome.interrupted else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
