"""Helpers that SquidASM-style scripts make their networks with."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

from qnodeos.applications.squidasm.config import (
    CLinkConfig,
    DefaultCLinkConfig,
    DepolariseLinkConfig,
    GenericQDeviceConfig,
    LinkConfig,
    StackConfig,
    StackNetworkConfig,
)
from qnodeos.errors import ConfigurationError


def create_two_node_network(
    node_names: Sequence[str] | None = None,
    link_noise: float = 0,
    qdevice_noise: float = 0,
    clink_delay: float = 0.0,
    link_delay: float = 0.0,
) -> StackNetworkConfig:
    """Two nodes with generic devices of two qubits.

    Args:
        node_names: two names; Alice and Bob if not given.
        link_noise: weight of white noise in a pair, from 0 to 1.
        qdevice_noise: depolarising probability of every gate.
        clink_delay: of a classical message, in nanoseconds.
        link_delay: time to a pair, in nanoseconds.

    Raises:
        ConfigurationError: there are not two names.
    """
    names = ["Alice", "Bob"] if node_names is None else list(node_names)
    if len(names) != 2:
        raise ConfigurationError(f"a network of two nodes needs two names, not {len(names)}")
    device = GenericQDeviceConfig.perfect_config()
    device.single_qubit_gate_depolar_prob = qdevice_noise
    device.two_qubit_gate_depolar_prob = qdevice_noise
    return create_complete_graph_network(
        names,
        "depolarise",
        DepolariseLinkConfig(fidelity=1 - 3 * link_noise / 4, t_cycle=link_delay, prob_success=1),
        "default",
        DefaultCLinkConfig(delay=clink_delay),
        qdevice_cfg=device,
    )


def create_complete_graph_network(
    node_names: Sequence[str],
    link_typ: str,
    link_cfg: Any,
    clink_typ: str = "instant",
    clink_cfg: Any = None,
    qdevice_typ: str = "generic",
    qdevice_cfg: Any = None,
) -> StackNetworkConfig:
    """Equal nodes, and equal links between any two of them.

    Args:
        node_names: names of the nodes.
        link_typ: kind of the links.
        link_cfg: their configuration.
        clink_typ: kind of the classical links.
        clink_cfg: their configuration.
        qdevice_typ: kind of the devices.
        qdevice_cfg: their configuration; a generic device without errors if not given.
    """
    if qdevice_cfg is None and qdevice_typ == "generic":
        qdevice_cfg = GenericQDeviceConfig.perfect_config()
    pairs = list(combinations(node_names, 2))
    return StackNetworkConfig(
        stacks=[
            StackConfig(name=name, qdevice_typ=qdevice_typ, qdevice_cfg=qdevice_cfg)
            for name in node_names
        ],
        links=[LinkConfig(stack1=a, stack2=b, typ=link_typ, cfg=link_cfg) for a, b in pairs],
        clinks=[CLinkConfig(stack1=a, stack2=b, typ=clink_typ, cfg=clink_cfg) for a, b in pairs],
    )
