"""``gsfl-tune report`` and ``gsfl-tune watch``, as commands."""

from __future__ import annotations


def test_it_writes_the_page_and_says_where(command, finished, tmp_path):
    answer = command("report", finished)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith(f"report: {finished / 'report.html'} (")
    assert "72.0 %" in (finished / "report.html").read_text(encoding="utf-8")
    target = tmp_path / "some" / "where.html"
    assert command("report", finished, "-o", target).code == 0
    assert target.is_file()


def test_a_run_under_way_has_a_page_too(command, under_way):
    assert command("report", under_way).code == 0
    assert "not finished" in (under_way / "report.html").read_text(encoding="utf-8")


def test_bad_input_is_told_in_one_line(command, finished, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments, words in (
        (["report", tmp_path / "none"], "no such run directory"),
        (["report", finished, "-o", tmp_path], "is a directory"),
        (["report", finished, "-o", tmp_path / "file" / "page.html"], "cannot be written"),
        (["watch", finished, "--host", "203.0.113.7"], "cannot listen there"),
    ):
        answer = command(*arguments)
        assert (answer.code, answer.out) == (2, ""), arguments
        assert words in answer.err
        assert len(answer.err.splitlines()) == 1
