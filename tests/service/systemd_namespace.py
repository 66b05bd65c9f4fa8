"""systemd as PID 1, in namespaces of its own: its units run as on a machine of their own."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import tests

DATA = Path(tests.__file__).parent / "data" / "systemd"
SYSTEMD = next(
    (p for p in ("/lib/systemd/systemd", "/usr/lib/systemd/systemd") if Path(p).exists()), ""
)
DEADLINE_S = 90.0
NAMESPACES = ("--pid", "--fork", "--kill-child", "--mount", "--cgroup", "--ipc", "--uts")


def reason_against() -> str:
    """Why systemd cannot be run here; empty if it can."""
    if not SYSTEMD:
        return "there is no systemd on this machine"
    if shutil.which("unshare") is None:
        return "there is no unshare on this machine"
    if os.geteuid() != 0:
        return "systemd in namespaces of its own needs root"
    done = subprocess.run(
        ["unshare", *NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/run"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    if done.returncode:
        return f"namespaces are not allowed here: {done.stderr.strip()}"
    try:
        with control_group():
            return ""
    except (OSError, LookupError) as error:
        return f"there is no control group to work in: {error}"


def _own_group() -> Path:
    """Folder of the (version 2) control group of this process."""
    mounts = [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    roots = [fields[4] for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"]
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    paths = [line.removeprefix("0::/") for line in groups if line.startswith("0::/")]
    if not roots or not paths:
        raise LookupError("control groups of version 2 are not mounted")
    return Path(roots[0]) / paths[0]


@contextlib.contextmanager
def control_group() -> Iterator[Path]:
    """A control group for a test, removed with all in it at the end.

    Raises:
        OSError: none can be made.
    """
    own = _own_group()
    # Beside that of this process if that is possible: a group that has both processes and
    # groups cannot control those. At the top of what is mounted there is no beside.
    beside = (own.parent / "cgroup.procs").exists()
    group = (own.parent if beside else own) / f"qnodeos-test-{os.getpid()}-{time.monotonic_ns()}"
    group.mkdir()
    try:
        yield group
    finally:
        wait_until(lambda: _removed(group), f"{group} is not empty")


def _removed(group: Path) -> bool:
    for folder, _, _ in os.walk(group, topdown=False):
        with contextlib.suppress(OSError):  # its last process has not quite gone
            os.rmdir(folder)
    return not group.exists()


def wait_until(is_so: Callable[[], bool], failure: str, deadline_s: float = DEADLINE_S) -> None:
    """Wait for something that must come."""
    end_s = time.monotonic() + deadline_s
    while not is_so():
        if time.monotonic() > end_s:
            pytest.fail(failure)
        time.sleep(0.02)


class Machine:
    """A running systemd.

    Attributes:
        share: the folder that is /run/share in there; its `units` were copied at the start.
    """

    def __init__(self, share: Path, process: subprocess.Popen[bytes]) -> None:
        self.share = share
        self._process = process

    def systemctl(self, *arguments: str) -> str:
        """What systemctl prints in there; nothing while systemd is not up."""
        number = self._process.pid
        children = Path(f"/proc/{number}/task/{number}/children").read_text().split()
        if not children:
            return ""
        inside = ("nsenter", "--target", children[0], "--mount", "--pid", "--")
        done = subprocess.run(
            [*inside, "systemctl", "--no-pager", *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
        return done.stdout

    def show(self, unit: str) -> dict[str, str]:
        """The properties of a unit."""
        lines = self.systemctl("show", unit).splitlines()
        return dict(line.partition("=")[::2] for line in lines)

    def wait_for(self, unit: str, **properties: str) -> None:
        """Wait until a unit has these properties."""

        def has_them() -> bool:
            if self._process.poll() is not None:
                pytest.fail(f"systemd ended: {self.output()}")
            shown = self.show(unit)
            return all(shown.get(name) == value for name, value in properties.items())

        try:
            wait_until(has_them, f"{unit} does not come to {properties}")
        except pytest.fail.Exception:
            print(self.systemctl("status", "--full", unit), self.output())  # for the report
            raise

    def wait_for_signs_of_life(self, unit: str, signs: int = 4) -> None:
        """Wait until a service has fed its watchdog several times, without being restarted."""
        seen: set[str] = set()

        def has_given_them() -> bool:
            shown = self.show(unit)
            assert shown["NRestarts"] == "0", self.systemctl("status", "--full", unit)
            seen.add(shown["WatchdogTimestampMonotonic"])
            return len(seen) > signs

        wait_until(has_given_them, f"{unit} has given {len(seen)} signs of life")

    def output(self) -> str:
        """What came out of the namespace, before systemd and from it."""
        return (self.share / "output").read_text("utf-8", "replace")


@contextlib.contextmanager
def machine(share: Path) -> Iterator[Machine]:
    """Run systemd until the end of the block, and leave nothing behind.

    Args:
        share: a folder with a folder `units`; among them the default.target.
    """
    readable = {sys.base_prefix, sys.prefix, str(Path(tests.__file__).parents[1])}
    with control_group() as group, (share / "output").open("wb") as output:
        process = subprocess.Popen(
            [
                "sh",
                "-c",
                'echo $$ > "$GROUP/cgroup.procs"; exec unshare "$@"',
                "sh",
                *NAMESPACES,
                "sh",
                str(DATA / "setup.sh"),
                str(share),
                *sorted(readable),
            ],
            env={"PATH": os.environ["PATH"], "GROUP": str(group), "SYSTEMD": SYSTEMD},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            yield Machine(share, process)
        finally:
            process.kill()  # and with it, by --kill-child, PID 1 and everything under it
            process.wait(timeout=30)
