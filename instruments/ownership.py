"""One owner for each instrument.

Two drivers on one instrument, in one process or in two, overwrite each other's settings
without either noticing. An owner holds an advisory lock (flock) on a file named after the
instrument; the system releases it when the process ends, however it ends. Processes on
other computers are not seen.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import tempfile
from pathlib import Path

from instruments.errors import InstrumentInUse

MAX_OWNER_BYTES = 32


class Ownership:
    """The right to use one instrument, from construction to `release`.

    Args:
        instrument: what it is called all over this computer, such as "hdawg-dev8001".
        directory: of the lock files; None for the system's directory for temporary files.

    Raises:
        InstrumentInUse: somebody has it.
    """

    def __init__(self, instrument: str, directory: Path | None = None) -> None:
        name = re.sub(r"[^\w.-]", "_", instrument)
        path = Path(directory or tempfile.gettempdir()) / f"qnodeos-{name}.lock"
        self._file = _open_shared(path)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(self._file, MAX_OWNER_BYTES).decode(errors="replace").strip()
            os.close(self._file)
            who = "this process" if owner == str(os.getpid()) else f"process {owner or '?'}"
            raise InstrumentInUse(
                f"{instrument} is open already, in {who}; close it there first ({path})"
            ) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the instrument up; more than once does no harm."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _open_shared(path: Path) -> int:
    # The file stays when the owner goes: removing it would race with the next owner. Others
    # who share the laboratory must be able to open it, but the system may forbid them to
    # open it as if it were to be created.
    try:
        return os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        with contextlib.suppress(PermissionError):
            os.fchmod(file, 0o666)
        return file
