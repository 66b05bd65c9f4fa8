"""Running a SquidASM-style script: a file that makes a network, and runs programs on it."""

from __future__ import annotations

import os
import runpy
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from qnodeos.applications.simulation import seeded
from qnodeos.applications.squidasm.names import installed
from qnodeos.applications.squidasm.simulation import session
from qnodeos.errors import ConfigurationError


def run_script(
    path: str | os.PathLike[str],
    arguments: Sequence[str] = (),
    *,
    seed: int = 1,
    limit_s: float | None = None,
) -> dict[str, Any]:
    """Run a script as if it were the main program.

    Modules beside the script can be imported. Files are looked for in the working directory,
    as ever.

    Args:
        path: of the script.
        arguments: what it finds in `sys.argv`.
        seed: of its own randomness (`random` and numpy's global generator) and of its first
            simulation; the second has the next one, and so on.
        limit_s: virtual time each run of its programs may take, in seconds.

    Returns:
        Its global names.

    Raises:
        ConfigurationError: there is no such file.
        QNodeOSError: a simulation failed.
    """
    script = Path(path)
    if not script.is_file():
        raise ConfigurationError(f"{script} is no file; give a Python script")
    before_path, before_arguments = list(sys.path), list(sys.argv)
    session.seed, limits = seed, session.limits
    if limit_s is not None:
        session.limits = replace(session.limits, duration_s=limit_s)
    sys.path.insert(0, str(script.resolve().parent))
    sys.argv[:] = [str(script), *arguments]
    try:
        with installed(), seeded(f"{seed}/script"):
            return runpy.run_path(str(script), run_name="__main__")
    finally:
        sys.path[:], sys.argv[:] = before_path, before_arguments
        session.limits = limits
