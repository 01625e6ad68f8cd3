"""The process of a further rank of a trial, started by `gsfl_tune.search.workers.rank_pool`.

Commands arrive as JSON lines on standard input, reports leave as JSON lines on standard output. The
process ends when its input ends, whatever it is doing. Nothing else would end it after its trial's
worker was killed.
"""

from __future__ import annotations

import gc
import json
import os
import queue
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO, Any


def main() -> None:
    """Takes part in one training after another."""
    # Output of a library must not look like a report.
    reports = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    commands: queue.Queue[dict[str, Any]] = queue.Queue()
    threading.Thread(target=_listen, args=(commands,), daemon=True).start()
    try:
        while True:
            command = commands.get()
            if "train" in command:
                _train(command["train"], commands, reports)
    except BaseException as error:
        from gsfl_tune.search.workers.rank_process import kind_of

        message = str(error) or type(error).__name__
        _report(reports, {"broken": {"kind": kind_of(error), "message": message}})
        # Not a regular exit: that waits for a group that other ranks may have left.
        os._exit(1)


def _listen(commands: queue.Queue[dict[str, Any]]) -> None:
    for line in sys.stdin:
        commands.put(json.loads(line))
    os._exit(0)


def _report(reports: IO[str], message: dict[str, Any]) -> None:
    reports.write(json.dumps(message) + "\n")
    reports.flush()


def _train(task: dict[str, Any], commands: queue.Queue[dict[str, Any]], reports: IO[str]) -> None:
    import torch

    from gsfl_tune.data.folds import Fold
    from gsfl_tune.search.workers.pretraining_team import begin_pretraining
    from gsfl_tune.search.workers.rank_pool import RankTask
    from gsfl_tune.search.workers.rank_process import ADDRESS
    from gsfl_tune.search.workers.workspaces import open_workspace
    from gsfl_tune.training.fold_workspace import FoldWorkspace
    from gsfl_tune.training.pretrain import Pretraining, PretrainingFailed
    from gsfl_tune.training.process_group import Ranks, meet
    from gsfl_tune.training.training import NonFiniteLoss, Training

    trained: Training | Pretraining
    job = RankTask.model_validate(task)
    torch.set_num_threads(job.threads)
    workspace = open_workspace(job.config.data, job.side, job.cache_dir, job.storage)
    if job.fold is not None:
        workspace = FoldWorkspace(workspace, Fold(*job.fold))
    if job.pretraining:
        trained = begin_pretraining(job.config, workspace, job.directory, job.pretraining)
    else:
        trained = Training(
            job.config, workspace, job.directory, seed=job.seed, fit=job.fit, pieces=job.pieces
        )
    _report(reports, {"ready": True})
    meeting, own = job.meeting, os.environ.get(ADDRESS)
    ranks = Ranks(
        job.rank,
        job.size,
        meeting if isinstance(meeting, Path) else meet(meeting[0], job.size, meeting[1]),
        trained.device,
        shards=job.shards,
        address=own,
    )
    trained.follow(ranks)
    while "end" not in (command := commands.get()):
        if "state" in command and isinstance(trained, Training):
            trained.join_state()
            continue
        with suppress(NonFiniteLoss, PretrainingFailed):  # rank 0 reports it
            trained.run_epoch()
    ranks.close()
    del trained
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()


if __name__ == "__main__":
    main()
