"""One owner for each instrument, on this computer."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from instruments.errors import InstrumentInUse
from instruments.ownership import Ownership

CHILD = """
import os, sys
from pathlib import Path
from instruments.ownership import Ownership
try:
    Ownership("hdawg-dev1", Path(sys.argv[1]))
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
os._exit(0)
"""


def other_process(directory) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", CHILD, str(directory)], capture_output=True, text=True, check=False
    )


def test_a_second_owner_in_this_process_is_refused(tmp_path):
    owner = Ownership("hdawg-dev1", tmp_path)
    with pytest.raises(InstrumentInUse, match="hdawg-dev1 is open already, in this process"):
        Ownership("hdawg-dev1", tmp_path)
    Ownership("hdawg-dev2", tmp_path).release()
    owner.release()
    owner.release()
    Ownership("hdawg-dev1", tmp_path).release()


def test_another_process_is_refused_and_told_who_has_it(tmp_path):
    owner = Ownership("hdawg-dev1", tmp_path)
    child = other_process(tmp_path)
    assert child.returncode == 1
    assert f"InstrumentInUse: hdawg-dev1 is open already, in process {os.getpid()}" in child.stderr
    owner.release()


def test_a_process_that_dies_owns_nothing(tmp_path):
    assert other_process(tmp_path).returncode == 0
    Ownership("hdawg-dev1", tmp_path).release()


def test_a_name_cannot_leave_the_directory(tmp_path):
    Ownership("../a/b", tmp_path).release()
    assert [file.name for file in tmp_path.iterdir()] == ["qnodeos-.._a_b.lock"]
