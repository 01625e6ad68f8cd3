"""A training that several processes do together: how they come together, and what they join."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from gsfl_tune.training.create_context import random_devices
from gsfl_tune.training.process_group import Ranks, Team
from gsfl_tune.training.seeds import mix

if TYPE_CHECKING:
    from gsfl_tune.training.context import StageContext
    from gsfl_tune.training.stages import Stage
    from gsfl_tune.training.timeline import StageName, Timeline


class DividedTraining:
    """Holds the part of a training that concerns further processes, its ranks.

    Where they divide the parameters too (`gsfl_tune.training.sharding`), no process has the whole
    model while they train. The whole state is then joined for every checkpoint, and before rank 0
    uses the model alone; training goes on from that state as from a checkpoint.
    """

    seed: int
    context: StageContext
    timeline: Timeline
    _stage: Stage | None
    _team: Team | None
    # The whole state on the CPU, while no stage has it.
    _kept: dict[str, Any] | None

    @property
    def ranks(self) -> Ranks | None:
        """Returns the processes that train with this one."""
        return self.context.ranks

    @ranks.setter
    def ranks(self, ranks: Ranks | None) -> None:
        self.context.ranks = ranks

    def follow(self, ranks: Ranks) -> None:
        """Joins as a further rank: takes the state of rank 0, which decides from now on."""
        self.ranks = ranks
        state = ranks.receive()
        self.context.epoch = state["epoch"]
        self.context.compute_in(state.get("precision"))
        stage = self._divide(ranks.share.size, starting=False)
        if ranks.shards:
            stage.shard(ranks)
        stage.load_state_dict(state)

    def join_state(self) -> None:
        """Takes part in the joining of a state that rank 0 asks for; the result is rank 0's."""
        assert self._stage is not None
        self._stage.state_dict()

    def close(self) -> None:
        """Releases the other ranks."""
        self.ranks = None
        if self._team is not None:
            self._team.leave()

    @property
    def _is_sharded(self) -> bool:
        return self._stage is not None and self._stage.shards is not None

    @property
    def _apart_in(self) -> StageName | None:
        """Returns the stage whose state no stage of this process has as a whole, or None."""
        if self._stage is not None and self._is_sharded:
            return self._stage.name
        if self._kept is None:
            return None
        return self.timeline.stage(max(0, self.context.epoch - 1)).name

    def _gather(self, team: Team) -> Ranks:
        """Starts the other ranks, which receive the state of this one."""
        kept, self._kept = self._kept, None
        if kept is not None:
            self._stage = None  # at most made for reading
        with torch.random.fork_rng(devices=random_devices(self.context.device)):
            torch.manual_seed(mix(self.seed, self.context.epoch))
            stage = self._divide(team.size, starting=True)
        ranks = team.start(self)  # type: ignore[arg-type]
        state = kept or self._state()
        ranks.send(state)
        if team.shards:
            stage.shard(ranks)
            stage.load_state_dict(state)
        return ranks

    def _divide(self, size: int, *, starting: bool) -> Stage:
        stage = self._enter(self.timeline.stage(self.context.epoch).name, starting=starting)
        if self.ranks is None:  # else it is divided already
            stage.divide(size)
        return stage

    def _collect(self) -> None:
        """Keeps the whole state of divided parameters here and releases the other ranks."""
        self._kept = self._state()
        self.close()
        self._stage = None

    def _keeps(self, state: dict[str, Any]) -> bool:
        """Keeps a checkpoint's state for the ranks, where this process alone has no room for it.

        Returns:
            Whether it did: where the epoch behind it is of the same stage, whose parameters will be
            divided.
        """
        epoch = state["epoch"]
        if self._team is None or not self._team.shards or epoch >= self.timeline.total:
            return False
        following = self.timeline.stage(epoch)
        if not following.divided or self.timeline.stage(max(0, epoch - 1)) != following:
            return False
        self._kept = state
        return True

    def _joined_state(self, stage: Stage) -> dict[str, Any]:
        """Returns the state of a stage, with all ranks where they have parts of it."""
        if not self._is_sharded or self._team is None or self.context.share.rank:
            return stage.state_dict()
        with self._team.watching():
            self._team.next_state()
            return stage.state_dict()

    def _enter(self, name: StageName, *, starting: bool = True) -> Stage:
        raise NotImplementedError

    def _state(self) -> dict[str, Any]:
        raise NotImplementedError
