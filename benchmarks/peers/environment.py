"""An environment of its own for SimulaQron, made once, in `.venv-peers` beside the sources.

It cannot share ours: it needs older releases of numpy, scipy and qutip.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import venv
from pathlib import Path
from typing import Final

from qnodeos.errors import ConfigurationError

ROOT: Final = Path(__file__).parents[2]
DIRECTORY: Final = ROOT / ".venv-peers"
CONSTRAINTS: Final = Path(__file__).with_name("constraints.txt")
REQUIREMENTS: Final = ("simulaqron", "qutip")
"""qutip is the default back end, which SimulaQron's package does not ask for."""
_STAMP: Final = "installed"
_SHOWN_LINES: Final = 10


def ensure(directory: Path = DIRECTORY) -> Path:
    """The interpreter of the environment; makes the environment if it is not there.

    Args:
        directory: where it is.

    Raises:
        ConfigurationError: it cannot be made; says why.
    """
    python = directory / "bin" / "python"
    stamp = directory / _STAMP
    wanted = hashlib.sha256(CONSTRAINTS.read_bytes()).hexdigest()
    if stamp.is_file() and stamp.read_text("utf-8") == wanted:
        return python
    print(f"Making {directory} with SimulaQron (some minutes, once)", file=sys.stderr)
    venv.create(directory, with_pip=True, clear=True)
    install = subprocess.run(
        [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet",
         "--constraint", str(CONSTRAINTS), *REQUIREMENTS],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if install.returncode != 0:
        raise ConfigurationError(
            f"SimulaQron cannot be installed in {directory}:\n{last_lines(install.stderr)}"
        )
    stamp.write_text(wanted, "utf-8")
    return python


def last_lines(text: str) -> str:
    """The end of what a process wrote."""
    return "\n".join(text.strip().splitlines()[-_SHOWN_LINES:]) or "(it wrote nothing)"
