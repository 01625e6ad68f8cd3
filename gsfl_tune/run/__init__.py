"""The run directory: its layout, atomic writes and the files of a search."""

from gsfl_tune.run.atomic import read_json, whole_file, write_bytes, write_json, write_text
from gsfl_tune.run.epochs import EpochLog
from gsfl_tune.run.layout import RunDirectory, StudyName
from gsfl_tune.run.lock import holder, run_lock
from gsfl_tune.run.ownership import Ownership, OwnershipLost
from gsfl_tune.run.workers import WorkerLog

__all__ = [
    "EpochLog",
    "Ownership",
    "OwnershipLost",
    "RunDirectory",
    "StudyName",
    "WorkerLog",
    "holder",
    "read_json",
    "run_lock",
    "whole_file",
    "write_bytes",
    "write_json",
    "write_text",
]
