"""epochs.jsonl survives what happens to files."""

from gsfl_tune.run import EpochLog
from gsfl_tune.run.epochs import epochs_of_trial, seconds_of_trial
from gsfl_tune.run.layout import replicate_directory


def _log(path, count):
    log = EpochLog(path)
    for epoch in range(1, count + 1):
        log.append({"epoch": epoch, "validation/accuracy": epoch / 10})
    return log


def test_reads_back_what_was_appended(tmp_path):
    log = _log(tmp_path / "trials" / "3" / "epochs.jsonl", 3)
    assert [record["epoch"] for record in log.read()] == [1, 2, 3]


def test_no_file_is_no_epoch(tmp_path):
    assert EpochLog(tmp_path / "epochs.jsonl").read() == []


def test_a_line_cut_short_is_not_an_epoch(tmp_path):
    path = tmp_path / "epochs.jsonl"
    log = _log(path, 3)
    path.write_bytes(path.read_bytes()[:-10])
    assert [record["epoch"] for record in log.read()] == [1, 2]
    log.truncate(2)
    log.append({"epoch": 3})
    assert [record["epoch"] for record in log.read()] == [1, 2, 3]


def test_truncate_cuts_back_to_the_checkpoint(tmp_path):
    log = _log(tmp_path / "epochs.jsonl", 5)
    log.truncate(2)
    assert [record["epoch"] for record in log.read()] == [1, 2]


def test_the_epochs_of_a_trial_are_those_of_all_its_trainings(tmp_path):
    for number, count in ((0, 3), (1, 2)):
        log = EpochLog(replicate_directory(tmp_path, number) / "epochs.jsonl")
        for epoch in range(1, count + 1):
            log.append({"epoch": epoch, "seconds": 0.5})
    assert [len(records) for records in epochs_of_trial(tmp_path)] == [3, 2]
    assert seconds_of_trial(tmp_path) == 2.5
    assert seconds_of_trial(tmp_path / "none") == 0
