"""From a SquidASM-style network configuration to a network of this system.

What differs here, and what is done about it:

* Durations are whole ticks of 1 us, at least one each; links have time bins, and links that
  share a node take turns. Rates and ages of qubits follow from that; states do not.
* T1 lets populations decay to 1/2 each. 0 means no decay.
* Noise after a gate on two qubits is white noise on the pair. Its weight is chosen so that the
  gate has the fidelity that white noise of the given weight on each of the two qubits gives.
* A carbon is moved by two gates with the electron and swapped by three; noise and durations
  of these follow from those of the gate.

What cannot be represented is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, Final

from pydantic import ValidationError

from qnodeos.applications.squidasm.config import (
    CLinkConfig,
    DefaultCLinkConfig,
    DepolariseLinkConfig,
    GenericQDeviceConfig,
    HeraldedLinkConfig,
    InstantCLinkConfig,
    LinkConfig,
    NVQDeviceConfig,
    PerfectLinkConfig,
    StackConfig,
    StackNetworkConfig,
    parse,
)
from qnodeos.assembly.description import (
    GenericDevice,
    LinkDescription,
    NetworkDescription,
    NodeDescription,
    NVDevice,
)
from qnodeos.assembly.network import ScheduleConfig
from qnodeos.cnpu.latency import Delay, LatencyProfile
from qnodeos.errors import ConfigurationError
from qnodeos.qdevice.instructions import MAX_HALVINGS
from sim.entangled_state import EntanglementProtocol, PerfectProtocol, WernerProtocol
from sim.link import LinkParameters
from sim.noise import NS_PER_MS

TICK_NS: Final = 1_000
_NS_PER_S: Final = 1_000_000_000
_LONGEST_ATTEMPT_NS: Final = NS_PER_MS
_BATCH_NS: Final = 100_000
"""How long a link is asked for at a time, if its cycle is shorter."""


def describe(config: StackNetworkConfig) -> NetworkDescription:
    """The network that a configuration describes.

    Raises:
        ConfigurationError: it describes what cannot be represented.
    """
    links = [_link(link) for link in config.links]
    batch_ns = max((link.link.batch_ns for link in links), default=_BATCH_NS)
    nodes = {stack.name: _node(stack) for stack in config.stacks}
    if len(nodes) < len(config.stacks):
        raise ConfigurationError("stacks: two of them have the same name")
    try:
        return NetworkDescription(
            nodes=nodes,
            links=tuple(links),
            # A batch, the ticks it may begin and end late, and the first tick of a bin.
            schedule=ScheduleConfig(
                bin_ms=(batch_ns + 4 * TICK_NS) / NS_PER_MS, guard_ms=TICK_NS / NS_PER_MS
            ),
        )
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"config: {problem}") from None


def latencies(config: StackNetworkConfig) -> LatencyProfile:
    """Latencies of the software: none, but that of classical messages.

    Raises:
        ConfigurationError: they differ between nodes, or are of an unknown kind.
    """
    delays_ns = {_delay_ns(link) for link in config.clinks}
    if len(delays_ns) > 1:
        raise ConfigurationError(
            f"clinks: delays of {', '.join(f'{delay:g}' for delay in sorted(delays_ns))} ns; here "
            "classical messages take the same time between any two nodes, so make them equal"
        )
    delay_ns = delays_ns.pop() if delays_ns else 0.0
    return LatencyProfile(name="squidasm", classical=Delay(mean_ms=delay_ns / NS_PER_MS))


def _delay_ns(link: CLinkConfig) -> float:
    where = f"the classical link between {link.stack1} and {link.stack2}"
    if link.typ == "instant":
        parse(InstantCLinkConfig, link.cfg, where)
        return 0.0
    if link.typ != "default":
        raise ConfigurationError(f"{where} is of typ {link.typ!r}; there are instant and default")
    config = parse(DefaultCLinkConfig, link.cfg, where)
    if config.delay is not None:
        return config.delay
    return (config.length or 0.0) / config.speed_of_light * _NS_PER_S


# --- devices ------------------------------------------------------------------------------


def _node(stack: StackConfig) -> NodeDescription:
    where = f"the device of {stack.name}"
    kinds = {"generic": _generic, "nv": _nv}
    if stack.qdevice_typ not in kinds:
        raise ConfigurationError(
            f"{where} is of qdevice_typ {stack.qdevice_typ!r}; there are {', '.join(kinds)}"
        )
    try:
        return NodeDescription(device=kinds[stack.qdevice_typ](stack.qdevice_cfg, where))
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]["msg"].removeprefix("Value error, ")
        raise ConfigurationError(f"{where}: {problem}") from None


def _generic(values: Any, where: str) -> GenericDevice:
    config = parse(GenericQDeviceConfig, values, where)
    pair_error = _of_pair(config.two_qubit_gate_depolar_prob)
    pair_ticks = _ticks(config.two_qubit_gate_time)
    return GenericDevice(
        qubits=config.num_qubits,
        physics={
            "communication": {
                "gate_depolarising": config.single_qubit_gate_depolar_prob,
                "initialise_ticks": _ticks(config.init_time),
                "gate_ticks": _ticks(config.single_qubit_gate_time),
                "measure_ticks": _ticks(config.measure_time),
                **_decay(config.T1, config.T2, "T1", "T2", where),
            },
            "pair_depolarising": pair_error,
            "pair_gate_ticks": pair_ticks,
            "entanglement_swap_ticks": pair_ticks + 2 * _ticks(config.measure_time),
            "tick_ns": TICK_NS,
        },
    )


def _nv(values: Any, where: str) -> NVDevice:
    config = parse(NVQDeviceConfig, values, where)
    gate_error = _of_pair(config.ec_gate_depolar_prob)
    gate_ticks = _same(config, ("ec_controlled_dir_x", "ec_controlled_dir_y"), where)
    carbon = {
        "initialisation_error": config.carbon_init_depolar_prob / 2,
        "gate_depolarising": config.carbon_z_rot_depolar_prob,
        "initialise_ticks": _ticks(config.carbon_init),
        "gate_ticks": _same(config, ("carbon_rot_x", "carbon_rot_y", "carbon_rot_z"), where),
        **_decay(config.carbon_T1, config.carbon_T2, "carbon_T1", "carbon_T2", where),
    }
    electron = {
        "initialisation_error": config.electron_init_depolar_prob / 2,
        "gate_depolarising": config.electron_single_qubit_depolar_prob,
        "readout_fidelity_0": 1 - config.prob_error_0,
        "readout_fidelity_1": 1 - config.prob_error_1,
        "initialise_ticks": _ticks(config.electron_init),
        "gate_ticks": _same(config, ("electron_rot_x", "electron_rot_y", "electron_rot_z"), where),
        "measure_ticks": _ticks(config.measure),
        **_decay(config.electron_T1, config.electron_T2, "electron_T1", "electron_T2", where),
    }
    return NVDevice(
        memories=config.num_qubits - 1,
        noiseless=True,
        physics={
            "communication": electron,
            "memory": carbon,
            "pair_depolarising": gate_error,
            "move_depolarising": 1 - (1 - gate_error) ** 2,
            "swap_depolarising": 1 - (1 - gate_error) ** 3,
            "pair_gate_ticks": gate_ticks,
            "move_ticks": 2 * gate_ticks,
            "swap_ticks": 3 * gate_ticks,
            "entanglement_swap_ticks": 2 * (gate_ticks + _ticks(config.measure)),
            "tick_ns": TICK_NS,
            "angle_halvings": MAX_HALVINGS,
        },
    )


def _ticks(duration_ns: float) -> int:
    return max(1, math.ceil(duration_ns / TICK_NS))


def _same(config: NVQDeviceConfig, fields: Iterable[str], where: str) -> int:
    """The duration of gates that must take equally long here, in ticks."""
    ticks: Mapping[str, int] = {field: _ticks(getattr(config, field)) for field in fields}
    if len(set(ticks.values())) > 1:
        raise ConfigurationError(
            f"{where}: {', '.join(ticks)} differ; make them equal: here a gate takes the same "
            "time about all axes"
        )
    return next(iter(ticks.values()))


def _decay(t1_ns: float, t2_ns: float, t1: str, t2: str, where: str) -> dict[str, float]:
    """T1 and T2 in the fields of a qubit; what is infinite is left out."""
    limit_ns = 2 * t1_ns if t1_ns else math.inf
    if t2_ns > limit_ns:
        raise ConfigurationError(
            f"{where}: {t2} = {t2_ns:g} ns is longer than twice {t1} = {t1_ns:g} ns, which is no "
            "possible decay; shorten it"
        )
    times = {"relaxation_time_ms": t1_ns, "coherence_time_ms": t2_ns or limit_ns}
    return {
        field: time_ns / NS_PER_MS
        for field, time_ns in times.items()
        if time_ns and math.isfinite(time_ns)
    }


def _of_pair(probability: float) -> float:
    """White noise of a pair with the fidelity of white noise of this weight on both qubits."""
    kept = 1 - 3 * probability / 4
    return (1 - kept**2) * 16 / 15


# --- links --------------------------------------------------------------------------------


def _link(link: LinkConfig) -> LinkDescription:
    where = f"the link between {link.stack1} and {link.stack2}"
    kinds = {
        "perfect": _perfect,
        "depolarise": _depolarise,
        "heralded": _heralded,
        "heralded-double-click": _heralded,
    }
    if link.typ not in kinds:
        raise ConfigurationError(f"{where} is of typ {link.typ!r}; there are {', '.join(kinds)}")
    period_ns, protocol = kinds[link.typ](link.cfg, where)
    return LinkDescription(
        between=(link.stack1, link.stack2),
        link=LinkParameters(
            attempt_period_ns=period_ns,
            attempts_per_batch=max(1, _BATCH_NS // period_ns),
            protocol=protocol,
        ),
    )


def _perfect(values: Any, where: str) -> tuple[int, EntanglementProtocol]:
    config = parse(PerfectLinkConfig, values, where)
    period_ns, success = _attempts(config.state_delay, 1.0, where)
    return period_ns, PerfectProtocol(success_probability=success)


def _depolarise(values: Any, where: str) -> tuple[int, EntanglementProtocol]:
    config = parse(DepolariseLinkConfig, values, where)
    period_ns, success = _attempts(config.t_cycle, config.prob_success, where)
    if config.fidelity == 1:
        return period_ns, PerfectProtocol(success_probability=success)
    return period_ns, WernerProtocol(success_probability=success, fidelity=config.fidelity)


def _heralded(values: Any, where: str) -> tuple[int, EntanglementProtocol]:
    """Two photons meet in the middle; half of the pairs of clicks herald (linear optics)."""
    config = parse(HeraldedLinkConfig, values, where)
    for field, ideal in (("visibility", 1), ("dark_count_probability", 0)):
        if getattr(config, field) != ideal:
            raise ConfigurationError(
                f"{where}: {field} = {getattr(config, field):g} cannot be represented, only "
                f"{ideal}; use typ: depolarise with the fidelity that it leaves"
            )
    arrives = 10 ** (-config.p_loss_length * config.length / 2 / 10)
    detected = (1 - config.p_loss_init) * arrives * config.detector_efficiency
    if not detected:
        raise ConfigurationError(f"{where}: no photon is ever detected")
    there_and_back_ns = config.length / config.speed_of_light * _NS_PER_S
    period_ns, success = _attempts(there_and_back_ns, detected**2 / 2, where)
    return period_ns, PerfectProtocol(success_probability=success)


def _attempts(cycle_ns: float, success: float, where: str) -> tuple[int, float]:
    """Period and success probability of attempts.

    A cycle longer than the longest attempt is made of several, which together succeed as often.
    """
    parts = math.ceil(cycle_ns / _LONGEST_ATTEMPT_NS) or 1
    if parts > 1 and success == 1:
        raise ConfigurationError(
            f"{where}: a cycle of {cycle_ns:g} ns that always succeeds is longer than the longest "
            f"attempt, {_LONGEST_ATTEMPT_NS} ns; shorten it, or let it fail now and then"
        )
    each = -math.expm1(math.log1p(-success) / parts) if parts > 1 else success
    return max(1, round(cycle_ns / parts)), each
