"""The check that our generic package names are ours, and that nobody else's are."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

import qnodeos
from qnodeos._packages import PACKAGES

ROOT = Path(qnodeos.__file__).resolve().parent.parent


def run(arguments: list[str], cwd: Path | None = None, **environment: str) -> str:
    """Run a fresh interpreter; what it wrote as errors, which is nothing if it succeeded."""
    done = subprocess.run(
        [sys.executable, *arguments],
        env={**os.environ, **environment},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode == 0) == (done.stderr == ""), done.stderr
    return done.stderr


def import_qnodeos(*first: Path, code: str = "", cwd: Path | None = None) -> str:
    """Import qnodeos with the directories `first` before it on the import path."""
    path = os.pathsep.join(map(str, [*first, ROOT]))
    return run(["-P", "-c", f"{code}\nimport qnodeos"], cwd, PYTHONPATH=path)


def last_line(errors: str) -> str:
    return errors.strip().splitlines()[-1]


def test_our_own_packages_pass(tmp_path):
    assert import_qnodeos(cwd=tmp_path) == ""


def test_a_shadowing_package_is_named(tmp_path):
    shadow = tmp_path / "sim"
    shadow.mkdir()
    (shadow / "__init__.py").write_text("")
    message = last_line(import_qnodeos(tmp_path))
    assert message.startswith(f"ImportError: {shadow} has taken the name 'sim'")
    assert str(ROOT / "sim") in message
    assert "rename it" in message


@pytest.mark.parametrize("name", PACKAGES)
def test_a_shadowing_module_is_named(tmp_path, name):
    shadow = tmp_path / f"{name}.py"
    shadow.write_text("raise RuntimeError('the check must not import this')")
    message = last_line(import_qnodeos(tmp_path))
    assert message.startswith(f"ImportError: {shadow} has taken the name {name!r}")


def test_another_distribution_is_told_apart(tmp_path):
    shadow = tmp_path / "site-packages" / "drivers"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("")
    message = last_line(import_qnodeos(shadow.parent))
    assert "another distribution installed it" in message
    assert "virtual environment" in message


def test_a_folder_without_init_does_no_harm(tmp_path):
    (tmp_path / "sim").mkdir()
    assert import_qnodeos(tmp_path) == ""


def test_a_missing_package_is_an_incomplete_installation(tmp_path):
    (tmp_path / "qnodeos").mkdir()
    for source in ("__init__.py", "_packages.py"):
        (tmp_path / "qnodeos" / source).write_text((ROOT / "qnodeos" / source).read_text())
    # -S leaves the installed packages out, -P the working directory.
    message = last_line(run(["-S", "-P", "-c", "import qnodeos"], PYTHONPATH=str(tmp_path)))
    assert message.startswith(f"ImportError: qnodeos needs its package {PACKAGES[0]!r}")
    assert "incomplete" in message


def test_a_module_made_by_hand_is_caught():
    code = "import sys, types; m = types.ModuleType('sim'); m.__spec__ = None\n"
    message = last_line(import_qnodeos(code=code + "sys.modules['sim'] = m"))
    assert "<module sim without a file> has taken the name 'sim'" in message


def test_import_stays_cheap():
    """None of the large libraries, and none of the packages that are checked."""
    costly = (*PACKAGES, "numpy", "scipy", "pydantic", "netqasm", "qcodes", "matplotlib")
    code = f"import qnodeos, sys\nassert not sys.modules.keys() & {set(costly)}, list(sys.modules)"
    assert import_qnodeos(code=code) == ""


def test_no_distribution_around_us_claims_our_names():
    """Not even `tests`, which is installed too (docs/decisions/0005)."""
    owners = packages_distributions()
    claims = {name: owners[name] for name in (*PACKAGES, "tests") if name in owners}
    assert {owner for names in claims.values() for owner in names} <= {"qnodeos"}
