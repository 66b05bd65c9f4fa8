"""A new application, as files to begin with: of two programs, or of a chain of programs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.resources import files
from itertools import pairwise
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
MAX_ROLES: Final = 6
"""So many may join all their pairs at once to a state that can be simulated (10 qubits)."""
_CHAIN_FILES: Final = (
    "ghz.py",
    "network.yaml",
    "perfect.yaml",
    "test_application.py",
    "README.md",
)
"""Files of a chain that are there once, and the templates in chain/ that they are made of."""
_NOISY_DEVICE: Final = (
    "{kind: generic, qubits: 2, "
    "physics: {communication: {coherence_time_ms: 50, readout_fidelity_0: 0.99}}}"
)
_NOISY_LINK: Final = "protocol: {kind: werner, fidelity: 0.97, success_probability: 0.02}"
_RESERVED: Final = frozenset({"roles", "network", "perfect"})
"""Names of other files: a role's inputs are in ROLE.yaml."""


def write_application(directory: Path, roles: tuple[str, ...] = DEFAULT_ROLES) -> list[Path]:
    """Write a new application, which runs at once.

    Args:
        directory: where; it may be there already if it is empty.
        roles: who creates entanglement, and who receives it; or three and more in a chain.

    Returns:
        The files.

    Raises:
        ConfigurationError: the roles are no two to six names, or the directory has files.
        ResultsNotWrittenError: a file cannot be written.
    """
    _check_roles(roles)
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise ConfigurationError(f"{directory} is there and not an empty directory; name a new one")
    name = directory.resolve().name
    texts = _pair(*roles, name) if len(roles) == 2 else _chain(roles, name)
    directory.mkdir(parents=True, exist_ok=True)
    return write_files({directory / path: holding(text.encode()) for path, text in texts.items()})


def _pair(creator: str, receiver: str, name: str) -> dict[str, str]:
    """Text by file name."""
    names = {"creator": creator, "receiver": receiver, "name": name}
    return {
        Template(path).substitute(names): _filled(template, names)
        for path, template in _FILES.items()
    }


def _chain(roles: tuple[str, ...], name: str) -> dict[str, str]:
    """Text by file name."""
    between = [f"  - between: [{one}, {other}]" for one, other in pairwise(roles)]
    names = {
        "name": name,
        "first": roles[0],
        "number": str(len(roles)),
        "listed": ", ".join(roles),
        "roles": "[" + ", ".join(f'"{role}"' for role in roles) + "]",
        "nodes": "\n".join(f"  {role}: {{device: {{kind: generic, qubits: 2}}}}" for role in roles),
        "noisy_nodes": "\n".join(f"  {role}:\n    device: {_NOISY_DEVICE}" for role in roles),
        "links": "\n".join(between),
        "noisy_links": "\n".join(f"{link}\n    link: {{{_NOISY_LINK}}}" for link in between),
    }
    texts = {path: _filled(f"chain/{path}", names) for path in _CHAIN_FILES}
    for role in roles:
        program = "app_first.py" if role == roles[0] else "app_other.py"
        texts[f"app_{role}.py"] = _filled(f"chain/{program}", {"role": role})
        texts[f"{role}.yaml"] = _filled("chain/inputs.yaml", {})
    return texts


def _filled(template: str, names: Mapping[str, str]) -> str:
    path = files(__name__) / "files" / f"{template}.template"
    return Template(path.read_text("utf-8")).substitute(names)


def _check_roles(roles: tuple[str, ...]) -> None:
    if not 2 <= len(roles) <= MAX_ROLES or len(set(roles)) < len(roles):
        raise ConfigurationError(
            f"two to {MAX_ROLES} different roles are needed, as in alice,bob, not "
            f"{','.join(roles) or 'none'}"
        )
    for role in roles:
        if not _ROLE.fullmatch(role) or role in _RESERVED:
            raise ConfigurationError(
                f"{role!r} cannot be a role: it names files and is written in programs, so it has "
                f"up to 32 small letters, digits and _, begins with a letter, and is not one of "
                f"{', '.join(sorted(_RESERVED))}"
            )
