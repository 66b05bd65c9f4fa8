"""From files to programs on a node: what `qnodeos run` and measurements have in common."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final

from qnodeos.cnpu.app_network import AppNetwork
from qnodeos.cnpu.app_session import START_TIMEOUT_S
from qnodeos.cnpu.host import NetworkDirectory
from qnodeos.cnpu.inputs import check_inputs
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.cnpu.rehearsal import Rehearsals
from qnodeos.cnpu.remote import RemoteCnpu
from qnodeos.errors import ConfigurationError
from qnodeos.service.node_file import NodeFile
from qnodeos.transport import Address

__all__ = ["build_cnpu", "check_inputs", "hardware_names", "load_program"]

DEFAULT_ENTRY: Final = "main"
_FILE_PREFIX: Final = "app_"
_module_numbers: Final = count()


def build_cnpu(
    node: NodeFile,
    *,
    role: str | None = None,
    roles: Mapping[str, str] | None = None,
    api: Address | None = None,
    listen_on: Address | None = None,
    reach: Mapping[str, Address] | None = None,
    start_timeout_s: float = START_TIMEOUT_S,
    spin_s: float = 0.0,
    rehearse_s: float = 0.0,
    name: str = "qnodeos run",
) -> RemoteCnpu:
    """The CNPU of a node, for the programs of this process; close it.

    Args:
        node: the node file.
        role: further application name that this node runs.
        roles: nodes of further application names.
        api: where to reach the QNPU; a local one of the node file's if not given.
        listen_on: where the processes of other nodes reach this one; the node file's
            ``applications.listen`` if not given.
        reach: where the processes of other nodes are, by node, instead of what the node file
            says.
        start_timeout_s: how long a program waits for the other node's process to be there.
        spin_s: how long a program that waits for a message keeps looking before it sleeps.
        rehearse_s: how often a program that waits goes through what comes next; 0 for never.
        name: who this is, for the QNPU's listings.

    Raises:
        ConfigurationError: the address to listen on is taken, or a name is unknown.
    """
    nodes = node.node_ids
    unknown = sorted(set(reach or ()) - set(nodes))
    if unknown:
        raise ConfigurationError(f"there is no node {unknown[0]!r}; there are {', '.join(nodes)}")
    applications = {name: name for name in nodes} | dict(node.roles) | dict(roles or {})
    if role is not None:
        applications[role] = node.name
    peers = node.application_addresses | dict(reach or {})
    place = api if api is not None else _best(node.api.listen)

    def connect(numbers: Iterator[int]) -> QnpuClient:
        return QnpuClient.connect(
            place, node.tls, name=name, expected_name=node.name, numbers=numbers
        )

    if listen_on is None and node.applications is not None:
        listen_on = node.applications.listen
    rehearsals = Rehearsals(rehearse_s) if rehearse_s else None
    network = AppNetwork(
        node_name=node.name,
        node_ids=nodes,
        applications=applications,
        listen_on=listen_on,
        peers=peers,
        tls=node.tls,
        start_timeout_s=start_timeout_s,
        spin_s=spin_s,
        rehearsals=rehearsals,
    )
    return RemoteCnpu(
        node_name=node.name,
        directory=NetworkDirectory(nodes, applications),
        connect=connect,
        network=network,
        rehearsals=rehearsals,
    )


def hardware_names() -> dict[str, Any]:
    """What programs import from NetQASM to make their connections themselves."""
    from qnodeos import connection
    from qnodeos import socket as sockets

    public = {**vars(connection), **vars(sockets)}
    return {name: public[name] for name in (*connection.__all__, *sockets.__all__)}


def _best(addresses: tuple[Address, ...]) -> Address:
    """The quickest: a Unix socket, else one that does not leave the machine."""
    return min(addresses, key=lambda address: (not address.is_unix, not address.is_local))


def load_program(spec: str) -> tuple[str, Callable[..., Any]]:
    """Import a program.

    Args:
        spec: a Python file or the name of a module; ``:function`` at the end chooses
            another function than ``main``.

    Returns:
        Its name and its function.

    Raises:
        ConfigurationError: there is none.
    """
    place, _, entry = spec.partition(":")
    entry = entry or DEFAULT_ENTRY
    path = Path(place)
    if path.suffix == ".py":
        module = _load_file(path)
        name = path.stem.removeprefix(_FILE_PREFIX)
    else:
        try:
            module = importlib.import_module(place)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{place}.".startswith(f"{error.name}."):
                raise
            raise ConfigurationError(
                f"there is no module {place!r}; give a Python file (program.py) or the name of a "
                "module that can be imported"
            ) from None
        name = place.rpartition(".")[2].removeprefix(_FILE_PREFIX)
    function = getattr(module, entry, None)
    if not callable(function):
        raise ConfigurationError(
            f"{place} has no function {entry!r} to start; name another as {place}:FUNCTION"
        )
    return name, function


def _load_file(path: Path) -> Any:
    if not path.is_file():
        raise ConfigurationError("there is no such file", file=str(path))
    folder = str(path.resolve().parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # what lies beside a program belongs to it
    # Programs of different applications often have files of the same name.
    name = f"qnodeos_program_{next(_module_numbers)}_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
