"""Every package has its place in the layers that import-linter holds."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import qnodeos
from qnodeos._packages import PACKAGES

ROOT = Path(qnodeos.__file__).resolve().parent.parent
PYPROJECT = ROOT / "pyproject.toml"

pytestmark = pytest.mark.skipif(not PYPROJECT.exists(), reason="needs the source tree")


def layered_modules() -> set[str]:
    settings = tomllib.loads(PYPROJECT.read_text())["tool"]["importlinter"]
    (layers,) = (item["layers"] for item in settings["contracts"] if item["type"] == "layers")
    return set(re.findall(r"[\w.]+", " ".join(layers)))


def modules_in(folder: Path) -> set[str]:
    packages = {file.parent.name for file in folder.glob("*/__init__.py")}
    return packages | {file.stem for file in folder.glob("*.py") if not file.stem.startswith("_")}


def test_every_part_of_qnodeos_has_a_layer():
    present = {f"qnodeos.{name}" for name in modules_in(ROOT / "qnodeos")}
    assert {"qnodeos.errors", "qnodeos.config"} <= present
    missing = present - layered_modules()
    assert not missing, f"give them a place under [tool.importlinter] in pyproject.toml: {missing}"


def test_every_folder_is_checked_installed_and_layered():
    tool = tomllib.loads(PYPROJECT.read_text())["tool"]
    folders = {*PACKAGES, "tests"}
    assert folders <= layered_modules()
    assert set(tool["importlinter"]["root_packages"]) == {"qnodeos", *folders}
    assert set(tool["mypy"]["packages"]) == {"qnodeos", *folders}
    installed = {name.split(".")[0] for name in tool["setuptools"]["packages"]["find"]["include"]}
    assert installed == {"qnodeos", *folders}
