"""Check that our generic package names are really ours.

`drivers`, `instruments`, `sequences`, `calibration` and `sim` are names anybody might
give a package, a script or a folder. If one of those comes first on the import path, the
failure appears far from its cause (an ImportError for a name deep inside somebody else's
`sim`). So `import qnodeos` asks the import system where it would find each of them, and
stops if that is not beside qnodeos. Nothing is imported for the check: it costs five
look-ups on the path.

`tests` is left out on purpose: nothing at run time imports it, so somebody else's
package of that name does no harm.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from typing import Final

PACKAGES: Final = ("drivers", "instruments", "sequences", "calibration", "sim")
"""Our top-level packages besides qnodeos that are imported at run time."""


def check_packages() -> None:
    """Check that every package of ours would be imported from beside qnodeos.

    Raises:
        ImportError: a package is missing, or something else has taken its name.
    """
    home = Path(__file__).resolve().parent.parent
    for name in PACKAGES:
        found = _location(name)
        if found is None:
            raise ImportError(
                f"qnodeos needs its package {name!r}, which should be at {home / name} but was "
                "not found: the installation is incomplete; install qnodeos again",
                name=name,
            )
        if not _same_place(found, home / name):
            raise ImportError(
                f"{found} has taken the name {name!r}, which belongs to the package of qnodeos "
                f"at {home / name}: {_remedy(found)}",
                name=name,
                path=str(found),
            )


def _location(name: str) -> Path | None:
    """Where the import system would find a top-level package, or the file of a module."""
    try:
        spec = find_spec(name)
    except ValueError:  # imported already, and without a spec: a module made by hand
        file = getattr(sys.modules[name], "__file__", None)
        return Path(file or f"<module {name} without a file>")
    return None if spec is None else _path(spec)


def _path(spec: ModuleSpec) -> Path:
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(spec.origin or f"<module {spec.name} without a file>")


def _same_place(found: Path, expected: Path) -> bool:
    try:
        return os.path.samefile(found, expected)
    except OSError:
        return False


def _remedy(found: Path) -> str:
    if "site-packages" in found.parts or "dist-packages" in found.parts:
        return (
            "another distribution installed it; install qnodeos into a virtual environment of "
            "its own"
        )
    return (
        "rename it, take its folder off the import path (PYTHONPATH), or start Python from "
        "another directory"
    )
