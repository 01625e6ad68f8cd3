"""Has a file reach the disk while the program goes on."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path


class Syncer:
    """Calls ``fsync`` in a thread of its own.

    What was written is the operating system's: it outlives the process however that ends. The
    disk has it some milliseconds later, in which a power cut could take it. Writes of the meantime
    share one call, so a burst of them costs the disk no more than it can do.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        self._error: OSError | None = None

    def begin(self) -> None:
        """Has what was written so far brought to the disk soon.

        Raises:
            OSError: When an earlier time failed: nobody knows what the disk has.
        """
        if self._error is not None:
            raise self._error
        waits = self._last is not None and not (self._last.running() or self._last.done())
        if waits:
            # It begins after this write.
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._last = self._thread.submit(self._sync)

    def wait(self) -> None:
        """Returns when everything that was written before is on the disk.

        Raises:
            OSError: When it could not be brought there.
        """
        if self._last is not None:
            self._last.result()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Waits, and ends the thread; `begin` starts it anew.

        Raises:
            OSError: As `wait`.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown()
        self.wait()

    def _sync(self) -> None:
        try:
            handle = os.open(self._path, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            self._error = error
