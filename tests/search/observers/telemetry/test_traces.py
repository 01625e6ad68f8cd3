from __future__ import annotations

import gzip
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.run import RunDirectory
from gsfl_tune.search import open_study
from gsfl_tune.search.observers.telemetry import open_telemetry
from tests.search.experiments import experiment

trace_service = pytest.importorskip("opentelemetry.proto.collector.trace.v1.trace_service_pb2")


class Collector(ThreadingHTTPServer):
    """Takes what an OpenTelemetry collector takes."""

    def __init__(self, status: int = 200) -> None:
        self.spans: list = []
        self.paths: list[str] = []
        self.resources: dict[str, str] = {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers.get("Content-Encoding") == "gzip":
                    body = gzip.decompress(body)
                request = trace_service.ExportTraceServiceRequest.FromString(body)
                collector.paths.append(self.path)
                for resource in request.resource_spans:
                    for pair in resource.resource.attributes:
                        collector.resources[pair.key] = pair.value.string_value
                    for scope in resource.scope_spans:
                        collector.spans += scope.spans
                self.send_response(status)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.shutdown()
    collector.server_close()


def search(url: str, run: RunDirectory, said: list[str]) -> None:
    """A search of three trials: one ends, one fails, one is cut short by an interrupt."""
    (traces,) = open_telemetry(traces=url, run="tiny", notice=said.append)
    study = open_study(experiment(), run)
    traces.begin(study, 3, 1)
    for _ in range(3):
        asked = study.ask()
        assert asked is not None
        traces.proposed(0.05)
        traces.started(asked.number, asked.params, again=False)
    study.report(0, 0, 0.7)
    traces.rung(0, 0, 0.7)
    traces.occupied({"trial_number": 0, "checkpoint_seconds": 0.5}, 2.0)
    study.complete(0, 0.6, 1)
    traces.ended(0)
    study.fail(1, "loss is nan")
    traces.ended(1)
    traces.finish(interrupted=True)
    traces.job_ended("winner seed 0", {"seconds": 3.0})
    traces.close()
    study.close()


def test_a_collector_gets_a_span_of_every_trial(collector: Collector, run: RunDirectory) -> None:
    said: list[str] = []
    search(collector.url, run, said)
    assert said == []
    assert set(collector.paths) == {"/v1/traces"}
    assert collector.resources["gsfl_tune.run"] == "tiny"
    spans = {span.name: span for span in collector.spans}
    root = spans["search tiny"]
    assert {span.parent_span_id for span in collector.spans if span is not root} == {root.span_id}
    first = {pair.key: pair.value for pair in spans["trial 0"].attributes}
    assert first["state"].string_value == "COMPLETE"
    assert first["value"].double_value == 0.6
    assert "param.model.latent_dim" in first
    assert [event.name for event in spans["trial 0"].events] == ["rung", "checkpoints"]
    assert spans["trial 1"].status.message == "loss is nan"
    states = {pair.key: pair.value.string_value for pair in spans["trial 2"].attributes}
    assert states["state"] == "interrupted"
    proposal = spans["propose"]
    assert proposal.end_time_unix_nano - proposal.start_time_unix_nano == pytest.approx(5e7)
    retrain = spans["retrain winner seed 0"]
    assert retrain.end_time_unix_nano - retrain.start_time_unix_nano == pytest.approx(3e9)


def test_a_collector_that_refuses_costs_spans_and_is_told(run: RunDirectory) -> None:
    collector = Collector(status=400)
    said: list[str] = []
    url = collector.url.replace("://", "://me:hunter2@")
    search(f"{url}/custom/path", run, said)
    collector.shutdown()
    collector.server_close()
    assert set(collector.paths) == {"/custom/path"}
    (line,) = said
    assert line.startswith(f"--traces {url.replace('hunter2', '***')}/custom/path: ")
    assert "spans could not be sent" in line


@pytest.mark.parametrize(
    "text",
    ["collector:4318", "ftp://host", "http://", "http://[::1", "ftp://me:hunter2@host"],
)
def test_a_url_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UserError, match=r"--traces .*allowed http://HOST:4318") as refused:
        open_telemetry(traces=text, run="tiny", notice=lambda text: None)
    assert "hunter2" not in str(refused.value)
