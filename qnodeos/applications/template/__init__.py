"""A new application of two programs, as files to begin with."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final

from qnodeos.errors import ConfigurationError
from qnodeos.files import holding, write_files

DEFAULT_ROLES: Final = ("alice", "bob")
_ROLE: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_FILES: Final[Mapping[str, str]] = {
    "app_$creator.py": "app_creator.py",
    "app_$receiver.py": "app_receiver.py",
    "$creator.yaml": "inputs.yaml",
    "$receiver.yaml": "inputs.yaml",
    "roles.yaml": "roles.yaml",
    "network.yaml": "network.yaml",
    "perfect.yaml": "perfect.yaml",
    "test_application.py": "test_application.py",
    "README.md": "README.md",
}
"""File of the application, and the template it is made of."""
_RESERVED: Final = frozenset({"roles", "network", "perfect"})
"""Names of other files: a role's inputs are in ROLE.yaml."""


def write_application(directory: Path, roles: tuple[str, ...] = DEFAULT_ROLES) -> list[Path]:
    """Write a new application, which runs at once.

    Args:
        directory: where; it may be there already if it is empty.
        roles: who creates entanglement, and who receives it.

    Returns:
        The files.

    Raises:
        ConfigurationError: the roles are not two names, or the directory has files.
        ResultsNotWrittenError: a file cannot be written.
    """
    _check_roles(roles)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(f"{directory} is there and not an empty directory; name a new one")
    creator, receiver = roles
    names = {"creator": creator, "receiver": receiver, "name": directory.resolve().name}
    directory.mkdir(parents=True, exist_ok=True)
    templates = files(__name__) / "files"
    texts = {
        directory / Template(name).substitute(names): Template(
            (templates / f"{template}.template").read_text("utf-8")
        ).substitute(names)
        for name, template in _FILES.items()
    }
    return write_files({path: holding(text.encode()) for path, text in texts.items()})


def _check_roles(roles: tuple[str, ...]) -> None:
    if len(roles) != 2 or roles[0] == roles[1]:
        raise ConfigurationError(
            f"two different roles are needed, as in alice,bob, not {','.join(roles) or 'none'}"
        )
    for role in roles:
        if not _ROLE.fullmatch(role) or role in _RESERVED:
            raise ConfigurationError(
                f"{role!r} cannot be a role: it names files and is written in programs, so it has "
                f"up to 32 small letters, digits and _, begins with a letter, and is not one of "
                f"{', '.join(sorted(_RESERVED))}"
            )
