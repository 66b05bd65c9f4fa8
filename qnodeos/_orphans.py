"""A child process of ours does not outlive its parent, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

SUPERVISOR_VARIABLE: Final = "QNODEOS_SUPERVISOR"
"""Environment variable with the process id of the parent that a process must not outlive."""

_PR_SET_PDEATHSIG: Final = 1  # linux/prctl.h


def end_with_supervisor() -> None:
    """Ask the kernel for SIGTERM when the parent ends, if the environment names it as such.

    The variable is removed, so that it does not hold for children of this process.
    """
    supervisor = os.environ.pop(SUPERVISOR_VARIABLE, "")
    if not supervisor.isdecimal():
        return
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)
    if os.getppid() != int(supervisor):
        sys.exit("qnodeos: the process that started this one has ended already")
