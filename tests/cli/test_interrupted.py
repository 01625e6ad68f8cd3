from __future__ import annotations

import argparse
import io
from pathlib import Path

import pytest
from rich.console import Console

from gsfl_tune.activity.display import Display
from gsfl_tune.cli._base import INTERRUPTED
from gsfl_tune.cli._interrupted import interrupted, resuming
from gsfl_tune.cli.adapt import Adapt
from gsfl_tune.cli.adapt import _resumed as adapt_resumed


def test_what_was_given_is_given_again() -> None:
    command = resuming(
        ["synthesize", Path("my photos")],
        {"--model": "m", "--size": None, "--steps": 4},
        flags={"--json": True, "--quiet": False},
        lists={"--set": ["a=1", "b=[1, 2]"]},
    )
    assert command == (
        "gsfl-tune synthesize 'my photos' --model m --steps 4 --set a=1 --set 'b=[1, 2]' --json "
        "--resume"
    )


def test_the_command_is_one_that_the_parser_takes() -> None:
    parser = argparse.ArgumentParser()
    Adapt().add_arguments(parser)
    given = ["bundle", "a.png", "b.png", "-o", "out", "--files-from", "l.txt", "--epochs", "3"]
    args = parser.parse_args(given)
    again = adapt_resumed(args).split()
    assert again[:2] == ["gsfl-tune", "adapt"]
    assert again[-1] == "--resume"
    assert vars(parser.parse_args(again[2:])) == {**vars(args), "resume": True}


def test_without_anything_to_continue_it_is_an_interrupt(tmp_path: Path) -> None:
    text = io.StringIO()
    display = Display(Console(file=text, width=200))
    with pytest.raises(KeyboardInterrupt):
        interrupted(display, tmp_path / "begun.json", "finished epochs", "gsfl-tune x --resume")
    (tmp_path / "begun.json").touch()
    code = interrupted(display, tmp_path / "begun.json", "finished epochs", "gsfl-tune x --resume")
    assert code == INTERRUPTED
    assert "interrupted; finished epochs are kept. Continue with:" in text.getvalue()
