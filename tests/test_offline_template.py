"""The template for a folder of images works where nothing but this machine can be reached."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.data.conftest import fill

TEMPLATE = Path(__file__).parents[1] / "search_spaces" / "image_folder.yaml"
# Python imports a module of this name at its start, in workers of Ray too.
BLOCKER = """
import ipaddress, os, socket

_connect, _connect_ex, _find = socket.socket.connect, socket.socket.connect_ex, socket.getaddrinfo

def _refuse(host):
    with open(os.environ["REFUSED"], "a") as log:
        log.write(f"{host}\\n")
    raise OSError(f"no network: {host}")

def _check(this, address):
    if this.family in (socket.AF_INET, socket.AF_INET6):
        try:
            near = ipaddress.ip_address(address[0]).is_loopback
        except ValueError:
            near = address[0] == "localhost"
        if not near:
            _refuse(address[0])

def connect(this, address):
    _check(this, address)
    return _connect(this, address)

def connect_ex(this, address):
    _check(this, address)
    return _connect_ex(this, address)

def getaddrinfo(host, *rest, **more):
    own = {None, "", "localhost", "127.0.0.1", "0.0.0.0", "::1", "::", socket.gethostname()}
    if host not in own:
        _refuse(host)
    return _find(host, *rest, **more)

socket.socket.connect, socket.socket.connect_ex = connect, connect_ex
socket.getaddrinfo = getaddrinfo
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """Photographs with what is left out beside them, and the template with their path."""
    home = tmp_path_factory.mktemp("offline")
    fill(home / "photos", {"wren": 12, "robin": 12, "__unknown__": 3, ".ipynb_checkpoints": 2})
    (home / "photos" / "wren" / "notes.txt").touch()
    text = TEMPLATE.read_text(encoding="utf-8")
    (home / "my.yaml").write_text(text.replace("path/to/your/images", str(home / "photos")))
    (home / "blocker").mkdir()
    (home / "blocker" / "sitecustomize.py").write_text(BLOCKER)
    return home


def run(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    path = [str(home / "blocker"), str(TEMPLATE.parents[1]), os.environ.get("PYTHONPATH", "")]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, path)),
        "REFUSED": str(home / "refused"),
        "GSFL_TUNE_CACHE": str(home / "cache"),
        "COLUMNS": "200",
    }
    return subprocess.run(
        [sys.executable, "-m", "gsfl_tune", *arguments],
        cwd=home,
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


def test_the_network_is_blocked(home):
    code = "import urllib.request; urllib.request.urlopen('https://huggingface.co', timeout=5)"
    environment = {**os.environ, "PYTHONPATH": str(home / "blocker"), "REFUSED": str(home / "log")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert "no network: huggingface.co" in done.stderr
    assert (home / "log").read_text() == "huggingface.co\n"


def test_it_is_checked(home):
    code = f"{BLOCKER}\nimport runpy; runpy.run_module('gsfl_tune', run_name='__main__')"
    environment = {
        **os.environ,
        "REFUSED": str(home / "refused"),
        "GSFL_TUNE_CACHE": str(home / "cache"),
        "COLUMNS": "200",
    }
    done = warm.run(["check", "my.yaml"], code=code, cwd=home, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "my.yaml: valid, experiment image_folder" in done.stdout
    assert "Data: 2 classes, 24 images" in done.stdout
    assert "left out: 6 files: in __unknown__/ 3, in .ipynb_checkpoints/ 2, .txt 1" in done.stdout
    assert not (home / "refused").exists()


SMALL = (
    "search.time_budget=null", "search.trials=2", "search.finalists=1", "search.final_seeds=1",
    "search.control=off", "training.head.epochs=1", "training.finetune.epochs=1",
    "data.image_size=32", "data.eval_image_size=32", "data.views=0", "training.device=cpu",
    "search.resources.gpu=0",
)  # fmt: skip


@pytest.mark.slow
def test_it_is_searched_and_what_is_left_out_is_said(home):
    settings = [word for each in SMALL for word in ("--set", each)]
    done = run(home, "search", "my.yaml", *settings)
    assert done.returncode == 0, done.stdout + done.stderr
    assert (home / "runs" / "image_folder" / "best" / "model.safetensors").exists()
    assert "left out: 6 files: in __unknown__/ 3, in .ipynb_checkpoints/ 2, .txt 1" in done.stdout
    # Ray asks for a route to find its own address, and whether this is a machine of a cloud. It
    # goes on without an answer.
    asked = (home / "refused").read_text().split() if (home / "refused").exists() else []
    clouds = {"169.254.169.254", "metadata.google.internal"}
    assert set(asked) <= {"8.8.8.8", "2001:4860:4860::8888", *clouds}
