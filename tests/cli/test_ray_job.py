"""Ray's own ``ray job submit`` runs the ``gsfl-tune`` command as it is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from gsfl_tune.export import load_bundle
from gsfl_tune.run.results import read_results
from tests.cli.local import EXPERIMENT, Cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    started = Cluster(nodes=1)
    yield started
    started.close()


def _submit(cluster: Cluster, home: Path, *words: str, **variables: str) -> tuple[int, str]:
    """``ray job submit ... -- WORDS`` in a shell that is connected to nothing else."""
    shell = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    ray = str(Path(sys.executable).with_name("ray"))
    options = ("--address", cluster.address, "--working-dir", str(home))
    done = subprocess.run(
        [ray, "job", "submit", *options, "--", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=400,
        # Not the folder that is uploaded: the job has nothing but the upload.
        cwd="/",
        env=shell | variables,
    )
    return done.returncode, done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("where", ["--run-dir", "--storage"])
def test_ray_job_submit_runs_a_search_to_its_bundle(
    where: str, cluster: Cluster, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "tiny.yaml").write_text(EXPERIMENT)
    given = tmp_path / "kept"
    run_dir = given if where == "--run-dir" else given / "tiny"
    words = ("gsfl-tune", "search", "tiny.yaml", where, str(given))
    token = {name: cluster.environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH")}
    code, said = _submit(cluster, home, *words, **token)
    assert code == 0, said + cluster.logs()
    assert re.search(r"Job 'raysubmit_\w+' succeeded", said), said
    # The log was followed: what the command prints at its end is there.
    assert "Charts and evidence: gsfl-tune report" in said
    results = read_results(run_dir / "results.json")
    assert results.trials["COMPLETE"] == 6
    bundle = load_bundle(run_dir / "best", device="cpu")
    [prediction] = bundle.predict([Image.new("RGB", (40, 40))])
    assert set(prediction.classes) <= set(bundle.classes)


@pytest.mark.slow
def test_ray_job_submit_without_the_token_starts_nothing(cluster: Cluster, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}
    for variables in (wrong, {"RAY_AUTH_MODE": "disabled", "HOME": str(tmp_path)}):
        code, said = _submit(cluster, tmp_path, "touch", str(trace), **variables)
        assert code != 0, said
        assert "uthentication" in said, said + cluster.logs()
    assert not trace.exists()
