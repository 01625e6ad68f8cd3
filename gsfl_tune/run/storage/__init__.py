"""Runs outside of the driver's disk: storages, what a driver publishes, where workers train."""

from gsfl_tune.run.storage._base import Backend, is_safe
from gsfl_tune.run.storage.cache import shared_cache
from gsfl_tune.run.storage.lease import DriverLease
from gsfl_tune.run.storage.place import CHECKPOINT, EPOCHS, Place, run_url
from gsfl_tune.run.storage.remote import storage_problem
from gsfl_tune.run.storage.run import RunStorage
from gsfl_tune.run.storage.storage import Storage, open_storage
from gsfl_tune.run.storage.workplace import MARK, Signal, Workplace, storage_of

__all__ = [
    "CHECKPOINT",
    "EPOCHS",
    "MARK",
    "Backend",
    "DriverLease",
    "Place",
    "RunStorage",
    "Signal",
    "Storage",
    "Workplace",
    "is_safe",
    "open_storage",
    "run_url",
    "shared_cache",
    "storage_of",
    "storage_problem",
]
