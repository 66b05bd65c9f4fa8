"""Networks as NetQASM's application directories describe them: `network.yaml`.

The fields are those of netqasm 2.3.0 (runtime/interface/config.py). What they mean is left to
the simulator there; here

* ``t1`` and ``t2`` are nanoseconds, 0 for no decay, as the simulator SquidASM takes them
  (squidasm/sim/network/network.py). Populations decay to 1/2 each;
* ``fidelity`` is that of the pair to the Bell state, ``gate_fidelity`` the average fidelity of
  every gate, whose error is depolarising noise. (SquidASM takes 1 - fidelity for the
  weight of the white noise, which makes it slightly less.)

What cannot be represented is refused.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from enum import StrEnum
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from qnodeos.assembly.description import (
    MAX_GENERIC_QUBITS,
    GenericDevice,
    LinkDescription,
    NetworkDescription,
    NodeDescription,
    NodeName,
    NVDevice,
    quick_link,
)
from qnodeos.config.loader import parse_config, read_text
from qnodeos.errors import ConfigurationError
from qnodeos.service.schedule_plan import MAX_LINKS, MAX_NODES
from sim.entangled_state import (
    BitFlipProtocol,
    EntanglementProtocol,
    PerfectProtocol,
    WernerProtocol,
)
from sim.link import LinkParameters
from sim.noise import NS_PER_MS

_QUBIT_DIMENSION: Final = 2
_PAIR_DIMENSION: Final = 4


class _Hardware(StrEnum):
    GENERIC = "Generic"
    NV = "NV"
    TRAPPED_ION = "TrappedIon"


class _Noise(StrEnum):
    NONE = "NoNoise"
    DEPOLARISE = "Depolarise"
    DISCRETE_DEPOLARISE = "DiscreteDepolarise"
    BIT_FLIP = "Bitflip"


class _Qubit(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(ge=0, lt=MAX_GENERIC_QUBITS)
    t1: float = Field(0.0, ge=0)
    t2: float = Field(0.0, ge=0)

    @property
    def decay(self) -> tuple[float, float]:
        return self.t1, self.t2


class _Node(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: NodeName
    hardware: _Hardware = _Hardware.GENERIC
    qubits: tuple[_Qubit, ...] = Field(min_length=1, max_length=MAX_GENERIC_QUBITS)
    gate_fidelity: float = Field(1.0, ge=0.5, le=1)


class _Link(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = ""
    node_name1: NodeName
    node_name2: NodeName
    noise_type: _Noise = _Noise.NONE
    fidelity: float = Field(1.0, ge=0, le=1)


class _File(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: tuple[_Node, ...] = Field(min_length=1, max_length=MAX_NODES)
    links: tuple[_Link, ...] = Field((), max_length=2 * MAX_LINKS)


def read_netqasm_network(path: str | os.PathLike[str]) -> NetworkDescription:
    """A `network.yaml` of NetQASM.

    Args:
        path: the file. A link may stand in it once for each direction.

    Raises:
        ConfigurationError: the file is wrong, or describes what cannot be represented.
    """
    return parse_netqasm_network(read_text(path), os.fspath(path))


def parse_netqasm_network(text: str, name: str) -> NetworkDescription:
    """The text of a `network.yaml` of NetQASM.

    Args:
        text: YAML or JSON.
        name: of the file, for messages.

    Raises:
        ConfigurationError: as for `read_netqasm_network`.
    """
    file = parse_config(text, _File, name)
    names = [node.name for node in file.nodes]
    for node in names:
        if names.count(node) > 1:
            raise ConfigurationError(f"node {node} stands in it twice", file=name, field="nodes")
    try:
        return NetworkDescription(
            nodes={node.name: _node(node) for node in file.nodes},
            links=_links(file.links),
        )
    except ValidationError as error:
        text = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(text, file=name) from error
    except ConfigurationError as error:
        raise ConfigurationError(str(error), file=name) from None


def _node(node: _Node) -> NodeDescription:
    ids = sorted(qubit.id for qubit in node.qubits)
    if ids != list(range(len(ids))):
        raise ConfigurationError(
            f"node {node.name} has qubits {', '.join(map(str, ids))}; number them from 0"
        )
    qubits = sorted(node.qubits, key=lambda qubit: qubit.id)
    if node.hardware is _Hardware.TRAPPED_ION:
        raise ConfigurationError(
            f"node {node.name} is of hardware {node.hardware.value}, which has no link to other "
            "nodes here; use Generic or NV"
        )
    error = 1 - node.gate_fidelity
    single = {"gate_depolarising": _depolarising(error, _QUBIT_DIMENSION)} if error else {}
    physics: dict[str, Any] = {}
    if error:
        physics["pair_depolarising"] = _depolarising(error, _PAIR_DIMENSION)
    if node.hardware is _Hardware.GENERIC:
        _set(physics, "communication", single | _decay(node, "qubits", qubits))
        return NodeDescription(device=GenericDevice(qubits=len(qubits), physics=physics))
    _set(physics, "communication", single | _decay(node, "the electron", qubits[:1]))
    _set(physics, "memory", single | _decay(node, "memories", qubits[1:]))
    return NodeDescription(
        device=NVDevice(memories=len(qubits) - 1, noiseless=True, physics=physics)
    )


def _set(physics: dict[str, Any], kind: Literal["communication", "memory"], fields: Any) -> None:
    if fields:
        physics[kind] = fields


def _depolarising(error: float, dimension: int) -> float:
    """Probability of white noise that gives an average gate fidelity of 1 - error."""
    return error / (1 - 1 / dimension)


def _decay(node: _Node, what: str, qubits: Sequence[_Qubit]) -> dict[str, float]:
    """Decay of qubits of one kind; T1 alone bounds T2 to twice of it."""
    if len({qubit.decay for qubit in qubits}) > 1:
        raise ConfigurationError(
            f"the {what} of node {node.name} decay at different rates (t1, t2); make them equal: a "
            "device has one rate for its communication qubits and one for its memories"
        )
    if not qubits:
        return {}
    t1, t2 = qubits[0].decay
    if t1 and t2 > 2 * t1:
        raise ConfigurationError(
            f"the {what} of node {node.name} have t1 = {t1:g} and t2 = {t2:g}; t2 cannot be longer "
            "than twice t1"
        )
    t1_ns, t2_ns = t1 or math.inf, t2 or 2 * (t1 or math.inf)
    times = {"relaxation_time_ms": t1_ns, "coherence_time_ms": t2_ns}
    return {field: ns / NS_PER_MS for field, ns in times.items() if math.isfinite(ns)}


def _links(links: Sequence[_Link]) -> tuple[LinkDescription, ...]:
    found: dict[frozenset[str], _Link] = {}
    for link in links:
        ends = frozenset((link.node_name1, link.node_name2))
        other = found.setdefault(ends, link)
        if (other.noise_type, other.fidelity) != (link.noise_type, link.fidelity):
            raise ConfigurationError(
                f"there are two links between {link.node_name1} and {link.node_name2} that differ; "
                "leave one"
            )
    return tuple(
        LinkDescription(between=(link.node_name1, link.node_name2), link=_parameters(link))
        for link in found.values()
    )


def _parameters(link: _Link) -> LinkParameters:
    quick = quick_link()
    return quick.model_copy(
        update={"protocol": _protocol(link, quick.protocol.success_probability)}
    )


def _protocol(link: _Link, success_probability: float) -> EntanglementProtocol:
    if link.noise_type is _Noise.NONE:
        return PerfectProtocol(success_probability=success_probability)
    kind = BitFlipProtocol if link.noise_type is _Noise.BIT_FLIP else WernerProtocol
    try:
        return kind(success_probability=success_probability, fidelity=link.fidelity)
    except ValidationError:
        raise ConfigurationError(
            f"the link between {link.node_name1} and {link.node_name2} has noise_type "
            f"{link.noise_type.value} with fidelity {link.fidelity:g}; that noise leaves at least "
            "0.25"
        ) from None
