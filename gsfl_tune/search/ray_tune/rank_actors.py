"""The further processes of a trial on any nodes of its placement group.

Where parameters are divided (``search.resources.shard``), a trial may need more GPUs than a node
has. Each further rank then has a bundle of the trial's placement group. An actor there starts the
same process as on one node (`gsfl_tune.search.workers.rank_process`) and passes on what it is told
and what it reports. Ray ends the actor with the trial's worker, and the process ends with it.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

import ray
import torch.distributed as dist
from ray.exceptions import RayError
from ray.util import get_current_placement_group, get_node_ip_address
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from gsfl_tune.search.ray_tune.worker_losses import failure
from gsfl_tune.search.workers.rank_pool import RankProcesses
from gsfl_tune.search.workers.rank_process import ADDRESS, Rank, RankLost, RankProcess, error_of
from gsfl_tune.training.process_group import Divided, Ranks, meet

# An actor that waits for news looks up once in a while.
_WAIT_SECONDS = 10.0
_END_SECONDS = 5.0


class NodeRanks(RankProcesses):
    """Holds the ranks from 1 on, each in its bundle of this process' placement group."""

    # Ray takes some seconds until it knows that a node is gone.
    _cause_seconds = 30.0

    def __init__(self, size: int, threads: int = 1, *, shards: bool = False) -> None:
        super().__init__(size, threads, shards=shards)
        self._address = get_node_ip_address()
        self._group: Any = None

    def start(self, training: Divided) -> Ranks:
        """Starts missing processes, and forms the group; see `RankProcesses.start`."""
        group = get_current_placement_group()
        if group != self._group:
            # Ray has ended what was in an earlier one, or is about to.
            self.leave()
            self._kill()
            self._group = group
        return super().start(training)

    def _begin(self, rank: int) -> Rank:
        return _RemoteRank(rank, self.threads, self._ended, self._group)

    def _meet(self) -> tuple[tuple[str, int], dist.Store]:
        assert self._address is not None
        store = meet(self._address, self.size)
        return (self._address, store.port), store

    def _cache_dir(self, training: Divided) -> Path | None:
        # Another node may have its default elsewhere.
        return self.cache_dir


class _RankActor:
    """Holds the process of a rank on the node of its bundle."""

    def __init__(self, rank: int, threads: int) -> None:
        self._changed = threading.Condition()
        self._count = 0
        own = {ADDRESS: get_node_ip_address()}
        self._process = RankProcess(rank, threads, self._note, self._note, own)

    def _note(self) -> None:
        with self._changed:
            self._count += 1
            self._changed.notify_all()

    def tell(self, message: dict[str, Any]) -> None:
        """Passes a command on."""
        self._process.tell(message)

    def news(self, known: int) -> tuple[int, dict[str, Any] | None, str | None]:
        """Waits for a report, or the end.

        Args:
            known: Number of changes that the caller knows of.

        Returns:
            Number of changes, the last report, and, if the process has ended, how.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._count > known, timeout=_WAIT_SECONDS)
            count = self._count
        report = self._process.report
        return count, report, None if self._process.alive else str(self._process.cause())

    def kill(self) -> None:
        """Ends the process, so that its GPU is free when this returns."""
        self._process.kill()


class _RemoteRank:
    """Holds one rank: its actor, and a thread that waits for its news."""

    def __init__(self, rank: int, threads: int, ended: Any, group: Any) -> None:
        self.rank = rank
        self.report: dict[str, Any] | None = None
        self._on_end = ended
        self._killed = False
        self._end: str | None = None
        options: dict[str, Any] = {"num_cpus": 0}
        if group is not None:
            bundle = group.bundle_specs[rank]
            options = {
                "num_cpus": bundle.get("CPU", 0),
                "num_gpus": bundle.get("GPU", 0),
                "scheduling_strategy": PlacementGroupSchedulingStrategy(
                    placement_group=group, placement_group_bundle_index=rank
                ),
            }
        # One thread waits for news, one takes commands, one ends the process.
        kind = ray.remote(max_concurrency=3, max_restarts=0)(_RankActor)
        self._actor = kind.options(**options).remote(rank, threads)
        self._thread = threading.Thread(target=self._listen, name=f"rank-{rank}", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Returns whether it runs and has not failed, as far as is known."""
        return self._end is None and "broken" not in (self.report or {})

    def tell(self, message: dict[str, Any]) -> None:
        """Sends a command and waits until it is there: commands must not overtake each other."""
        if "train" in message:
            self.report = None
        with suppress(RayError):
            ray.get(self._actor.tell.remote(message))

    def cause(self) -> Exception:
        """Returns why the process is gone."""
        self._thread.join(1.0)
        broken = (self.report or {}).get("broken")
        if broken is not None:
            return error_of(broken["kind"], f"rank {self.rank}: {broken['message']}")
        return RankLost(self._end or f"rank {self.rank}, a process of the trial, does not answer")

    def kill(self) -> None:
        """Ends the process and its actor."""
        self._killed = True
        with suppress(RayError):
            ray.get(self._actor.kill.remote(), timeout=_END_SECONDS)
        ray.kill(self._actor)

    def _listen(self) -> None:
        known = 0
        while self._end is None:
            try:
                known, report, end = ray.get(self._actor.news.remote(known))
            except RayError as error:
                end = self._lost(str(error))
            else:
                if report is not None:
                    self.report = report
            self._end = end
        if not self._killed:
            self._on_end()

    def _lost(self, text: str) -> str:
        which = f"rank {self.rank}, a process of the trial,"
        if failure(text).kind == "node":
            return f"{which} was lost with its node"
        return f"{which} died (its worker was ended)"
