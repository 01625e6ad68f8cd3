"""What is done now is said: in a pipe now and then, in a terminal in place."""

from __future__ import annotations

import io
import re
import threading
import time

import pytest
from rich.console import Console
from rich.text import Text

from gsfl_tune.activity import Activity, activity, begin, current, display, end
from gsfl_tune.activity.display import Display
from tests.waiting import wait_until


def _pipe() -> tuple[io.StringIO, Console]:
    output = io.StringIO()
    return output, Console(file=output, width=200, highlight=False, soft_wrap=True)


def test_the_innermost_is_shown_and_an_urgent_one_before_it() -> None:
    assert current() is None
    with activity("computing features", 672, "images") as one:
        one.done = 128
        assert one.text() == "computing features: 128/672 images"
        urgent = begin(Activity("asked to stop", urgent=True))
        with activity("pooling"):
            assert current() is urgent
        end(urgent)
        end(urgent)
        assert current() is one
        one.begun -= 75
        assert one.text() == "computing features: 128/672 images, 1:15"
    assert current() is None


def test_what_breaks_is_not_done_any_more() -> None:
    with pytest.raises(ValueError), activity("breaking"):
        raise ValueError
    assert current() is None


def test_a_pipe_gets_plain_lines_when_nothing_else_was_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(display, "QUIET_SECONDS", 0.3)
    output, console = _pipe()
    before = set(threading.enumerate())
    with Display(console) as shown, activity("computing features", 672, "images") as one:
        one.done = 64
        wait_until(lambda: "64/672" in output.getvalue(), "the first line is printed")
        shown.say("something else")
        one.done = 128
        wait_until(lambda: "128/672" in output.getvalue(), "the next line is printed")
    begun = [each.name for each in threading.enumerate() if each not in before]
    assert "display" not in begun, "it goes on after its end"
    lines = output.getvalue().splitlines()
    assert lines[0] == "computing features: 64/672 images"
    assert "something else" in lines
    assert not re.search(r"[\r\x1b]", output.getvalue())


def test_what_is_said_often_enough_is_not_said_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "QUIET_SECONDS", 3600.0)
    output, console = _pipe()
    looks: list[Activity | None] = []

    def look() -> Activity | None:
        looks.append(current())
        return current()

    with Display(console) as shown, activity("computing features"):
        shown.say("a line")
        monkeypatch.setattr(display, "current", look)
        wait_until(lambda: len(looks) >= 3, "the display has looked three times")
    assert output.getvalue() == "a line\n"


def test_what_is_urgent_is_said_at_once_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "QUIET_SECONDS", 3600.0)
    monkeypatch.setattr(display, "URGENT_SECONDS", 0.3)
    output, console = _pipe()
    with Display(console), activity("computing features"):
        urgent = begin(Activity("asked to stop", urgent=True))
        began = time.monotonic()
        wait_until(lambda: "asked to stop" in output.getvalue(), "it is printed")
        assert time.monotonic() - began < 10
        wait_until(
            lambda: output.getvalue().count("asked to stop") >= 3, "it is printed three times"
        )
        end(urgent)
    assert "computing" not in output.getvalue()


def test_a_terminal_has_one_line_that_is_redrawn_and_never_wraps() -> None:
    output = io.StringIO()
    console = Console(file=output, width=80, force_terminal=True, color_system=None)
    long = "computing features (" + "a very long name, " * 20 + ")"
    with Display(console) as shown, activity(long, 672, "images") as one:
        shown.body = lambda: Text("the table above it")
        for done in (64, 128):
            one.done = done
            shown.refresh()
        shown.say("a line to stay")
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "\n", output.getvalue()).replace("\r", "\n")
    assert max(len(line) for line in plain.splitlines()) <= 80
    assert "the table above it" in plain
    assert "a line to stay" in plain
    # Redrawn where it was, not below: one line up for the table, and none further.
    assert set(re.findall(r"\x1b\[(\d+)A", output.getvalue())) <= {"1"}


def test_a_display_that_was_left_open_can_be_closed() -> None:
    _, console = _pipe()
    shown = Display(console)
    shown.start()
    shown.start()
    shown.close()
    assert shown._thread is None
    shown.start()
    shown.stop()
    assert shown._thread is None
