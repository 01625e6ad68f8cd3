import pytest
from threadpoolctl import threadpool_limits


@pytest.fixture(autouse=True)
def one_thread():
    """Small matrices: threads of several test processes would only wait for each other."""
    with threadpool_limits(1):
        yield
