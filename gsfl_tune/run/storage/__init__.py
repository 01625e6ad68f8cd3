"""Runs in a storage: storages, the driver's published copy, the workers' copies."""

from gsfl_tune.run.storage.address import RunAddress, run_url
from gsfl_tune.run.storage.backends.base import Backend, is_safe
from gsfl_tune.run.storage.backends.remote import storage_problem
from gsfl_tune.run.storage.driver_copy import DriverCopy
from gsfl_tune.run.storage.driver_lease import DriverLease
from gsfl_tune.run.storage.retrying import Storage, open_storage
from gsfl_tune.run.storage.shared_cache import open_shared_cache
from gsfl_tune.run.storage.worker_copy import (
    MARK,
    Signal,
    WorkerCopy,
    storage_of,
    stored_epochs,
)

__all__ = [
    "MARK",
    "Backend",
    "DriverCopy",
    "DriverLease",
    "RunAddress",
    "Signal",
    "Storage",
    "WorkerCopy",
    "is_safe",
    "open_shared_cache",
    "open_storage",
    "run_url",
    "storage_of",
    "storage_problem",
    "stored_epochs",
]
