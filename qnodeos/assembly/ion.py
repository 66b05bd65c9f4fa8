"""A trapped-ion node, in virtual time.

It has no neighbour: programs on it use no entanglement.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from qnodeos.assembly.common import (
    BACKENDS,
    TRACE_CAPACITY,
    require_known,
)
from qnodeos.assembly.nodes import NodeBuilder
from qnodeos.assembly.platforms import PLATFORMS
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.cnpu.virtual import VirtualCnpu
from qnodeos.config.loader import load_config
from qnodeos.errors import ConfigurationError
from qnodeos.limits import Limits
from qnodeos.qdevice.protocols import SimulatedQDevice
from qnodeos.trace.recorder import TraceRecorder
from sim.ion.physics import IonPhysics
from sim.ion_device import BehaviouralIonDevice
from sim.ion_timing import IonTiming
from sim.network import VirtualNetwork
from sim.node import VirtualNode
from sim.realtime.laboratory import RealTimeDevice

NODE: Final = "ion"
"""Name of the node."""

_PLATFORM: Final = PLATFORMS["ion"]
_US_NS: Final = 1_000


class IonNodeConfig(BaseModel):
    """One trapped-ion node."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    physics: IonPhysics = Field(IonPhysics(), description="the ion, its lasers and its detection")
    timing: IonTiming = Field(
        IonTiming(),
        description="durations of the instructions; at instrument level only detection_us and "
        "threshold, the others come from the sequences",
    )


def load_ion_node(path: Path) -> IonNodeConfig:
    """A configuration file; what it does not name is as by default.

    Raises:
        ConfigurationError: the file is wrong.
    """
    return load_config(path, IonNodeConfig)


@dataclass(frozen=True)
class IonSystem:
    """A node, ready to run programs. Close it, or use it as a context manager.

    Attributes:
        network: runs programs; its only node is `NODE`.
        qnpu_trace: events of the QNPU; unit: the tick.
        host_trace: events of the CNPU; unit: 1 us.
    """

    network: VirtualNetwork
    node: VirtualNode
    device: SimulatedQDevice
    cnpu: VirtualCnpu
    qnpu_trace: TraceRecorder
    host_trace: TraceRecorder
    cleanup: ExitStack = field(default_factory=ExitStack)

    def close(self) -> None:
        """Close the instruments, if there are any; more than once does no harm."""
        self.cleanup.close()

    def __enter__(self) -> IonSystem:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def build_ion_node(
    config: IonNodeConfig,
    profile: LatencyProfile,
    seed: int | str,
    trace_capacity: int = TRACE_CAPACITY,
    backend: str = BACKENDS[0],
    scheduler: str = "fcfs",
    limits: Limits = Limits(),
    observe: Callable[[SimulatedQDevice], SimulatedQDevice] = lambda device: device,
) -> IonSystem:
    """A trapped-ion node in virtual time.

    Args:
        config: the node.
        profile: latencies of the software.
        seed: of all randomness; every component draws from a stream of its own.
        trace_capacity: events kept per recorder.
        backend: depth of the simulation, one of `BACKENDS`.
        scheduler: scheduling policy of the QNPU, one of `POLICIES`.
        limits: of the QNPU.
        observe: makes what stands between QNPU and device from the device.

    Raises:
        ConfigurationError: there is no such backend or policy, its packages are missing, or
            the configuration cannot be simulated at that depth.
        DeviceError: an instrument cannot be used: one of its name is open already.
    """
    with ExitStack() as cleanup:
        device = observe(build_ion_device(config, seed, cleanup, backend))
        return _run(device, profile, seed, trace_capacity, scheduler, limits, cleanup)


def _run(
    device: SimulatedQDevice,
    profile: LatencyProfile,
    seed: int | str,
    trace_capacity: int,
    scheduler: str,
    limits: Limits,
    cleanup: ExitStack,
) -> IonSystem:
    """CNPU and QNPU before a device."""
    builder = NodeBuilder(
        (NODE,),
        profile,
        seed,
        trace_capacity=trace_capacity,
        scheduler=scheduler,
        limits=limits,
    )
    handles = builder.add(
        NODE, device, _PLATFORM.driver_for(device.capabilities), _PLATFORM.flavour, peers={}
    )
    return IonSystem(
        builder.network(),
        handles.node,
        device,
        handles.cnpu,
        handles.qnpu_trace,
        handles.host_trace,
        cleanup.pop_all(),
    )


def build_ion_device(
    config: IonNodeConfig, seed: int | str, cleanup: ExitStack, backend: str = BACKENDS[0]
) -> RealTimeDevice:
    """The simulated device of a trapped-ion node.

    Args:
        config: the node.
        seed: of all randomness.
        cleanup: closes the instruments, if there are any.
        backend: depth of the simulation, one of `BACKENDS`.

    Raises:
        ConfigurationError: there is no such backend, its packages are missing, or the
            configuration cannot be simulated at that depth.
        DeviceError: an instrument cannot be used: one of its name is open already.
    """
    require_known("backend", backend, BACKENDS)
    rng = Random(f"{seed}/{NODE}/device")
    if backend == "behavioural":
        _require_time(config)
        return BehaviouralIonDevice(config.timing, config.physics, rng, NODE)
    return _instrument_device(config, rng.getrandbits(64), cleanup)


def _require_time(config: IonNodeConfig) -> None:
    """Make sure that no instruction is answered before what it does can have ended."""
    timing, pi_ns = config.timing, config.physics.pi_time_ns
    for ticks, needs, needed_ns in (
        ("measure_ticks", "timing.detection_us", timing.detection_us * _US_NS),
        ("pi_ticks", "a pulse of physics.pi_time_ns", pi_ns),
        ("half_pi_ticks", "half of physics.pi_time_ns", pi_ns / 2),
    ):
        least = math.ceil(needed_ns / timing.tick_ns)
        if getattr(timing, ticks) < least:
            raise ConfigurationError(
                f"timing.{ticks} is {getattr(timing, ticks)}, shorter than {needs}; make it "
                f"{least} or more"
            )


def _instrument_device(config: IonNodeConfig, seed: int, cleanup: ExitStack) -> RealTimeDevice:
    try:
        from drivers.errors import instrument_errors
        from drivers.ion_setup import IonSettings
        from sequences.ion import PULSE_STEP_NS
        from sim.ion.build import SimulatedIonNode
        from sim.ion.node import TICK_NS
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"the instrument level needs the package {error.name}; install the extra 'lab': "
            "pip install 'qnodeos[lab]'"
        ) from error
    physics, timing = config.physics, config.timing
    if timing.tick_ns != TICK_NS:
        raise ConfigurationError(
            f"timing.tick_ns is {timing.tick_ns}; at instrument level it is {TICK_NS}"
        )
    base = IonSettings()
    with instrument_errors():
        settings = replace(
            base,
            sequences=replace(
                base.sequences,
                pi_time_ns=round(physics.pi_time_ns / PULSE_STEP_NS) * PULSE_STEP_NS,
                detection_us=timing.detection_us,
            ),
            carrier_hz=physics.carrier_hz,
            sideband_hz=physics.carrier_hz - physics.trap_hz,
            threshold=timing.threshold,
        )
        return cleanup.enter_context(SimulatedIonNode(physics, settings, seed)).device
