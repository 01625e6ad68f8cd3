"""`fsync` of a file in a background thread."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path


class Syncer:
    """Calls ``fsync`` in a background thread.

    Written data belongs to the operating system and survives the end of the process. It reaches
    the disk some milliseconds later; a power cut in between could lose it. Writes that arrive
    meanwhile share one call, so a burst does not wait for the disk.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._thread: ThreadPoolExecutor | None = None
        self._last: Future[None] | None = None
        self._error: OSError | None = None

    def begin(self) -> None:
        """Starts a sync of everything written so far.

        Raises:
            OSError: When an earlier sync failed: the content of the disk is then unknown.
        """
        if self._error is not None:
            raise self._error
        waits = self._last is not None and not (self._last.running() or self._last.done())
        if waits:
            # The next sync begins after this write.
            return
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="sync")
        self._last = self._thread.submit(self._sync)

    def wait(self) -> None:
        """Waits until everything written so far is on the disk.

        Raises:
            OSError: When the sync failed.
        """
        if self._last is not None:
            self._last.result()
        if self._error is not None:
            raise self._error

    def close(self) -> None:
        """Waits, then ends the thread; `begin` starts it again.

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
