from __future__ import annotations

from collections.abc import Iterator

import pytest

from gsfl_tune.cluster import ray_session


@pytest.fixture(scope="session")
def ray_of_tests() -> Iterator[None]:
    with ray_session(cpus=2):
        yield
