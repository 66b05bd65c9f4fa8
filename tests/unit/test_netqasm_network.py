"""NetQASM's `network.yaml` becomes a description, or an error that says what it cannot be."""

from __future__ import annotations

import dataclasses
import json
import math
from enum import Enum

import pytest
from netqasm.runtime.interface.config import QuantumHardware, default_network_config

from qnodeos.assembly.description import GenericDevice, NVDevice, quick_link
from qnodeos.assembly.netqasm_network import read_netqasm_network
from qnodeos.errors import ConfigurationError
from sim.entangled_state import BitFlipProtocol, PerfectProtocol, WernerProtocol

NETWORK = """
nodes:
  - name: alice
    hardware: {hardware}
    gate_fidelity: 0.99
    qubits:
      - {{id: 0, t1: 0, t2: 2.0e+6}}
      - {{id: 1, t1: {t1}, t2: {t2}}}
  - name: bob
    gate_fidelity: 1
    qubits: [{{id: 0, t1: 0, t2: 0}}]
links:
  - name: ab
    node_name1: alice
    node_name2: bob
    noise_type: {noise}
    fidelity: {fidelity}
"""


@pytest.fixture
def read(tmp_path):
    def read_text(text: str):
        path = tmp_path / "network.yaml"
        path.write_text(text, "utf-8")
        return read_netqasm_network(path)

    return read_text


def network(hardware="Generic", t1="0", t2="2.0e+6", noise="NoNoise", fidelity="1"):
    return NETWORK.format(hardware=hardware, t1=t1, t2=t2, noise=noise, fidelity=fidelity)


@pytest.mark.parametrize("hardware", [QuantumHardware.Generic, QuantumHardware.NV])
def test_the_default_network_of_netqasm(read, hardware):
    config = dataclasses.asdict(
        default_network_config(["alice", "bob", "carol"], hardware),
        dict_factory=lambda pairs: {
            name: value.value if isinstance(value, Enum) else value for name, value in pairs
        },
    )
    description = read(json.dumps(config))
    assert list(description.nodes) == ["alice", "bob", "carol"]
    expected = (
        GenericDevice(qubits=5)
        if hardware is QuantumHardware.Generic
        else NVDevice(memories=4, noiseless=True)
    )
    assert all(node.device == expected for node in description.nodes.values())
    assert [link.between for link in description.links] == [
        ("alice", "bob"),
        ("alice", "carol"),
        ("bob", "carol"),
    ]
    assert all(link.link == quick_link() for link in description.links)


def test_decay_and_gate_errors_of_a_generic_node(read):
    alice = read(network()).nodes["alice"].device.register_physics()
    assert alice.communication_qubits == 2
    assert alice.communication.coherence_time_ms == 2
    assert math.isinf(alice.communication.relaxation_time_ms)
    # The average fidelity of (1-p) U + p I/d is 1 - p (1 - 1/d).
    assert alice.communication.gate_depolarising == pytest.approx(0.02)
    assert alice.pair_depolarising == pytest.approx(0.04 / 3)
    bob = read(network()).nodes["bob"].device
    assert bob == GenericDevice(qubits=1)


def test_electron_and_memories_decay_by_themselves(read):
    alice = read(network("NV", t1="4.0e+9", t2="0")).nodes["alice"].device.register_physics()
    assert alice.star
    assert alice.communication.coherence_time_ms == 2
    assert alice.memory.relaxation_time_ms == 4_000
    assert alice.memory.coherence_time_ms == 8_000, "without dephasing T2 is twice T1"
    assert alice.memory.gate_depolarising == pytest.approx(0.02)


@pytest.mark.parametrize(
    ("noise", "expected"),
    [
        ("NoNoise", PerfectProtocol),
        ("Depolarise", WernerProtocol),
        ("DiscreteDepolarise", WernerProtocol),
        ("Bitflip", BitFlipProtocol),
    ],
)
def test_noise_of_a_link(read, noise, expected):
    protocol = read(network(noise=noise, fidelity="0.8")).links[0].link.protocol
    assert type(protocol) is expected
    assert protocol.fidelity == (1.0 if noise == "NoNoise" else 0.8)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (network("TrappedIon"), "node alice is of hardware TrappedIon, which has no link"),
        (network("Diamond"), "nodes[0].hardware: should be 'Generic', 'NV' or 'TrappedIon'"),
        (network(noise="Phaseflip"), "links[0].noise_type: should be 'NoNoise', "),
        (network(noise="Depolarise", fidelity="0.2"), "Depolarise with fidelity 0.2; that noise"),
        (network(t2="1.0e+6"), "the qubits of node alice decay at different rates"),
        (network("NV", t1="1000", t2="3000"), "t1 = 1000 and t2 = 3000; t2 cannot be longer"),
        (network().replace("id: 1", "id: 3"), "node alice has qubits 0, 3; number them from 0"),
        (network().replace("name: bob", "name: alice"), "node alice stands in it twice"),
        (network().replace("name2: bob", "name2: bo"), "joins 'bo', which is no node"),
        (network().replace("name2: bob", "name2: alice"), "joins 'alice' with itself"),
        (
            network()
            + "  - {name: ba, node_name1: bob, node_name2: alice, noise_type: Bitflip,"
            + " fidelity: 0.9}",
            "two links between bob and alice that differ",
        ),
        (network().replace("gate_fidelity: 0.99", "gate_fidelity: 0.3"), "nodes[0].gate_fidelity"),
    ],
)
def test_what_cannot_be_is_refused_by_name(read, text, message):
    with pytest.raises(ConfigurationError) as caught:
        read(text)
    assert message in str(caught.value)
    assert "network.yaml" in str(caught.value)
