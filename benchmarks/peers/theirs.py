"""Running a program on SimulaQron, whose servers are started afresh for each run."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from benchmarks.peers.environment import last_lines
from qnodeos.errors import ChildProcessFailedError

WORKER: Final = Path(__file__).with_name("worker.py")
TRIES: Final = 5
START_S: Final = 60.0
CIRCUIT_S: Final = 1.0
"""Much longer than a circuit takes: SimulaQron then hangs, as it does now and then."""


def run(python: Path, program: str, circuits: int, *, is_tuned: bool) -> tuple[dict[str, Any], int]:
    """Run a program; what alice returned, and how many tries before failed.

    Its servers lock each other out now and then, until one gives up; then it is started again.

    Args:
        python: interpreter of the environment that has SimulaQron.
        program: its name.
        circuits: how many are timed.
        is_tuned: whether its waits are taken out.

    Raises:
        ChildProcessFailedError: it failed, or hung every time.
    """
    command = [str(python), str(WORKER), program, str(circuits)]
    command += ["--tuned"] if is_tuned else []
    complaints = ""
    for failures in range(TRIES):
        written, complaints = _run(command, START_S + CIRCUIT_S * circuits)
        if written is not None:
            return parse(written), failures
    raise ChildProcessFailedError(
        f"SimulaQron failed {TRIES} times at {' '.join(command[2:])}:\n{last_lines(complaints)}"
    )


def _run(command: list[str], timeout_s: float) -> tuple[str | None, str]:
    """What the worker prints, None if it hangs or fails; and what it complains about."""
    with TemporaryDirectory(prefix="simulaqron-") as scratch:
        worker = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=scratch,
            env=os.environ | {"HOME": scratch},
            start_new_session=True,  # its servers are its children, and must end with it
        )
        try:
            written, complaints = worker.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired:
            return None, f"it was not done after {timeout_s:g} s"
        finally:
            _end(worker)
    return (written if worker.returncode == 0 else None), complaints


def _end(worker: subprocess.Popen[str]) -> None:
    try:
        os.killpg(worker.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    worker.wait()


def parse(written: str) -> dict[str, Any]:
    """What alice returned, from what the worker printed: the last line.

    Raises:
        ChildProcessFailedError: it is not that.
    """
    try:
        result = json.loads(written.strip().splitlines()[-1])
        float(result["seconds"]), list(result["outcomes"])
    except (IndexError, KeyError, TypeError, ValueError):
        raise ChildProcessFailedError(
            f"SimulaQron printed no result:\n{last_lines(written)}"
        ) from None
    return dict(result)
