"""SquidASM-style network configurations become descriptions, or are refused by name."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from qnodeos.applications.squidasm.config import (
    CLinkConfig,
    DefaultCLinkConfig,
    DepolariseLinkConfig,
    GenericQDeviceConfig,
    HeraldedLinkConfig,
    LinkConfig,
    NVQDeviceConfig,
    StackConfig,
    StackNetworkConfig,
)
from qnodeos.applications.squidasm.networks import (
    create_complete_graph_network,
    create_two_node_network,
)
from qnodeos.applications.squidasm.translation import TICK_NS, describe, latencies
from qnodeos.assembly import GenericDevice, NVDevice
from qnodeos.errors import ConfigurationError
from sim.entangled_state import PerfectProtocol, WernerProtocol

EXAMPLE = Path(__file__).parents[2] / "examples" / "squidasm" / "bqc.yaml"


def network(device=None, typ="generic", link="perfect", link_cfg=None):
    return StackNetworkConfig(
        stacks=[StackConfig(name=name, qdevice_typ=typ, qdevice_cfg=device) for name in ("a", "b")],
        links=[LinkConfig(stack1="a", stack2="b", typ=link, cfg=link_cfg)],
    )


def the_link(config):
    (link,) = describe(config).links
    return link.link


def test_a_generic_device_has_its_noise_and_durations():
    config = GenericQDeviceConfig(
        num_qubits=3,
        T1=4e6,
        T2=2e6,
        init_time=0,
        two_qubit_gate_time=100_500,
        single_qubit_gate_depolar_prob=0.02,
    )
    device = describe(network(config)).nodes["a"].device
    assert isinstance(device, GenericDevice)
    physics = device.register_physics()
    assert physics.qubits == 3
    assert physics.tick_ns == TICK_NS
    assert physics.communication.relaxation_time_ms == 4
    assert physics.communication.coherence_time_ms == 2
    assert physics.communication.gate_depolarising == 0.02
    assert physics.communication.initialise_ticks == 1  # there is no shorter time
    assert physics.pair_gate_ticks == 101
    # White noise of 1 % on both qubits leaves the same fidelity as that of the pair.
    assert 1 - 15 / 16 * physics.pair_depolarising == pytest.approx((1 - 0.75 * 0.01) ** 2)


def test_times_of_zero_are_no_decay():
    physics = describe(network({"T1": 0, "T2": 0})).nodes["a"].device.register_physics()
    assert math.isinf(physics.communication.relaxation_time_ms)
    assert math.isinf(physics.communication.coherence_time_ms)
    with pytest.raises(ConfigurationError, match="T2 = 1e\\+09 ns is longer than twice T1 = 10 ns"):
        describe(network({"T1": 10}))


def test_an_nv_device_has_its_noise_and_durations():
    config = NVQDeviceConfig(num_qubits=3, electron_init_depolar_prob=0.04, measure=3_700)
    device = describe(network(config, "nv")).nodes["a"].device
    assert isinstance(device, NVDevice)
    physics = device.register_physics()
    assert (physics.communication_qubits, physics.memory_qubits) == (1, 2)
    assert physics.communication.initialisation_error == 0.02
    assert physics.communication.readout_fidelity_0 == pytest.approx(0.95)
    assert physics.communication.readout_fidelity_1 == pytest.approx(0.995)
    assert physics.communication.measure_ticks == 4
    assert physics.memory.initialise_ticks == 310
    assert physics.pair_gate_ticks == 500
    assert (physics.move_ticks, physics.swap_ticks) == (1000, 1500)


def test_links_have_their_states_and_rates():
    assert the_link(network(link_cfg={"state_delay": 5000})).attempt_period_ns == 5000
    noisy = the_link(network(link="depolarise", link_cfg=DepolariseLinkConfig(
        fidelity=0.9, prob_success=0.3, t_cycle=20_000
    )))  # fmt: skip
    assert noisy.protocol == WernerProtocol(success_probability=0.3, fidelity=0.9)
    assert noisy.attempts_per_batch == 5
    exact = the_link(network(link="depolarise", link_cfg={"fidelity": 1, "prob_success": 0.3}))
    assert exact.protocol == PerfectProtocol(success_probability=0.3)


def test_a_long_cycle_is_made_of_attempts_that_together_succeed_as_often():
    link = the_link(
        network(
            link="depolarise", link_cfg={"fidelity": 1, "prob_success": 0.3, "t_cycle": 2_500_000}
        )
    )
    assert link.attempt_period_ns == pytest.approx(2_500_000 / 3, abs=1)
    assert (1 - link.protocol.success_probability) ** 3 == pytest.approx(0.7)


def test_two_photons_must_arrive_and_half_of_the_clicks_count():
    config = HeraldedLinkConfig(length=20, p_loss_length=0.2, p_loss_init=0.5)
    link = the_link(network(link="heralded", link_cfg=config))
    arrives = 0.5 * 10 ** (-0.2)
    assert link.protocol == PerfectProtocol(success_probability=arrives**2 / 2)
    assert link.attempt_period_ns == 100_000  # 20 km of glass


def test_the_file_of_the_example():
    description = describe(StackNetworkConfig.from_file(EXAMPLE))
    assert list(description.nodes) == ["client", "server"]
    assert description.links[0].estimate == 0.95


def test_classical_messages_take_their_time():
    assert latencies(create_two_node_network()).classical.mean_ms == 0
    assert latencies(create_two_node_network(clink_delay=2e6)).classical.mean_ms == 2
    config = create_two_node_network()
    config.clinks = [
        CLinkConfig(stack1="Alice", stack2="Bob", typ="default", cfg=DefaultCLinkConfig(length=200))
    ]
    assert latencies(config).classical.mean_ms == 1


def test_a_complete_graph_joins_all():
    config = create_complete_graph_network(["a", "b", "c"], "perfect", None)
    assert {link.between for link in describe(config).links} == {
        ("a", "b"), ("a", "c"), ("b", "c"),
    }  # fmt: skip


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (network(typ="trapped_ion"), "the device of a is of qdevice_typ 'trapped_ion'"),
        (network({"T3": 1}), "the device of a: T3: Extra inputs"),
        (network({"num_qubits": 17}), "the device of a: .*16"),
        (network({"electron_rot_x": 5_000}, "nv"), "electron_rot_x, .* differ"),
        (network(link="nv"), "is of typ 'nv'; there are perfect, depolarise"),
        (network(link="heralded", link_cfg={"length": 1, "visibility": 0.9}), "visibility = 0.9"),
        (network(link="heralded", link_cfg={"length": 1, "p_loss_init": 1}), "no photon"),
        (network(link="perfect", link_cfg={"state_delay": 2e6}), "always succeeds"),
        (network(link="depolarise", link_cfg={"fidelity": 1.5}), "link between a and b: fidelity"),
        (network(NVQDeviceConfig()), "expected a GenericQDeviceConfig"),
    ],
)
def test_what_cannot_be_had_is_refused_by_name(config, message):
    with pytest.raises(ConfigurationError, match=message):
        describe(config)


def test_different_delays_are_refused():
    config = create_complete_graph_network(["a", "b", "c"], "perfect", None)
    config.clinks[0].typ = "default"
    config.clinks[0].cfg = {"delay": 7}
    with pytest.raises(ConfigurationError, match="delays of 0, 7 ns"):
        latencies(config)
    config.clinks[0].typ = "pigeon"
    with pytest.raises(ConfigurationError, match="'pigeon'"):
        latencies(config)


def test_a_file_that_is_none_is_refused(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("stacks: [", "utf-8")
    with pytest.raises(ConfigurationError, match="no YAML"):
        StackNetworkConfig.from_file(path)
    path.write_text("- 1", "utf-8")
    with pytest.raises(ConfigurationError, match="a StackNetworkConfig is a table"):
        StackNetworkConfig.from_file(path)
    path.write_text("stacks: [{name: a}]", "utf-8")
    with pytest.raises(ConfigurationError, match=r"stacks\.0\.qdevice_typ: Field required"):
        StackNetworkConfig.from_file(path)
