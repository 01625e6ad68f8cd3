"""`gsfl-tune watch`: the server, and a page that follows a run without losing a person's place."""

from __future__ import annotations

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from gsfl_tune.experiment.errors import UserError
from gsfl_tune.report import WatchServer, watch
from gsfl_tune.run import RunDirectory, run_lock
from gsfl_tune.run.running_estimate import RunningEstimate
from tests import warm
from tests.report.browser import Visit
from tests.report.runs import RunMaker
from tests.waiting import wait_until


@contextmanager
def serving(path):
    server = WatchServer(path)
    thread = threading.Thread(target=server.serve)
    thread.start()
    try:
        yield server
    finally:
        server.close()
        thread.join()


def get(server, path, host=None, method="GET"):
    address = server.url.removeprefix("http://").rstrip("/")
    connection = http.client.HTTPConnection(address, timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.read().decode(), dict(answer.getheaders())


@pytest.fixture
def impatient(monkeypatch):
    """Pages are made as soon as there is news."""
    monkeypatch.setattr(watch, "_SECONDS_BETWEEN_PAGES", 0.0)
    monkeypatch.setattr(watch, "_PAGE_FACTOR", 0.0)


def test_it_serves_the_page_and_nothing_else(tmp_path):
    maker = RunMaker(tmp_path / "run").begin().search(12, running=2)
    with serving(maker.path) as server:
        status, page, headers = get(server, "/")
        assert (status, headers["Cache-Control"]) == (200, "no-store")
        assert "2 trials are running" in page
        assert get(server, "/", method="HEAD")[:2] == (200, "")
        for path in ("/experiment.yaml", "/../run.json", "//etc/passwd", "/%2e%2e/run.json"):
            assert get(server, path)[0] == 404
        assert get(server, "/", method="POST")[0] == 501
        assert not server.public


def test_it_answers_to_its_own_address_only(tmp_path):
    """A foreign page whose name was made to point here must not read the run."""
    maker = RunMaker(tmp_path / "run").begin()
    with serving(maker.path) as server:
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", ""):
            assert get(server, "/", host=host or "x")[0] == 403
        for host in ("localhost", "127.0.0.1:1", "[::1]:8642"):
            assert get(server, "/", host=host)[0] == 200


def test_the_version_changes_with_the_files_and_the_page_with_it(tmp_path, impatient):
    maker = RunMaker(tmp_path / "run").begin().search(12, running=2)
    with serving(maker.path) as server:
        first = json.loads(get(server, "/version")[1])
        assert json.loads(get(server, "/version")[1]) == first
        maker.epochs(11, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
        second = json.loads(get(server, "/version")[1])
        assert second["version"] != first["version"]
        assert f'data-version="{second["version"]}"' in get(server, "/")[1]


def test_a_file_that_is_broken_for_a_while_keeps_the_last_page(tmp_path, impatient):
    maker = RunMaker(tmp_path / "run").begin().search(12)
    whole = maker.run.trials_parquet.read_bytes()
    with serving(maker.path) as server:
        maker.run.trials_parquet.write_bytes(b"PAR1")
        told = json.loads(get(server, "/version")[1])
        assert "cannot be read as Parquet" in told["problem"]
        assert "All trials" in get(server, "/")[1]
        maker.run.trials_parquet.write_bytes(whole)
        assert json.loads(get(server, "/version")[1])["problem"] is None


def test_a_file_that_stays_broken_is_not_read_at_every_look(tmp_path, monkeypatch, impatient):
    maker = RunMaker(tmp_path / "run").begin().search(12)
    whole = maker.run.trials_parquet.read_bytes()
    live = watch.LivePage(maker.path)
    monkeypatch.setattr(watch, "_SECONDS_BETWEEN_PAGES", 3600.0)
    maker.run.trials_parquet.write_bytes(b"PAR1")
    assert "cannot be read as Parquet" in live.look()[1]
    maker.run.trials_parquet.write_bytes(whole)
    assert "cannot be read as Parquet" in live.look()[1]


def test_a_browser_that_stays_in_the_foreground_gets_the_page(tmp_path):
    maker = RunMaker(tmp_path / "run").begin()
    program = tmp_path / "browser.py"
    program.write_text(
        "import signal, sys, urllib.request\n"
        "page = urllib.request.urlopen(sys.argv[1], timeout=30).read()\n"
        "open(sys.argv[0] + '.seen', 'wb').write(page)\n"
        "signal.pause()\n"
    )
    command = subprocess.Popen(
        [sys.executable, "-m", "gsfl_tune", "watch", maker.path, "--port", "0", "--open"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "BROWSER": f"{sys.executable} {program} %s"},
        start_new_session=True,
    )
    seen = tmp_path / "browser.py.seen"
    try:
        wait_until(
            lambda: seen.exists() and b"</html>" in seen.read_bytes(),
            "the browser has the page",
            process=command,
        )
    finally:
        os.killpg(command.pid, signal.SIGTERM)
        assert command.wait(30) == 0


def test_what_cannot_be_served_is_told(tmp_path):
    with pytest.raises(UserError, match="no such run"):
        WatchServer(tmp_path / "none")
    maker = RunMaker(tmp_path / "run").begin()
    with serving(maker.path) as server:
        port = int(server.url.rstrip("/").rpartition(":")[2])
        with pytest.raises(UserError, match="another port with --port"):
            WatchServer(maker.path, port=port)
    for host, port in (("127.0.0.1", 70_000), ("203.0.113.7", 0)):
        with pytest.raises(UserError, match="cannot listen there"):
            WatchServer(maker.path, host, port)


@pytest.mark.parametrize(
    "word", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_the_command_ends_when_it_is_told_to(tmp_path, word):
    maker = RunMaker(tmp_path / "run").begin()
    watch = warm.start(
        ["watch", maker.path, "--port", 0], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    # On a busy machine lines that say what it waits for come first.
    lines = iter(watch.stdout.readline, "")
    assert any("http://127.0.0.1:" in line for line in lines)
    watch.send_signal(word)
    _, errors = watch.communicate(timeout=30)
    assert (watch.returncode, errors) == (0, "")


def test_an_open_page_follows_the_run_and_stays_where_it_is(tmp_path, impatient, browser):
    maker = RunMaker(tmp_path / "run").begin().search(40, running=2)
    with serving(maker.path) as server:
        here = Visit(browser, f"{server.url}#trials", viewport={"width": 1000, "height": 700})
        page = here.page
        page.click("#trials-table thead th:nth-child(4) button")
        page.evaluate("document.getElementById('trials-scroll').scrollTop = 200")
        page.click("#tab-search")
        page.check("#fig-curves input")
        page.locator("#fig-rungs").scroll_into_view_if_needed()
        top = page.evaluate("document.getElementById('fig-rungs').getBoundingClientRect().top")
        maker.search(40, running=0)
        maker.finish().evidence()
        page.wait_for_selector("#head .badge.done", timeout=60_000)
        assert page.is_visible("#search")
        assert page.evaluate("location.hash") == "#search"
        after = page.evaluate("document.getElementById('fig-rungs').getBoundingClientRect().top")
        assert abs(after - top) < 3
        assert page.is_checked("#fig-curves input")
        page.click("#tab-trials")
        head = "#trials-table thead th:nth-child(4)"
        assert page.get_attribute(head, "aria-sort") == "descending"
        assert page.evaluate("document.getElementById('trials-scroll').scrollTop") == 200
        assert "running" not in page.inner_text("#trials-table")
        page.click("#tab-answer")
        assert "72.3 %" in page.inner_text("#headline")
        assert page.query_selector("#fig-models svg")
        assert here.complaints == []
        assert all(url.startswith((server.url, "data:")) for url in here.requests)
        here.close()


def test_an_open_page_says_how_long_the_run_still_takes(tmp_path, browser):
    maker = RunMaker(tmp_path / "run").begin().search(12)
    run = RunDirectory(maker.path)
    RunningEstimate("search", 12, 40, 125.0, time.time()).write(run)
    with serving(maker.path) as server:
        assert json.loads(get(server, "/version")[1])["left"] is None
        here = Visit(browser, server.url)
        with run_lock(run):
            here.page.wait_for_selector("#live:has-text('left')", timeout=60_000)
            said = here.page.inner_text("#live")
            assert re.search(r"search 12/40, about [12]:\d\d left, as of", said)
        here.page.wait_for_selector("#live:not(:has-text('left'))", timeout=60_000)
        assert here.complaints == []
        here.close()


def test_an_open_page_says_when_its_server_is_gone(tmp_path, browser):
    maker = RunMaker(tmp_path / "run").begin().search(12)
    with serving(maker.path) as server:
        here = Visit(browser, server.url)
        here.page.wait_for_selector("#live:has-text('as of')")
    here.page.wait_for_selector("#live.trouble", timeout=60_000)
    assert "no update" in here.page.inner_text("#live")
    assert here.page.is_visible("#headline")
    here.close()


def test_started_before_the_run_it_waits_for_it(tmp_path):
    maker = RunMaker(tmp_path / "run")
    process = warm.start(
        ["watch", maker.path, "--port", 0], env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    try:
        # What a driver that checks and measures has there is no run yet.
        maker.run.path.mkdir(parents=True, exist_ok=True)
        maker.run.lock_file.touch()
        assert "waiting for a search to begin" in process.stdout.readline()
        maker.begin()
        while "http://127.0.0.1:" not in (line := process.stdout.readline()):
            assert "waiting" in line
    finally:
        process.terminate()
        _, errors = process.communicate(timeout=30)
    assert (process.returncode, errors) == (0, "")


@pytest.mark.parametrize(
    "early",
    [(".lock", "starter.yaml"), (".lock", "study.journal", "trials", "run.json")],
    ids=["of images", "from a storage"],
)
def test_a_run_that_has_just_begun_is_waited_for(tmp_path, early):
    """`search` prints the command that watches it long before it writes the experiment."""
    run = RunDirectory(tmp_path)
    for name in early:
        (run.path / name).write_text("")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(watch.wait_for_run, run.path, 0.01)
        # What is refused is refused at the first look.
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.3)
        run.experiment_file.write_text("name: birds\n")
        waiting.result(timeout=30)


def test_what_is_no_run_directory_is_not_waited_for(tmp_path):
    (tmp_path / "photo.jpg").touch()
    with pytest.raises(UserError, match="not a run directory"):
        watch.wait_for_run(tmp_path)
    with pytest.raises(UserError, match="not a run directory"):
        watch.wait_for_run(tmp_path / "photo.jpg")
