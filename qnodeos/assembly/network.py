"""Two NV nodes and the link between them, in virtual time.

What is put together stands in `NetworkConfig`, a YAML file or a preset.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Final, Protocol, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from drivers.errors import instrument_errors
from drivers.nv import NVDriver
from qnodeos.api.netqasm import Flavour
from qnodeos.assembly.common import (
    BACKENDS,
    TRACE_CAPACITY,
    require_known,
)
from qnodeos.assembly.nodes import NodeBuilder, NodeHandles
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.config.loader import load_config
from qnodeos.errors import ConfigurationError
from qnodeos.limits import Limits
from qnodeos.qdevice.protocols import SimulatedQDevice
from qnodeos.qnpu.schedule import NetworkSchedule
from sim.charge import ChargeCheck
from sim.entangled_state import SinglePhotonProtocol
from sim.link import EntanglementLink, LinkParameters
from sim.network import VirtualNetwork
from sim.noise import NVNoise
from sim.nv_device import BehaviouralNVDevice
from sim.nv_timing import NVTiming

if TYPE_CHECKING:
    from sim.lab.build import NodeSpec

ROLES: Final = ("client", "server")
"""The nodes of a `NetworkConfig`."""

LINKS: Final[Mapping[str, Callable[[], LinkParameters]]] = {
    "paper": LinkParameters.paper,
    "fast": LinkParameters.fast,
    "prompt": LinkParameters.prompt,
}
"""Link presets by name."""

_MS_IN_NS: Final = 1_000_000


class NodeConfig(BaseModel):
    """One NV node with a behavioural device."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    noise: NVNoise = Field(NVNoise(), description="errors, decoherence and readout")
    timing: NVTiming = Field(NVTiming(), description="durations of the instructions")
    short_corrections: bool = Field(
        False, description="correct Psi- with one pulse instead of the SDK's four"
    )


class ScheduleConfig(BaseModel):
    """The time bins of the network schedule."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bin_ms: Annotated[float, Field(gt=0, le=1000)] = Field(
        10.0, description="length of a time bin (published: 10 ms)"
    )
    guard_ms: Annotated[float, Field(ge=0, le=1000)] = Field(
        1.0,
        description="time at the start of a bin before attempts begin (in published traces: 1 ms)",
    )


class NetworkConfig(BaseModel):
    """Two NV nodes, client and server, and the link between them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    client: NodeConfig = Field(NodeConfig(), description="the node that creates entanglement")
    server: NodeConfig = Field(NodeConfig(), description="the node that receives entanglement")
    link: LinkParameters = Field(
        default_factory=LinkParameters.paper, description="entanglement between the nodes"
    )
    schedule: ScheduleConfig = Field(
        ScheduleConfig(), description="when the nodes attempt entanglement"
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        ticks_ns = self.client.timing.tick_ns, self.server.timing.tick_ns
        if ticks_ns[0] != ticks_ns[1]:
            raise ValueError(
                f"timing.tick_ns is {ticks_ns[0]} at the client and {ticks_ns[1]} at the server; "
                "nodes on one link need the same tick"
            )
        bin_ms, guard_ms = self.schedule.bin_ms, self.schedule.guard_ms
        try:
            _schedule(self, ticks_ns[0], peer=0)
        except ValueError:
            raise ValueError(
                f"a guard of schedule.guard_ms = {guard_ms:g} and a batch of "
                f"{self.link.batch_ns / _MS_IN_NS:g} ms (link.attempts_per_batch x "
                f"link.attempt_period_ns) do not fit a bin of schedule.bin_ms = {bin_ms:g}; "
                "lengthen the bin or shorten the others"
            ) from None
        return self

    @classmethod
    def preset(cls, link: str) -> NetworkConfig:
        """The default nodes with a link preset; `fast` also has nearly no guard.

        Raises:
            ConfigurationError: there is no such preset.
        """
        require_known("link preset", link, LINKS)
        guard_ms = 0.1 if link == "fast" else 1.0
        return cls(link=LINKS[link](), schedule=ScheduleConfig(guard_ms=guard_ms))

    @classmethod
    def noiseless(cls) -> NetworkConfig:
        """Perfect nodes and perfect Bell states, at the fast link's rate."""
        node = NodeConfig(noise=NVNoise.noiseless())
        return cls(
            client=node,
            server=node,
            link=LinkParameters.perfect(),
            schedule=ScheduleConfig(guard_ms=0.1),
        )


def load_network(path: Path, link: str) -> NetworkConfig:
    """A configuration file; what it does not name is as in a link preset.

    Raises:
        ConfigurationError: the file is wrong.
    """
    return load_config(path, NetworkConfig, NetworkConfig.preset(link))


class ExperimentDevice(SimulatedQDevice, Protocol):
    """A simulated device as experiments use it, at either depth."""

    @property
    def waits_for_neighbour(self) -> bool:
        """Whether a request of the neighbour, if it came now, could change `next_tick`."""
        ...

    @property
    def charge_checks(self) -> list[ChargeCheck]:
        """For every readout, in order, the first charge check after it."""
        ...

    def verify_charge(self, tick: int) -> bool:
        """Do a charge check, as at the end of an experiment; whether it passed."""
        ...


@dataclass(frozen=True)
class ExperimentNode(NodeHandles):
    """A node whose device experiments can look into."""

    device: ExperimentDevice


@dataclass(frozen=True)
class TwoNodeSystem:
    """Client and server, ready to run programs. Close it, or use it as a context manager."""

    network: VirtualNetwork
    client: ExperimentNode
    server: ExperimentNode
    cleanup: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Close the instruments, if there are any; more than once does no harm."""
        self.cleanup.close()

    def __enter__(self) -> TwoNodeSystem:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def build_two_nodes(
    config: NetworkConfig,
    profile: LatencyProfile,
    seed: int | str,
    trace_capacity: int = TRACE_CAPACITY,
    backend: str = BACKENDS[0],
    scheduler: str = "fcfs",
    limits: Limits = Limits(),
) -> TwoNodeSystem:
    """Two NV nodes in virtual time.

    Args:
        config: nodes, link and schedule.
        profile: latencies of the software.
        seed: of all randomness; every component draws from a stream of its own.
        trace_capacity: events kept per recorder.
        backend: depth of the simulation, one of `BACKENDS`.
        scheduler: scheduling policy of the QNPUs, one of `POLICIES`.
        limits: of the QNPUs.

    Raises:
        ConfigurationError: there is no such backend or policy, its packages are missing, or
            the configuration cannot be simulated at that depth.
        DeviceError: an instrument cannot be used: one of its name is open already.
    """
    require_known("backend", backend, BACKENDS)
    with ExitStack() as cleanup:
        builder = NodeBuilder(
            ROLES,
            profile,
            seed,
            trace_capacity=trace_capacity,
            scheduler=scheduler,
            limits=limits,
        )
        devices = build_devices(config, seed, cleanup, backend).devices
        client, server = (_node(config, builder, devices, role) for role in ROLES)
        return TwoNodeSystem(builder.network(), client, server, cleanup.pop_all())


def _node(
    config: NetworkConfig,
    builder: NodeBuilder,
    devices: Mapping[str, ExperimentDevice],
    role: str,
) -> ExperimentNode:
    node_config: NodeConfig = getattr(config, role)
    device = devices[role]
    neighbour = 1 - ROLES.index(role)
    handles = builder.add(
        role,
        device,
        NVDriver(device.capabilities, short_corrections=node_config.short_corrections),
        Flavour.NV,
        {neighbour: 0},
    )
    handles.node.kernel.install_schedule(_schedule(config, config.client.timing.tick_ns, neighbour))
    return ExperimentNode(
        handles.node, device, handles.cnpu, handles.qnpu_trace, handles.host_trace
    )


@dataclass(frozen=True)
class TwoDevices:
    """The devices of client and server, and the link between them.

    Attributes:
        devices: by role.
        heralds: counts the heralds given so far.
        batches: counts the batches of attempts so far; None if this depth does not count them.
    """

    devices: Mapping[str, ExperimentDevice]
    heralds: Callable[[], int]
    batches: Callable[[], int] | None


def build_devices(
    config: NetworkConfig, seed: int | str, cleanup: ExitStack, backend: str = BACKENDS[0]
) -> TwoDevices:
    """The simulated devices of two NV nodes.

    Args:
        config: nodes and link.
        seed: of all randomness.
        cleanup: closes the instruments, if there are any.
        backend: depth of the simulation, one of `BACKENDS`.

    Raises:
        ConfigurationError: there is no such backend, its packages are missing, or the
            configuration cannot be simulated at that depth.
        DeviceError: an instrument cannot be used: one of its name is open already.
    """
    require_known("backend", backend, BACKENDS)
    if backend != "behavioural":
        return _instrument_devices(config, seed, cleanup)
    link = EntanglementLink(
        config.link, Random(f"{seed}/link"), tick_ns=config.client.timing.tick_ns
    )
    devices = {
        name: BehaviouralNVDevice(
            node.timing, node.noise, link, Random(f"{seed}/{name}/device"), name
        )
        for name, node in (("client", config.client), ("server", config.server))
    }
    return TwoDevices(devices, lambda: link.heralds, lambda: link.batches)


def _instrument_devices(config: NetworkConfig, seed: int | str, cleanup: ExitStack) -> TwoDevices:
    try:
        from instruments.heralding import Register
        from sim.lab.build import SimulatedLaboratory
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the instrument level needs the package {error.name}; install the extra 'lab': "
            "pip install 'qnodeos[lab]'"
        ) from error
    specs = [
        instrument_spec("client", config.client, config.link, "alpha_a"),
        instrument_spec("server", config.server, config.link, "alpha_b"),
    ]
    with instrument_errors():
        laboratory = cleanup.enter_context(SimulatedLaboratory(specs, config.link, seed=seed))
    cpld = laboratory.laboratory.station.cpld
    return TwoDevices(
        {name: node.device for name, node in laboratory.nodes.items()},
        lambda: cpld.counter(Register.HERALDS),
        None,
    )


def instrument_spec(name: str, node: NodeConfig, link: LinkParameters, alpha: str) -> NodeSpec:
    """A node of the configuration at instrument level.

    The centre errs as the behavioural device does, except for its gates, whose errors come from
    the pulses, and its durations, which come from the programs.

    Args:
        name: of the node.
        node: its configuration.
        link: to its neighbour.
        alpha: which of the protocol's populations is this node's.

    Raises:
        ConfigurationError: the node has a tick that the ADbasic program does not have.
    """
    from drivers.nv_setup import NVSettings
    from sequences.nv_seqc import HeraldTiming
    from sequences.waveform_table import TableSettings
    from sim.lab.build import NodeSpec
    from sim.lab.device import TICK_NS
    from sim.nv.physics import NVPhysics

    if node.timing.tick_ns != TICK_NS:
        raise ConfigurationError(
            f"{name}: timing.tick_ns is {node.timing.tick_ns}; at instrument level it is {TICK_NS}"
        )
    physics = NVPhysics.from_noise(node.noise)
    table = TableSettings(hyperfine_hz=physics.hyperfine_hz)
    if isinstance(link.protocol, SinglePhotonProtocol):
        table = replace(table, alphas=(getattr(link.protocol, alpha),))
    settings = NVSettings(
        table=table,
        herald=HeraldTiming(attempt_period_ns=link.attempt_period_ns),
        attempts_per_batch=link.attempts_per_batch,
    )
    return NodeSpec(name, physics, settings)


def _schedule(config: NetworkConfig, tick_ns: int, peer: int) -> NetworkSchedule:
    bin_ticks = round(config.schedule.bin_ms * _MS_IN_NS / tick_ns)
    return NetworkSchedule(
        bin_ticks=bin_ticks,
        guard_ticks=round(config.schedule.guard_ms * _MS_IN_NS / tick_ns),
        batch_ticks=-(-config.link.batch_ns // tick_ns) + 2,
        pattern=(peer,),
    )
