"""The part of the Weights & Biases server that is used, on the loopback interface.

It keeps runs as the server does: what they were begun with, rows of their history, their summary.
What it answers is read off the requests of `wandb` 0.31: GraphQL from `wandb.Api` and `wandb.init`,
and the stream of files that carries history and summary.
"""

from __future__ import annotations

import gzip
import json
import re
import sys
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

ENTITY = "anna"
KEY = "k" * 40


@dataclass
class StoredRun:
    """One run on the server."""

    group: str | None = None
    name: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def tail(self) -> str:
        """The last row, as the server sends it to who continues the run."""
        return json.dumps([json.dumps(row) for row in self.history[-1:]])


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        # The client drops its connections when its process ends.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class WandbServer:
    """Listens while the block runs.

    Attributes:
        runs: By project and run id.
        unknown: Requests that it has no answer for; a test asserts that there are none.
    """

    def __init__(self) -> None:
        self.runs: dict[str, dict[str, StoredRun]] = {}
        self.unknown: list[str] = []
        self.asked: list[str] = []
        handler = type("Handler", (_Handler,), {"wandb": self})
        self._server = _Server(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> WandbServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    # --- GraphQL --------------------------------------------------------------------------

    def answer(self, query: str, given: dict[str, Any]) -> dict[str, Any]:
        """What the server says to a query."""
        found = re.search(r"(?:query|mutation)\s+(\w+)", query)
        name = found[1] if found else ""
        self.asked.append(name)
        act = getattr(self, f"_{_snake(name)}", None)
        if act is not None:
            return dict(act(given))
        if "viewer" in query:
            return {"viewer": {"id": "1", "entity": ENTITY, "username": ENTITY, "flags": "{}"}}
        self.unknown.append(query)
        return {}

    def _server_features_query(self, given: dict[str, Any]) -> dict[str, Any]:
        return {"serverInfo": {"features": []}}

    def _run_resume_status(self, given: dict[str, Any]) -> dict[str, Any]:
        run = self.runs.get(given["project"], {}).get(given["name"])
        bucket = None if run is None else _bucket(given["name"], run)
        if bucket is not None and run is not None:
            begun = json.dumps(run.config.get("_wandb", {}))
            bucket |= {"historyTail": run.tail, "eventsTail": "[]", "wandbConfig": begun}
        model = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": ENTITY}}
        return {"model": {**model, "bucket": bucket}}

    def _upsert_bucket(self, given: dict[str, Any]) -> dict[str, Any]:
        runs = self.runs.setdefault(given["project"], {})
        inserted = given["name"] not in runs
        run = runs.setdefault(given["name"], StoredRun())
        if given.get("groupName"):
            run.group = given["groupName"]
        run.name = given.get("displayName") or run.name
        for key, value in json.loads(given.get("config") or "{}").items():
            run.config[key] = value["value"]
        project = {"id": "p", "name": given["project"], "entity": {"id": "e", "name": ENTITY}}
        bucket = {**_bucket(given["name"], run), "project": project}
        return {"upsertBucket": {"bucket": bucket, "inserted": inserted}}

    def _create_run_files(self, given: dict[str, Any]) -> dict[str, Any]:
        # Its own copies of configuration and summary.
        files = [{"name": name, "uploadUrl": f"{self.url}/kept"} for name in given["files"]]
        return {"createRunFiles": {"runID": "r", "uploadHeaders": [], "files": files}}

    def _runs(self, given: dict[str, Any]) -> dict[str, Any]:
        if given["project"] not in self.runs:
            return {"project": None}
        group = json.loads(given["filters"]).get("group")
        runs = [pair for pair in self.runs[given["project"]].items() if pair[1].group == group]
        # A page at a time.
        first = int(given.get("cursor") or 0)
        page = runs[first : first + int(given.get("perPage") or 50)]
        edges = [
            {"node": {**_bucket(key, run), "projectId": "1"}, "cursor": str(first + place + 1)}
            for place, (key, run) in enumerate(page)
        ]
        more = first + len(page) < len(runs)
        end = {"endCursor": str(first + len(page)), "hasNextPage": more}
        pages = {"edges": edges, "pageInfo": end}
        facts = {"internalId": "1", "runCount": len(runs), "readOnly": False}
        return {"project": {**facts, "runs": pages}}

    # --- the stream of files --------------------------------------------------------------

    def stream(self, project: str, run_id: str, content: dict[str, Any]) -> None:
        """Takes rows of history, and the summary, which is replaced."""
        run = self.runs[project][run_id]
        files = content.get("files") or {}
        history = files.get("wandb-history.jsonl")
        if history is not None:
            rows = [json.loads(row) for row in history["content"]]
            run.history[history["offset"] :] = rows
        summary = files.get("wandb-summary.json")
        if summary is not None:
            run.summary = json.loads(summary["content"][-1])
        if content.get("complete"):
            run.exit_code = content.get("exitcode")


def _snake(name: str) -> str:
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def _bucket(key: str, run: StoredRun) -> dict[str, Any]:
    """A run, as every query of it sees it."""
    config = {name: {"value": value} for name, value in run.config.items()}
    return {
        "id": f"id-{key}",
        "name": key,
        "displayName": run.name,
        "description": None,
        "notes": None,
        "tags": [],
        "group": run.group,
        "jobType": None,
        "state": "running" if run.exit_code is None else "finished",
        "config": json.dumps(config),
        "summaryMetrics": json.dumps(run.summary),
        "systemMetrics": "{}",
        "sweepName": None,
        "historyLineCount": len(run.history),
        "logLineCount": 0,
        "eventsLineCount": 0,
        "historyKeys": None,
        "commit": None,
        "readOnly": False,
        "createdAt": "2026-01-01T00:00:00",
        "heartbeatAt": "2026-01-01T00:00:00",
        "user": {"name": ENTITY, "username": ENTITY},
    }


class _Handler(BaseHTTPRequestHandler):
    wandb: WandbServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        content = json.loads(body or b"{}")
        streamed = re.fullmatch(r"/files/[^/]+/([^/]+)/([^/]+)/file_stream", self.path)
        if self.path == "/graphql":
            given = content.get("variables") or {}
            self._send({"data": self.wandb.answer(content["query"], given)})
        elif streamed:
            self.wandb.stream(streamed[1], streamed[2], content)
            self._send({"exitcode": None, "limits": {}})
        else:
            self.wandb.unknown.append(f"POST {self.path}")
            self._send({}, 404)

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self._send({})

    def do_GET(self) -> None:
        self.wandb.unknown.append(f"GET {self.path}")
        self._send({}, 404)

    def _send(self, content: dict[str, Any], status: int = 200) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass
