"""A team of two processes that trains together."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from gsfl_tune.search.workers.rank_pool import RankProcesses, team_of


@pytest.fixture(scope="module")
def team() -> Iterator[RankProcesses]:
    """Two ranks; their processes serve all tests of a file."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    team = team_of(2)
    assert team is not None
    yield team
    team.dismiss()
    torch.set_num_threads(threads)
