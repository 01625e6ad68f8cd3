"""``workers.jsonl`` is added to by one driver after another, whatever became of the last one."""

from __future__ import annotations

from gsfl_tune.run import RunDirectory, WorkerLog


def test_a_later_driver_goes_on_after_half_a_line(tmp_path):
    run = RunDirectory(tmp_path)
    assert WorkerLog(run).read() == []
    first = WorkerLog(run)
    first.append({"trial": 0, "begin": 1.0, "end": 2.0})
    first.append({"trial": 1, "begin": 1.0, "end": 2.5})
    with run.workers_file.open("a") as file:
        file.write('{"trial": 2, "begin": 3.0, "e')  # killed here
    second = WorkerLog(run)
    second.append({"trial": 3, "begin": 4.0, "end": 5.0})
    second.append({"trial": 4, "begin": 5.0, "end": 6.0})
    assert [record["trial"] for record in WorkerLog(run).read()] == [0, 1, 3, 4]
    # A driver that was killed in a line, and one that was not, make room for the next.
    WorkerLog(run).append({"trial": 5, "begin": 7.0, "end": 8.0})
    assert [record["session"] for record in WorkerLog(run).read()] == [0, 0, 1, 1, 2]


def test_lines_that_are_no_stretches_are_left_out(tmp_path):
    run = RunDirectory(tmp_path)
    run.workers_file.write_bytes(b'[1]\n"word"\n{"trial": 1}\n\xff\xfe\n{"begin": 1, "end": 2}\n')
    assert WorkerLog(run).read() == [{"begin": 1, "end": 2, "session": 1}]


def test_what_cannot_be_written_does_not_stop_the_search(tmp_path):
    run = RunDirectory(tmp_path / "gone")
    WorkerLog(run).append({"trial": 0, "begin": 1.0, "end": 2.0})
    assert WorkerLog(run).read() == []
