"""The network an application is simulated on: from a file, or one that fits it."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict
from typing import Final

from netqasm.runtime.interface.config import NetworkConfig

from qnodeos.assembly import (
    GenericDevice,
    NetworkDescription,
    NVDevice,
    load_description,
    read_netqasm_network,
)
from qnodeos.assembly.common import require_known
from qnodeos.assembly.netqasm_network import parse_netqasm_network
from qnodeos.config.document import parse_document
from qnodeos.config.loader import read_text
from qnodeos.errors import ConfigurationError
from sim.link import LinkParameters

MEMORIES: Final = 4
"""Of an NV node, so that it has five qubits as NetQASM's programs expect by default."""


def _generic(nodes: list[str]) -> NetworkDescription:
    return NetworkDescription.fully_connected(nodes, GenericDevice(qubits=MEMORIES + 1))


def _nv(nodes: list[str]) -> NetworkDescription:
    return NetworkDescription.fully_connected(nodes, NVDevice(memories=MEMORIES, noiseless=True))


def _nv_noisy(nodes: list[str]) -> NetworkDescription:
    device = NVDevice(memories=MEMORIES)
    return NetworkDescription.fully_connected(nodes, device, LinkParameters.paper())


DEVICES: Final[Mapping[str, Callable[[list[str]], NetworkDescription]]] = {
    "generic": _generic,
    "nv": _nv,
    "nv-noisy": _nv_noisy,
}
"""Networks by the device of their nodes: without noise, and NV with that of the paper's link."""


def default_network(nodes: Iterable[str], device: str) -> NetworkDescription:
    """Nodes that are all linked to each other.

    Args:
        nodes: their names.
        device: of each, one of `DEVICES`.

    Raises:
        ConfigurationError: there is no such device.
    """
    require_known("device", device, DEVICES)
    return DEVICES[device](list(nodes))


def read_network(path: str | os.PathLike[str]) -> NetworkDescription:
    """A network file: one of ours, or NetQASM's network.yaml, whose nodes are a list.

    Raises:
        ConfigurationError: it is neither, or wrong.
    """
    name = os.fspath(path)
    data = parse_document(read_text(path), name).data
    if isinstance(data, dict) and isinstance(data.get("nodes"), list):
        return read_netqasm_network(path)
    return load_description(path)


def description_of(network: NetworkConfig) -> NetworkDescription:
    """NetQASM's own object for a network, as one of ours.

    Raises:
        ConfigurationError: it describes what cannot be represented.
    """
    text = json.dumps(asdict(network), default=lambda value: value.value)  # of enumerations
    return parse_netqasm_network(text, "the network given")


def check_nodes(allocation: Mapping[str, str], nodes: Collection[str], source: str) -> None:
    """See that every role has a node in the network.

    Args:
        allocation: the node of each role.
        nodes: those of the network.
        source: where the allocation comes from, for messages.

    Raises:
        ConfigurationError: one has none.
    """
    for role, node in allocation.items():
        if node not in nodes:
            raise ConfigurationError(
                f"the role {role} is to run on node {node!r}, which is not in the network; its "
                f"nodes are {', '.join(nodes)} (roles.yaml says which role runs where)",
                file=source,
            )
