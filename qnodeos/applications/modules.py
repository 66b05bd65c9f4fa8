"""The modules of an application, apart from those of all others.

Applications call their modules alike: `src`, `shared`, `app_client`. In one interpreter the
second application would get those of the first. Here each application has a name space of
its own, which is in `sys.modules` only while the application is loaded and while it runs.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Final

_SHARED: Final = frozenset({"netqasm", "numpy", "qnodeos", "yaml"}) | sys.stdlib_module_names
"""Never an application's own: two copies of these in one interpreter would not work together."""


class ApplicationModules:
    """What can be imported in the directory of an application, and what was.

    Args:
        directory: of the application.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory.resolve())
        self._loaded: dict[str, ModuleType] = {}
        self._is_active = False

    @contextmanager
    def active(self) -> Iterator[None]:
        """Let imports find the application's modules; afterwards all is as it was before.

        Modules from elsewhere that have the names of the application's are out of sight
        meanwhile. Modules it imports from elsewhere stay imported. Within itself it has no
        effect.
        """
        if self._is_active:
            yield
            return
        own = self._own_names()
        path = list(sys.path)
        hidden = _take(own)
        sys.modules.update(self._loaded)
        sys.path.insert(0, self._directory)
        # A file written a moment ago may not be in the import system's listing yet.
        importlib.invalidate_caches()
        self._is_active = True
        try:
            yield
        finally:
            self._is_active = False
            self._loaded = _take(own)
            sys.modules.update(hidden)
            sys.path[:] = path

    def _own_names(self) -> frozenset[str]:
        """Names that an import would find in the directory."""
        names = set()
        for entry in Path(self._directory).iterdir():
            name = entry.stem if entry.suffix == ".py" else entry.name
            is_module = entry.suffix == ".py" or any(entry.glob("*.py"))
            if is_module and "." not in name:
                names.add(name)
        return frozenset(names - _SHARED)


def _take(names: frozenset[str]) -> dict[str, ModuleType]:
    """Take modules, and what lies in them, out of `sys.modules`."""
    found = [name for name in sys.modules if name.partition(".")[0] in names]
    return {name: sys.modules.pop(name) for name in found}
