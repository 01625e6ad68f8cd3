"""What a user asks to be told is checked before the search starts, and nothing else is opened."""

from __future__ import annotations

import socket
import sys

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.search.observers.telemetry import Telemetry, open_telemetry


def free_port() -> int:
    with socket.socket() as place:
        place.bind(("127.0.0.1", 0))
        port: int = place.getsockname()[1]
        return port


def listening(port: int) -> bool:
    with socket.socket() as other:
        return other.connect_ex(("127.0.0.1", port)) == 0


def test_nothing_is_made_unless_it_is_asked_for() -> None:
    said: list[str] = []
    assert open_telemetry(run="tiny", notice=said.append) == []
    assert said == []


def test_both_are_made_and_the_page_is_named() -> None:
    pytest.importorskip("opentelemetry.sdk")
    said: list[str] = []
    port = free_port()
    # A collector that does not answer costs nothing before there is a span.
    found = open_telemetry(
        metrics=f"127.0.0.1:{port}", traces="http://127.0.0.1:9", run="tiny", notice=said.append
    )
    assert all(isinstance(each, Telemetry) for each in found)
    assert len(found) == 2
    assert said == [f"metrics for Prometheus: http://127.0.0.1:{port}/metrics"]
    assert listening(port)
    for each in found:
        each.close()


@pytest.mark.parametrize(
    ("metrics", "host"), [("[127.0.0.1]:0", "127.0.0.1"), ("localhost:0", "localhost"),
                          ("0", "127.0.0.1")],
)  # fmt: skip
def test_a_host_is_taken_with_and_without_brackets(metrics: str, host: str) -> None:
    said: list[str] = []
    (page,) = open_telemetry(metrics=metrics, run="tiny", notice=said.append)
    page.close()
    assert said[0].startswith(f"metrics for Prometheus: http://{host}:")


def test_a_wrong_collector_is_refused_before_a_port_is_opened() -> None:
    port = free_port()
    with pytest.raises(UserError, match="--traces nowhere: allowed http://HOST:4318"):
        open_telemetry(metrics=str(port), traces="nowhere", run="tiny", notice=lambda text: None)
    assert not listening(port)


@pytest.mark.parametrize(
    ("package", "asked", "option"),
    [
        ("prometheus_client", {"metrics": "0"}, "--metrics"),
        ("opentelemetry.sdk", {"traces": "http://127.0.0.1:9"}, "--traces"),
    ],
)
def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, package: str, asked: dict[str, str], option: str
) -> None:
    # As Python sees a package that is not installed.
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError) as refused:
        open_telemetry(**asked, run="tiny", notice=lambda text: None)  # type: ignore[arg-type]
    assert str(refused.value) == f"{option} needs a package: pip install 'gsfl-tune[telemetry]'"
