"""Which C sources an extension was built from; setup.py loads this file, too."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final

SOURCES: Final = Path(__file__).resolve().parent / "csrc"


def digest_of(folder: Path) -> str:
    """A number for the C sources in a folder; "" if there are none."""
    paths = sorted(path for path in folder.glob("*.[ch]"))
    if not paths:
        return ""
    digest = hashlib.sha256()
    for path in paths:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]
