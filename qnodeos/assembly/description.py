"""A network of many nodes, as data: nodes, links and time bins, in one YAML file.

A node names its device, a link the two nodes it joins; what is not named is as an application
developer wants it: no noise, pairs within a fraction of a millisecond. `assembly.many_nodes`
puts the network together.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    model_validator,
)

from qnodeos.assembly.common import PROFILES, require_known
from qnodeos.assembly.network import ScheduleConfig
from qnodeos.config.loader import changed, load_config
from qnodeos.errors import ConfigurationError
from qnodeos.qnpu.routes import Route, make_routes
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.service.schedule_plan import MAX_LINKS, MAX_NODES, plan_bins
from sim.entangled_state import PerfectProtocol, SinglePhotonProtocol
from sim.link import LinkParameters
from sim.register_physics import RegisterPhysics

MAX_GENERIC_QUBITS: Final = 16
"""An instruction has four bits for the address of a qubit."""

QUICK_ATTEMPT_PERIOD_NS: Final = 10_000
QUICK_ATTEMPTS: Final = 10
QUICK_SUCCESS_PROBABILITY: Final = 0.5
MIXED_FIDELITY: Final = 0.25
"""Of two spins that have nothing to do with each other, if both are fully mixed."""
_SWAP_QUBITS: Final = 2
"""A repeater holds a half of each of two pairs."""
_DECIDED: Final = frozenset({"communication_qubits", "memory_qubits", "star"})
_MS_IN_NS: Final = 1_000_000
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_SHOWN: Final = 8
"""Names that a message lists."""


def _checked_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("a node's name has up to 64 letters, digits, _, . and -, no digit first")
    return name


def _checked_ends(ends: Any) -> Any:
    """Say that they are two names, in words that need no knowledge of tuples."""
    if not isinstance(ends, list | tuple) or len(ends) != 2:
        raise ValueError(
            "must be the names of two nodes, as in [alice, bob], with a link for each two nodes"
        )
    return tuple(ends)


NodeName = Annotated[str, AfterValidator(_checked_name)]
Fidelity = Annotated[float, Field(ge=0, le=1)]


def quick_link() -> LinkParameters:
    """Exact Bell states within a few attempts of 10 us (assumed): little to simulate."""
    return LinkParameters(
        attempt_period_ns=QUICK_ATTEMPT_PERIOD_NS,
        attempts_per_batch=QUICK_ATTEMPTS,
        protocol=PerfectProtocol(success_probability=QUICK_SUCCESS_PROBABILITY),
    )


def _quickened(link: LinkParameters, info: ValidationInfo) -> LinkParameters:
    """A link from a file, with what the quick one has where the file names nothing."""
    if info.mode != "json":
        return link
    quick = quick_link()
    named = link.model_fields_set
    changes: dict[str, Any] = {
        name: getattr(quick, name) for name in quick.model_fields_set if name not in named
    }
    protocol = link.protocol
    if (
        "protocol" in named
        and not isinstance(protocol, SinglePhotonProtocol)
        and "success_probability" not in protocol.model_fields_set
    ):
        changes["protocol"] = protocol.model_copy(
            update={"success_probability": QUICK_SUCCESS_PROBABILITY}
        )
    return link.model_copy(update=changes)


def _quick_schedule() -> ScheduleConfig:
    return ScheduleConfig(bin_ms=1.0, guard_ms=0.1)


class _Device(BaseModel):
    """What all kinds of devices have in common."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    physics: dict[str, Any] = Field(
        default_factory=dict, description="the fields of `RegisterPhysics` that differ"
    )

    def register_physics(self) -> RegisterPhysics:
        """Its noise and durations.

        Raises:
            ConfigurationError: ``physics`` names what there is not.
        """
        base = self._base()
        for name in _DECIDED & self.physics.keys():
            raise ConfigurationError(
                f"physics.{name} follows from the kind of the device and the number of its "
                "qubits; leave it out"
            )
        return changed(base, self.physics, "physics") if self.physics else base

    def _base(self) -> RegisterPhysics:
        """The physics of the kind of device; each kind has its own."""
        raise NotImplementedError

    @model_validator(mode="after")
    def _has_physics(self) -> Self:
        try:
            self.register_physics()
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        return self


class GenericDevice(_Device):
    """Qubits that can all be entangled and have all gates with each other; by default no noise."""

    kind: Literal["generic"] = Field("generic", description="which device this is")
    qubits: int = Field(5, ge=1, le=MAX_GENERIC_QUBITS, description="qubits")

    def _base(self) -> RegisterPhysics:
        return RegisterPhysics.generic(self.qubits)


class NVDevice(_Device):
    """An NV centre: the electron, the only qubit that is entangled with others, and memories."""

    kind: Literal["nv"] = Field("nv", description="which device this is")
    memories: int = Field(
        4, ge=0, le=MAX_GENERIC_QUBITS - 1, description="carbon-13 spins beside the electron"
    )
    noiseless: bool = Field(
        False, description="no errors, no decay, and every operation takes one tick"
    )

    def _base(self) -> RegisterPhysics:
        if self.noiseless:
            return RegisterPhysics.nv_noiseless(self.memories)
        return RegisterPhysics.nv(self.memories)


Device = Annotated[GenericDevice | NVDevice, Field(discriminator="kind")]


class NodeDescription(BaseModel):
    """One node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    device: Device = Field(default_factory=GenericDevice, description="its quantum device")


class LinkDescription(BaseModel):
    """A link between two nodes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    between: Annotated[tuple[NodeName, NodeName], BeforeValidator(_checked_ends)] = Field(
        description="the two nodes; A of a protocol is the one that stands first under nodes"
    )
    link: Annotated[LinkParameters, AfterValidator(_quickened)] = Field(
        default_factory=quick_link,
        description="how entanglement is made; what it does not name is as in the default link",
    )
    fidelity: Fidelity | None = Field(
        None,
        description="estimate for requests that ask for one; computed from the protocol by default",
    )

    @property
    def estimate(self) -> float:
        """Fidelity to expect of a pair at its herald."""
        if self.fidelity is not None:
            return self.fidelity
        return MIXED_FIDELITY if self.link.mocked else self.link.protocol.fidelity


class DeviceNetwork(BaseModel):
    """The devices of nodes, and the links between them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    nodes: dict[NodeName, NodeDescription] = Field(
        min_length=1, max_length=MAX_NODES, description="the nodes, by name"
    )
    links: tuple[LinkDescription, ...] = Field(
        (), max_length=MAX_LINKS, description="the links between them"
    )

    @model_validator(mode="after")
    def _can_be_joined(self) -> Self:
        self._check_names()
        self._check_ticks()
        return self

    def _check_names(self) -> None:
        seen: set[frozenset[str]] = set()
        for number, link in enumerate(self.links):
            first, second = link.between
            for name in link.between:
                if name not in self.nodes:
                    raise ValueError(
                        f"links[{number}] joins {name!r}, which is no node; the nodes are "
                        f"{_listed(self.nodes)}"
                    )
            if first == second:
                raise ValueError(f"links[{number}] joins {first!r} with itself; name two nodes")
            if frozenset(link.between) in seen:
                raise ValueError(
                    f"links[{number}] is a second link between {first!r} and {second!r}; there is "
                    "at most one between two nodes"
                )
            seen.add(frozenset(link.between))

    def _check_ticks(self) -> None:
        ticks_ns = {
            name: node.device.register_physics().tick_ns for name, node in self.nodes.items()
        }
        if len(set(ticks_ns.values())) > 1:
            common = Counter(ticks_ns.values()).most_common(1)[0][0]
            name = next(name for name, tick_ns in ticks_ns.items() if tick_ns != common)
            raise ValueError(
                f"a tick is {ticks_ns[name]} ns at node {name} and {common} ns at others; nodes of "
                "one network need the same tick"
            )

    @property
    def tick_ns(self) -> int:
        """Length of a tick of all nodes."""
        return next(iter(self.nodes.values())).device.register_physics().tick_ns

    def neighbours(self, name: str) -> dict[str, LinkDescription]:
        """A node's links by neighbour; their order numbers the links of its device."""
        return {
            other: link
            for link in self.links
            if name in link.between
            for other in link.between
            if other != name
        }


class NetworkDescription(DeviceNetwork):
    """Nodes, the links between them, and the time bins in which those are used."""

    schedule: ScheduleConfig = Field(
        default_factory=_quick_schedule,
        description="the time bins; each is given to links that share no node",
    )
    latencies: str = Field(
        "zero", description=f"latency profile of all nodes: {', '.join(PROFILES)}"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        try:
            require_known("latency profile", self.latencies, PROFILES)
        except ConfigurationError as error:
            raise ValueError(str(error)) from None
        self._check_bins()
        return self

    def _check_bins(self) -> None:
        for number, link in enumerate(self.links):
            try:
                self._schedule((None,), link.link.batch_ns)
            except ValueError:
                raise ValueError(
                    f"a guard of schedule.guard_ms = {self.schedule.guard_ms:g} and a batch of "
                    f"{link.link.batch_ns / _MS_IN_NS:g} ms (links[{number}].link: "
                    "attempts_per_batch x attempt_period_ns) do not fit a bin of "
                    f"schedule.bin_ms = {self.schedule.bin_ms:g}; lengthen the bin or shorten "
                    "the others"
                ) from None

    # --- what follows from it -------------------------------------------------------------

    @property
    def node_ids(self) -> dict[str, int]:
        """Node ids by name: the place in the description."""
        return {name: number for number, name in enumerate(self.nodes)}

    @property
    def bins(self) -> list[list[tuple[str, str]]]:
        """The links of each time bin of the repeating pattern; empty without links."""
        return plan_bins([link.between for link in self.links])

    def routes(self, absent: Collection[str] = ()) -> dict[int, dict[int, Route]]:
        """The route of every node to every other that it can reach, by node ids.

        Args:
            absent: nodes that no route leads to or over.
        """
        ids = self.node_ids
        return make_routes(
            {
                (ids[link.between[0]], ids[link.between[1]]): link.estimate
                for link in self.links
                if not set(link.between) & set(absent)
            },
            ends={
                ids[name]
                for name, node in self.nodes.items()
                if node.device.register_physics().qubits < _SWAP_QUBITS
            },
        )

    def schedules(self) -> dict[str, NetworkSchedule]:
        """The time bins of every node that has a link, by its name."""
        if not self.links:
            return {}
        batch_ns = max(link.link.batch_ns for link in self.links)
        ids, bins = self.node_ids, self.bins
        patterns: dict[str, list[int | None]] = {
            name: [None] * len(bins) for link in self.links for name in link.between
        }
        for number, links in enumerate(bins):
            for first, second in links:
                patterns[first][number] = ids[second]
                patterns[second][number] = ids[first]
        return {
            name: self._schedule(tuple(pattern), batch_ns) for name, pattern in patterns.items()
        }

    def _schedule(self, pattern: tuple[int | None, ...], batch_ns: int) -> NetworkSchedule:
        """A schedule; raises ValueError if such a batch does not fit its bins."""
        tick_ns = self.tick_ns
        return NetworkSchedule(
            bin_ticks=round(self.schedule.bin_ms * _MS_IN_NS / tick_ns),
            guard_ticks=round(self.schedule.guard_ms * _MS_IN_NS / tick_ns),
            batch_ticks=-(-batch_ns // tick_ns) + 2,
            pattern=pattern,
        )

    # --- networks of a shape --------------------------------------------------------------

    @classmethod
    def joined(
        cls,
        names: Iterable[str],
        links: Iterable[tuple[str, str]],
        device: GenericDevice | NVDevice | None = None,
        link: LinkParameters | None = None,
        **others: Any,
    ) -> NetworkDescription:
        """Equal nodes, joined by equal links.

        Args:
            names: of the nodes.
            links: which of them are joined.
            device: of every node; the generic one of five qubits if not given.
            link: every link; the quick noiseless one if not given.
            others: fields of the description; by default the time bins are short if a batch
                fits, else as published.

        Raises:
            pydantic.ValidationError: that is no network.
        """
        node = NodeDescription(device=device if device is not None else GenericDevice())
        parameters = link if link is not None else quick_link()
        if not _fits(_quick_schedule(), parameters):
            others = {"schedule": ScheduleConfig(), **others}
        return cls(
            nodes={name: node for name in names},
            links=tuple(LinkDescription(between=pair, link=parameters) for pair in links),
            **others,
        )

    @classmethod
    def fully_connected(
        cls,
        names: Sequence[str],
        device: GenericDevice | NVDevice | None = None,
        link: LinkParameters | None = None,
        **others: Any,
    ) -> NetworkDescription:
        """A link between any two nodes; arguments as for `joined`."""
        links = [(a, b) for place, a in enumerate(names) for b in names[place + 1 :]]
        return cls.joined(names, links, device, link, **others)

    @classmethod
    def chain(
        cls,
        nodes: int,
        device: GenericDevice | NVDevice | None = None,
        link: LinkParameters | None = None,
        **others: Any,
    ) -> NetworkDescription:
        """Nodes n0, n1, ... in a row; arguments as for `joined`."""
        names = [f"n{number}" for number in range(nodes)]
        return cls.joined(names, pairwise(names), device, link, **others)

    @classmethod
    def star(
        cls,
        nodes: int,
        device: GenericDevice | NVDevice | None = None,
        link: LinkParameters | None = None,
        **others: Any,
    ) -> NetworkDescription:
        """A node hub with a link to each of n1, n2, ...; arguments as for `joined`."""
        leaves = [f"n{number}" for number in range(1, nodes)]
        return cls.joined([HUB, *leaves], [(HUB, leaf) for leaf in leaves], device, link, **others)


HUB: Final = "hub"
"""The node in the middle of a star."""


def load_description(path: str | os.PathLike[str]) -> NetworkDescription:
    """A network file.

    Raises:
        ConfigurationError: the file is wrong.
    """
    return load_config(path, NetworkDescription)


def _fits(schedule: ScheduleConfig, link: LinkParameters) -> bool:
    return link.batch_ns <= (schedule.bin_ms - schedule.guard_ms) * _MS_IN_NS


def _listed(names: Mapping[str, object]) -> str:
    shown = list(names)[:_SHOWN]
    more = len(names) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
