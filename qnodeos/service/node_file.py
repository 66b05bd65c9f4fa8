"""NODE.yaml: what one node's QNPU service, and the programs of that node, have to know.

Paths in the file are relative to the file; `load_node` makes them absolute, so that nothing
after it depends on the working directory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    model_validator,
)

from qnodeos.config import load_config
from qnodeos.errors import ConfigurationError
from qnodeos.qnpu.scheduler import POLICIES
from qnodeos.service.limits_config import LimitsConfig
from qnodeos.transport.address import Address
from qnodeos.transport.tls import TlsFiles

MAX_NODE_ID: Final = (1 << 31) - 1
"""Node ids are NetQASM registers: 32 bits, signed."""

_NAME: Final = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"


def _address(value: object) -> Address:
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError("an address is text, unix:PATH or tcp:HOST:PORT")
    try:
        return Address.parse(value)
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


def _policy(name: str) -> str:
    if name not in POLICIES:
        raise ValueError(f"there is no scheduler {name!r}; choose one of: {', '.join(POLICIES)}")
    return name


NodeName = Annotated[str, Field(pattern=_NAME)]
AddressField = Annotated[Address, PlainValidator(_address), PlainSerializer(str)]
NodeId = Annotated[int, Field(ge=0, le=MAX_NODE_ID)]
Core = Annotated[int, Field(ge=0, le=1023)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ShmDevice(_Section):
    """A device behind a channel in shared memory: the lab process, or a bridge to hardware."""

    link: Literal["shm"] = Field("shm", description="which link this is")
    path: Path = Field(description="file of the channel; the lab's end makes it")


class SpiDevice(_Section):
    """A device on a Linux spidev bus: one transfer of the kernel per tick, best effort."""

    link: Literal["spidev"] = Field("spidev", description="which link this is")
    bus: Annotated[int, Field(ge=0, le=255)] = Field(0, description="B of /dev/spidevB.D")
    device: Annotated[int, Field(ge=0, le=255)] = Field(0, description="D of /dev/spidevB.D")
    speed_hz: Annotated[int, Field(ge=100_000, le=100_000_000)] = Field(
        12_500_000, description="clock of the bus, at most (assumed: 32 bits then take 2.6 us)"
    )
    mode: Annotated[int, Field(ge=0, le=3)] = Field(
        1, description="SPI mode, clock polarity and phase (assumed)"
    )
    tick_ns: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = Field(
        10_000, description="time between two frames (published for NV: 10 us)"
    )


class LoopbackDevice(_Section):
    """No device: a stand-in inside the service that answers everything at once, for self-tests."""

    link: Literal["loopback"] = Field("loopback", description="which link this is")
    tick_ns: Annotated[int, Field(ge=1_000, le=1_000_000_000)] = Field(
        10_000, description="time between two frames (published for NV: 10 us)"
    )


class ApiConfig(_Section):
    """Where programs of this node reach the QNPU."""

    listen: Annotated[tuple[AddressField, ...], Field(min_length=1, max_length=8)] = Field(
        description='addresses, "unix:PATH" or "tcp:HOST:PORT"'
    )


class PeerListenConfig(_Section):
    """Where the QNPUs of the neighbours, and the controller, reach this one."""

    listen: AddressField = Field(description='address, "tcp:HOST:PORT" or "unix:PATH"')
    controller: NodeName = Field(
        "controller",
        description="name of the controller that may install network schedules, as in its "
        "certificate",
    )


class ApplicationsConfig(_Section):
    """Where programs of this node listen for messages of programs at other nodes."""

    listen: AddressField = Field(description='address, "tcp:HOST:PORT" or "unix:PATH"')


class PeerConfig(_Section):
    """A neighbour."""

    node_id: NodeId = Field(description="its number")
    address: AddressField = Field(description="where its QNPU listens for peers")
    device_link: Annotated[int, Field(ge=0, le=255)] = Field(
        0, description="number of the device's link that leads to it"
    )
    applications: AddressField | None = Field(
        None, description="where its programs listen; null if none talk to programs here"
    )

    def relative_to(self, folder: Path) -> PeerConfig:
        """The same peer, with relative paths taken from a folder."""
        return self.model_copy(
            update={
                "address": self.address.relative_to(folder),
                "applications": self.applications and self.applications.relative_to(folder),
            }
        )


class FarNodeConfig(_Section):
    """A node that is no neighbour: pairs with it are made over others."""

    node_id: NodeId = Field(description="its number")
    applications: AddressField | None = Field(
        None, description="where its programs listen; null if none talk to programs here"
    )

    def relative_to(self, folder: Path) -> FarNodeConfig:
        """The same node, with relative paths taken from a folder."""
        return self.model_copy(
            update={"applications": self.applications and self.applications.relative_to(folder)}
        )


class RealtimeConfig(_Section):
    """How the operating system is asked to treat the service."""

    tick_priority: Annotated[int, Field(ge=0, le=99)] = Field(
        80, description="SCHED_FIFO priority of the tick thread; 0 for none"
    )
    policy_priority: Annotated[int, Field(ge=0, le=99)] = Field(
        50, description="SCHED_FIFO priority of the policy thread; 0 for none"
    )
    tick_core: Core | None = Field(
        None, description="core of the tick thread; null lets the kernel choose"
    )
    policy_core: Core | None = Field(
        None, description="core of the policy thread; null lets the kernel choose"
    )
    mode: Literal["auto", "spinning", "event-paced"] = Field(
        "auto",
        description="exchange a frame every tick, or only those that say something; auto spins "
        "where tick_core is given, or there are more cores than loops that would spin: two per "
        "node on this machine (peers at local addresses count), one for the lab behind a channel",
    )
    lock_memory: bool = Field(True, description="keep all memory resident (mlockall)")
    rehearse_us: Annotated[int, Field(ge=0, le=1_000_000)] = Field(
        2_000,
        description="how often a service rehearses what comes next while programs wait, so that "
        "its code stays warm; a rehearsal takes some 80 us; 0 for never",
    )

    @model_validator(mode="after")
    def _tick_is_first(self) -> Self:
        if self.tick_priority and self.tick_priority <= self.policy_priority:
            raise ValueError(
                f"tick_priority = {self.tick_priority} must be above policy_priority = "
                f"{self.policy_priority}: the policy thread may never hold up a frame"
            )
        return self


class TraceConfig(_Section):
    """What is kept of what happened."""

    events: Annotated[int, Field(ge=1, le=1 << 26)] = Field(
        524_288, description="latest events kept for the trace file (assumed; 32 bytes each)"
    )


DeviceConfig = Annotated[ShmDevice | SpiDevice | LoopbackDevice, Field(discriminator="link")]


class NodeFile(_Section):
    """One node."""

    name: NodeName = Field(description="of the node; letters, digits, `_`, `.` and `-`")
    node_id: NodeId = Field(description="number of the node, as programs name it")
    device: DeviceConfig = Field(
        description="the QDevice; its field link says how it is reached: shm, spidev or loopback"
    )
    platform: NodeName = Field(
        "nv",
        description="which QDriver the device needs: nv, generic for a register of equal qubits, "
        "or ion for a trapped ion",
    )
    api: ApiConfig = Field(description="where programs of this node reach the QNPU")
    peers: Annotated[dict[NodeName, PeerConfig], Field(max_length=64)] = Field(
        {}, description="the neighbours by name"
    )
    far_nodes: Annotated[dict[NodeName, FarNodeConfig], Field(max_length=256)] = Field(
        {},
        description="nodes that are no neighbours, by name; pairs with them are made over the "
        "routes that the controller gives",
    )
    peer: PeerListenConfig | None = Field(
        None, description="where neighbours and the controller reach this QNPU; null: nowhere"
    )
    applications: ApplicationsConfig | None = Field(
        None, description="where this node's programs listen for those of others; null: nowhere"
    )
    roles: Annotated[dict[NodeName, NodeName], Field(max_length=64)] = Field(
        {}, description="node that runs each role of an application; a role not named here is "
        "run by the node of the same name"
    )  # fmt: skip
    tls: TlsFiles | None = Field(
        None, description="certificates; required for TCP addresses that are not loopback"
    )
    realtime: RealtimeConfig = Field(
        RealtimeConfig(), description="how the operating system is asked to treat the service"
    )
    scheduler: Annotated[str, AfterValidator(_policy)] = Field(
        "fcfs",
        description="which of the ready programs the QNPU runs next, by the name of the policy; "
        "fcfs is the paper's",
    )
    limits: LimitsConfig = Field(LimitsConfig(), description="bounds of the service")
    trace: TraceConfig = Field(TraceConfig(), description="what is kept of what happened")

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        self._check_neighbours()
        for place, address in self._addresses():
            if self.tls is None and not address.is_local:
                raise ValueError(
                    f"{place} is {address}, which leaves this machine: give certificate, key "
                    "and authority in tls, or use a loopback address or a Unix socket"
                )
        return self

    def _check_neighbours(self) -> None:
        known = {self.name: self.node_id}
        links: dict[int, str] = {}
        for name, peer in self.peers.items():
            if name in known or peer.node_id in known.values():
                raise ValueError(
                    f"peers.{name} has a name or node_id that this node or another peer has; "
                    "each node needs its own"
                )
            known[name] = peer.node_id
            if peer.device_link in links:
                raise ValueError(
                    f"peers.{name} and peers.{links[peer.device_link]} share device_link "
                    f"{peer.device_link}; each neighbour needs a link of its own"
                )
            links[peer.device_link] = name
        for name, far in self.far_nodes.items():
            if name in known or far.node_id in known.values():
                raise ValueError(
                    f"far_nodes.{name} has a name or node_id that this node, a peer or another of "
                    "them has; each node needs its own, and stands in one place"
                )
            known[name] = far.node_id
        for role, name in self.roles.items():
            if name not in known:
                raise ValueError(
                    f"roles.{role} is {name!r}, which is neither this node nor one it knows; "
                    f"there are {', '.join(known)}"
                )

    def _addresses(self) -> Iterator[tuple[str, Address]]:
        """All addresses, and the field each stands in."""
        for index, address in enumerate(self.api.listen):
            yield f"api.listen[{index}]", address
        if self.peer is not None:
            yield "peer.listen", self.peer.listen
        if self.applications is not None:
            yield "applications.listen", self.applications.listen
        for name, peer in self.peers.items():
            yield f"peers.{name}.address", peer.address
            if peer.applications is not None:
                yield f"peers.{name}.applications", peer.applications
        for name, far in self.far_nodes.items():
            if far.applications is not None:
                yield f"far_nodes.{name}.applications", far.applications

    @property
    def node_ids(self) -> dict[str, int]:
        """Numbers of this node and all it knows, by name."""
        return {self.name: self.node_id} | {
            name: node.node_id for name, node in self._others.items()
        }

    @property
    def application_addresses(self) -> dict[str, Address]:
        """Where programs of other nodes listen, by node; those that are known."""
        return {
            name: node.applications
            for name, node in self._others.items()
            if node.applications is not None
        }

    @property
    def _others(self) -> dict[str, PeerConfig | FarNodeConfig]:
        return {**self.peers, **self.far_nodes}

    @property
    def spinning_loops(self) -> int:
        """How many loops spin on this machine, if all that may do so do.

        A tick thread and a policy loop for this node and for each other at a local address,
        and that of the laboratory behind a channel.
        """
        others = [peer.address for peer in self.peers.values()]
        others += [far.applications for far in self.far_nodes.values() if far.applications]
        nodes = 1 + sum(address.is_local for address in others)
        return 2 * nodes + isinstance(self.device, ShmDevice)

    def relative_to(self, folder: Path) -> NodeFile:
        """The same node, with relative paths taken from a folder."""
        device: ShmDevice | SpiDevice | LoopbackDevice = self.device
        if isinstance(device, ShmDevice):
            device = ShmDevice(path=folder / device.path)
        return self.model_copy(
            update={
                "device": device,
                "api": ApiConfig(listen=tuple(at.relative_to(folder) for at in self.api.listen)),
                "peers": {name: peer.relative_to(folder) for name, peer in self.peers.items()},
                "far_nodes": {
                    name: far.relative_to(folder) for name, far in self.far_nodes.items()
                },
                "peer": self.peer
                and self.peer.model_copy(update={"listen": self.peer.listen.relative_to(folder)}),
                "applications": self.applications
                and ApplicationsConfig(listen=self.applications.listen.relative_to(folder)),
                "tls": self.tls and self.tls.relative_to(folder),
            }
        )


def load_node(path: str | os.PathLike[str]) -> NodeFile:
    """Read a node file; relative paths in it are taken from its folder.

    Raises:
        ConfigurationError: the file is wrong.
    """
    return load_config(path, NodeFile).relative_to(Path(path).absolute().parent)
