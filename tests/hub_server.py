"""The part of the Hugging Face hub's API that is used, on the loopback interface.

It keeps commits of repositories as the hub does: small files in the commit, tensors by LFS. What it
answers is read off the requests of `huggingface_hub` 2.4.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import huggingface_hub
import pytest

TOKEN = "hf_a_token_of_the_tests"
OWNER = "anna"


@dataclass
class Repository:
    """Commits, the newest last, and the commit of every branch."""

    private: bool = False
    gated: bool = False
    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)

    def commit(self, branch: str, content: dict[str, bytes], message: str) -> str:
        number = hashlib.sha1(f"{len(self.commits)} {sorted(content)}".encode()).hexdigest()
        self.commits[number] = content
        self.branches[branch] = number
        self.messages.append(message)
        return number

    def at(self, revision: str) -> str | None:
        return self.branches.get(revision) or (revision if revision in self.commits else None)


class HubServer:
    """Listens while the block runs.

    Attributes:
        repositories: By OWNER/NAME.
        requests: Method and path of every request, in order.
        answer: Status and message for every request, if set: a hub with troubles.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.objects: dict[str, bytes] = {}
        self.answer: tuple[int, str] | None = None
        handler = type("Handler", (_Handler,), {"hub": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def put(self, name: str, content: dict[str, bytes]) -> str:
        """Makes a repository with one commit."""
        repository = self.repositories.setdefault(name, Repository())
        return repository.commit("main", content, "by the test")

    def __enter__(self) -> HubServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@contextmanager
def hub_in_use(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[HubServer]:
    """Runs a hub that the client asks, with this machine logged in and an empty cache."""
    constants = {
        "HF_HUB_CACHE": str(cache),
        # The hub's own protocol for large files is a program of its own; LFS is the other one.
        "HF_HUB_DISABLE_XET": True,
    }
    for name, value in constants.items():
        monkeypatch.setattr(huggingface_hub.constants, name, value)
        monkeypatch.setenv(name, "1" if value is True else str(value))  # for other processes
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


def _oid(data: bytes) -> str:
    """As git names a file."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def _is_large(path: str) -> bool:
    return path.endswith((".safetensors", ".onnx", ".pt2"))


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._handle()

    do_HEAD = do_POST = do_PUT = do_GET  # noqa: N815

    def _handle(self) -> None:
        length = int(self.headers.get("Content-Length") or 0)
        if self.headers.get("Transfer-Encoding") == "chunked":
            body = self._chunks()
        else:
            body = self.rfile.read(length)
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append(f"{self.command} {path}")
        if self.hub.answer is not None:
            status, message = self.hub.answer
            self._json({"error": message}, status)
            return
        for pattern, work in _ROUTES:
            found = re.fullmatch(pattern, f"{self.command} {path}")
            if found:
                work(self, body, *found.groups())
                return
        self._json({"error": f"{self.command} {path} is not part of this server"}, 500)

    def _chunks(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline().strip(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    @property
    def known(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {TOKEN}"

    def _json(self, content: Any, status: int = 200, **headers: str) -> None:
        self._send(json.dumps(content).encode(), status, Content_Type="application/json", **headers)

    def _send(self, data: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def _found(self, name: str) -> Repository | None:
        repository = self.hub.repositories.get(name)
        if repository is None or (repository.private and not self.known):
            self._json({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
            return None
        return repository

    def _at(self, name: str, revision: str) -> tuple[Repository, str] | None:
        repository = self._found(name)
        if repository is None:
            return None
        commit = repository.at(revision)
        if commit is None:
            self._json({"error": "Invalid rev id"}, 404, X_Error_Code="RevisionNotFound")
            return None
        return repository, commit

    def create(self, body: bytes) -> None:
        asked = json.loads(body)
        owner = asked.get("organization") or OWNER
        name = f"{owner}/{asked['name']}"
        if not self.known:
            self._json({"error": "Invalid username or password."}, 401)
        elif owner != OWNER:
            reason = f"You don't have the rights to create a model under the namespace {owner}"
            self._json({"error": reason}, 403)
        elif name in self.hub.repositories:
            url = f"{self.hub.url}/{name}"
            self._json({"error": "You already created this model repo", "url": url}, 409)
        else:
            repository = Repository(private=asked.get("visibility") == "private")
            repository.commit("main", {".gitattributes": b"*.safetensors lfs\n"}, "initial")
            self.hub.repositories[name] = repository
            self._json({"url": f"{self.hub.url}/{name}", "name": name})

    def info(self, body: bytes, name: str, revision: str | None) -> None:
        found = self._at(name, revision or "main")
        if found:
            repository, commit = found
            siblings = [{"rfilename": path} for path in repository.commits[commit]]
            self._json(
                {
                    "id": name,
                    "modelId": name,
                    "sha": commit,
                    "private": repository.private,
                    "tags": [],
                    "siblings": siblings,
                }
            )

    def tree(self, body: bytes, name: str, revision: str) -> None:
        found = self._at(name, revision)
        if found:
            repository, commit = found
            entries = []
            for path, data in repository.commits[commit].items():
                entry = {"type": "file", "oid": _oid(data), "size": len(data), "path": path}
                if _is_large(path):
                    digest = hashlib.sha256(data).hexdigest()
                    entry["lfs"] = {"oid": digest, "size": len(data), "pointerSize": 134}
                entries.append(entry)
            self._json(entries)

    def branch(self, body: bytes, name: str, branch: str) -> None:
        found = self._at(name, "main")
        if found:
            repository, commit = found
            if branch in repository.branches:
                self._json({"error": "Reference already exists"}, 409)
                return
            repository.branches[branch] = commit
            self._json({})

    def validate(self, body: bytes) -> None:
        import yaml

        text = json.loads(body)["content"]
        head = re.match(r"---\n(.*?)\n---\n", text, re.DOTALL)
        errors = []
        try:
            content = yaml.safe_load(head[1]) if head else {}
            if not isinstance(content, dict):
                errors.append({"message": "no mapping"})
        except yaml.YAMLError as error:
            errors.append({"message": str(error)})
        self._json({"errors": errors, "warnings": []}, 400 if errors else 200)

    def preupload(self, body: bytes, name: str, revision: str) -> None:
        if self._at(name, revision):
            self._json(
                {
                    "files": [
                        {
                            "path": file["path"],
                            "uploadMode": "lfs" if _is_large(file["path"]) else "regular",
                            "shouldIgnore": False,
                        }
                        for file in json.loads(body)["files"]
                    ]
                }
            )

    def batch(self, body: bytes, name: str) -> None:
        objects = []
        for asked in json.loads(body)["objects"]:
            entry = dict(asked)
            if asked["oid"] not in self.hub.objects:
                href = f"{self.hub.url}/upload/{asked['oid']}"
                entry["actions"] = {"upload": {"href": href, "header": {}}}
            objects.append(entry)
        self._json({"transfer": "basic", "objects": objects})

    def upload(self, body: bytes, oid: str) -> None:
        whole = hashlib.sha256(body).hexdigest() == oid
        if whole:
            self.hub.objects[oid] = body
        self._send(b"", 200 if whole else 400)

    def commit(self, body: bytes, name: str, revision: str) -> None:
        found = self._at(name, revision)
        if not found:
            return
        repository, commit = found
        content = dict(repository.commits[commit])
        message = ""
        for line in body.decode().splitlines():
            entry = json.loads(line)
            key, value = entry["key"], entry["value"]
            if key == "header":
                message = value["summary"]
            elif key == "file":
                content[value["path"]] = base64.b64decode(value["content"])
            elif key == "lfsFile":
                content[value["path"]] = self.hub.objects[value["oid"]]
            elif key == "deletedFile":
                del content[value["path"]]
        number = repository.commit(revision, content, message)
        url = f"{self.hub.url}/{name}/commit/{number}"
        self._json({"commitUrl": url, "commitOid": number})

    def resolve(self, body: bytes, name: str, revision: str, path: str) -> None:
        found = self._at(name, revision)
        if not found:
            return
        repository, commit = found
        if repository.gated:
            reason = "Access to this model is restricted"
            self._json({"error": reason}, 403, X_Error_Code="GatedRepo")
            return
        data = repository.commits[commit].get(path)
        if data is None:
            about = {"X_Error_Code": "EntryNotFound", "X_Repo_Commit": commit}
            self._json({"error": "Entry not found"}, 404, **about)
            return
        etag = hashlib.sha256(data).hexdigest() if _is_large(path) else _oid(data)
        self._send(data, 200, X_Repo_Commit=commit, ETag=f'"{etag}"')

    def log_message(self, format: str, *args: object) -> None:
        pass


_NAME = r"([\w.-]+/[\w.-]+)"
_ROUTES: list[tuple[str, Any]] = [
    ("POST /api/repos/create", _Handler.create),
    (rf"GET /api/models/{_NAME}(?:/revision/(.+))?", _Handler.info),
    (rf"GET /api/models/{_NAME}/tree/([^/]+)/?", _Handler.tree),
    (rf"POST /api/models/{_NAME}/branch/(.+)", _Handler.branch),
    ("POST /api/validate-yaml", _Handler.validate),
    (rf"POST /api/models/{_NAME}/preupload/(.+)", _Handler.preupload),
    (rf"POST /{_NAME}\.git/info/lfs/objects/batch", _Handler.batch),
    (r"PUT /upload/(\w+)", _Handler.upload),
    (rf"POST /api/models/{_NAME}/commit/(.+)", _Handler.commit),
    (rf"(?:GET|HEAD) /{_NAME}/resolve/([^/]+)/(.+)", _Handler.resolve),
]
