"""CONTROLLER.yaml: the nodes of a network, its links and their time bins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from qnodeos.config import load_config
from qnodeos.qnpu.routes import PERFECT
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.service.node_file import AddressField, NodeId, NodeName
from qnodeos.service.schedule_plan import MAX_LINKS, MAX_NODES, plan_bins
from qnodeos.transport import TlsFiles

Fidelity = Annotated[float, Field(ge=0, le=1)]

_NS_PER_MS: Final = 1_000_000
_BATCH_MARGIN_TICKS: Final = 2
"""An outcome is seen in the tick after it, and the next instruction goes out in another."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ControlledNode(_Section):
    """A node of the network."""

    node_id: NodeId = Field(description="its number, as in its node file")
    address: AddressField = Field(description="where its QNPU listens for peers (peer.listen)")


class SynchronisationConfig(_Section):
    """How the ticks of the nodes are related (all assumed)."""

    period_ms: Annotated[int, Field(ge=50, le=60_000)] = Field(
        1_000, description="time between two rounds of reading ticks"
    )
    exchanges: Annotated[int, Field(ge=1, le=100)] = Field(
        8, description="readings per round; the one with the shortest way counts"
    )
    tolerance_ticks: Annotated[int, Field(ge=0, le=1_000)] = Field(
        8, description="how far a reading may be off beyond half its round trip"
    )
    first_round_ms: Annotated[int, Field(ge=0, le=600_000)] = Field(
        2_000, description="how long the first schedule waits for nodes that do not answer"
    )


class ControllerFile(_Section):
    """The network."""

    name: NodeName = Field(
        "controller", description="of the controller, as in its certificate and the node files"
    )
    nodes: Annotated[dict[NodeName, ControlledNode], Field(min_length=2, max_length=MAX_NODES)] = (
        Field(description="the nodes by name")
    )
    links: Annotated[
        tuple[tuple[NodeName, NodeName] | tuple[NodeName, NodeName, Fidelity], ...],
        Field(min_length=1, max_length=MAX_LINKS),
    ] = Field(
        description="pairs of neighbours that make entanglement; they have devices with the same "
        "tick. A third entry is an estimate of the fidelity of their pairs (1 if there is none): "
        "routes to other nodes are the best by these. A node in no pair runs local programs, and "
        "gets no schedule"
    )
    bin_ms: Annotated[float, Field(gt=0, le=1_000)] = Field(
        10.0, description="length of a time bin (published: 10 ms)"
    )
    guard_ms: Annotated[float, Field(ge=0, le=1_000)] = Field(
        1.0,
        description="time at the start of a bin before attempts begin (in published traces: 1 ms)",
    )
    batch_ms: Annotated[float, Field(gt=0, le=1_000)] = Field(
        8.8,
        description="longest time that one ENT instruction takes, attempts_per_batch times "
        "attempt_period_ns (8.8 ms follow from published data)",
    )
    start_delay_ms: Annotated[int, Field(ge=1, le=60_000)] = Field(
        200, description="time until a new schedule counts (assumed)"
    )
    synchronisation: SynchronisationConfig = Field(
        SynchronisationConfig(), description="how the ticks of the nodes are related"
    )
    tls: TlsFiles | None = Field(
        None, description="certificates; required for TCP addresses that are not loopback"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        ids: dict[int, str] = {}
        for name, node in self.nodes.items():
            if node.node_id in ids:
                raise ValueError(
                    f"nodes.{name} and nodes.{ids[node.node_id]} share node_id {node.node_id}; "
                    "each node needs its own"
                )
            ids[node.node_id] = name
            if self.tls is None and not node.address.is_local:
                raise ValueError(
                    f"nodes.{name}.address is {node.address}, which leaves this machine: give "
                    "certificate, key and authority in tls, or use a loopback address"
                )
        seen: set[frozenset[str]] = set()
        for first, second, *_ in self.links:
            for name in (first, second):
                if name not in self.nodes:
                    raise ValueError(
                        f"links: {name!r} is no node; there are {', '.join(self.nodes)}"
                    )
            if first == second or frozenset((first, second)) in seen:
                raise ValueError(
                    f"links: {first} - {second} joins a node to itself or is named twice"
                )
            seen.add(frozenset((first, second)))
        return self

    def schedule(self, tick_ns: int) -> NetworkSchedule:
        """Lengths of the schedule in ticks of some length; without pattern or epoch.

        Raises:
            ValueError: guard and batch do not fit a bin.
        """
        return NetworkSchedule(
            bin_ticks=max(1, round(self.bin_ms * _NS_PER_MS / tick_ns)),
            guard_ticks=round(self.guard_ms * _NS_PER_MS / tick_ns),
            batch_ticks=-(-round(self.batch_ms * _NS_PER_MS) // tick_ns) + _BATCH_MARGIN_TICKS,
            pattern=(None,),
        )

    def patterns(self) -> dict[str, tuple[int, ...]]:
        """For each node, the node id of its peer in each time bin, -1 for none."""
        bins = plan_bins([(first, second) for first, second, *_ in self.links])
        patterns = {name: [-1] * len(bins) for name in self.nodes}
        for number, links in enumerate(bins):
            for first, second in links:
                patterns[first][number] = self.nodes[second].node_id
                patterns[second][number] = self.nodes[first].node_id
        return {name: tuple(pattern) for name, pattern in patterns.items()}

    def fidelities(self) -> dict[tuple[int, int], float]:
        """The estimated fidelity of each link, by the node ids of its ends."""
        return {
            (self.nodes[first].node_id, self.nodes[second].node_id): next(iter(given), PERFECT)
            for first, second, *given in self.links
        }

    def relative_to(self, folder: Path) -> ControllerFile:
        """The same network, with relative paths taken from a folder."""
        return self.model_copy(
            update={
                "nodes": {
                    name: node.model_copy(update={"address": node.address.relative_to(folder)})
                    for name, node in self.nodes.items()
                },
                "tls": self.tls and self.tls.relative_to(folder),
            }
        )


def load_controller(path: str | os.PathLike[str]) -> ControllerFile:
    """Read a controller's file; relative paths in it are taken from its folder.

    Raises:
        ConfigurationError: the file is wrong.
    """
    return load_config(path, ControllerFile).relative_to(Path(path).absolute().parent)
