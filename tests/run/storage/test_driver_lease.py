from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from gsfl_tune.experiment import UserError
from gsfl_tune.run.storage import DriverLease, Storage, open_storage
from tests.waiting import wait_until


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    return open_storage(str(tmp_path / "kept"), create=True)


def _lease(storage: Storage, **options: Any) -> DriverLease:
    return DriverLease(storage, **{"beat_seconds": 0.2, "dead_seconds": 1.5, **options})


def test_a_second_driver_is_refused_while_the_first_is_alive(storage: Storage) -> None:
    first = _lease(storage)
    with pytest.raises(UserError, match=r"another search works.*process \d+.*without a sign"):
        _lease(storage)
    assert first.lost is None
    first.close()
    _lease(storage).close()
    assert storage.list() == {}


def test_a_driver_on_another_machine_is_watched_for_a_sign_of_life(storage: Storage) -> None:
    stop = threading.Event()

    def beat() -> None:
        number = 0
        while not stop.wait(0.2):
            number += 1
            content = {"host": "other", "pid": 1, "token": "t", "time": time.time(), "beat": number}
            storage.put("driver.json", json.dumps(content).encode())

    other = threading.Thread(target=beat)
    other.start()
    wait_until(lambda: storage.get("driver.json"), "the other driver has beaten")
    said: list[str] = []
    with pytest.raises(UserError, match="host other"):
        _lease(storage, notice=said.append)
    assert "waiting up to" in said[0]
    stop.set()
    other.join()
    # It is dead now: free after a while, whatever its clock says.
    lease = _lease(storage)
    assert lease.lost is None
    lease.close()


def test_that_of_a_killed_driver_of_this_machine_is_free_at_once(storage: Storage) -> None:
    process = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
    lease = _lease(storage, beat_seconds=60)
    content = json.loads(storage.get("driver.json") or b"")
    held = json.dumps({**content, "pid": process.pid, "token": "another"}).encode()
    storage.put("driver.json", held)
    with pytest.raises(UserError, match=f"process {process.pid}"):
        _lease(storage, dead_seconds=3600)
    process.kill()
    process.wait()
    said: list[str] = []
    _lease(storage, dead_seconds=3600, notice=said.append).close()
    assert said == []
    lease._stop.set()


def test_who_was_taken_over_gets_to_know(storage: Storage) -> None:
    lease = _lease(storage)
    content = json.loads(storage.get("driver.json") or b"")
    storage.put("driver.json", json.dumps({**content, "token": "x", "host": "other"}).encode())
    assert "host other" in wait_until(lambda: lease.lost or "", "it knows who has taken over")
    lease.close()
    assert json.loads(storage.get("driver.json") or b"")["token"] == "x"


def test_a_container_that_was_started_again_waits_for_its_own_lease(storage: Storage) -> None:
    """It has the same name, and no process of the one before can be seen."""
    content = {"host": socket.gethostname(), "pid": 1, "boot": "before", "token": "t"}
    storage.put("driver.json", json.dumps({**content, "time": time.time()}).encode())
    said: list[str] = []
    _lease(storage, notice=said.append).close()
    assert "waiting up to" in said[0]
