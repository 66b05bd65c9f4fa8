"""Networks of many nodes: pairs between far ends are as predicted; nodes leave and come back."""

from __future__ import annotations

import json
import math
from random import Random
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.assembly import (
    GenericDevice,
    NetworkDescription,
    NetworkSystem,
    NVDevice,
    build_network,
    load_profile,
)
from qnodeos.cnpu.external import install
from qnodeos.errors import ConfigurationError, ProgramError, QNodeOSError
from qnodeos.experiments.network_analysis import analyse_pairs
from qnodeos.experiments.network_pairs import (
    PairsSettings,
    ends_of_chain,
    opposite_leaves,
    run_pairs,
)
from qnodeos.experiments.network_prediction import predict
from qnodeos.experiments.network_sharing import Hop, shared_turns
from qnodeos.trace.events import Event
from sim.entangled_state import BitFlipProtocol, WernerProtocol
from sim.link import LinkParameters
from sim.network import ProgramSpec
from tests.system.bench import Z_LIMIT

NOISY: dict[str, Any] = {
    "pair_depolarising": 0.01,
    "communication": {
        "coherence_time_ms": 50,
        "relaxation_time_ms": 500,
        "gate_depolarising": 0.002,
        "measure_ticks": 5,
    },
}
"""Without readout errors: those ruin a pair now and then, too seldom for a normal distribution."""

MISREADING: dict[str, Any] = {"communication": {"readout_fidelity_0": 0.9}}
EXACT = 1e-9


def werner(fidelity: float, success_probability: float, **others: Any) -> LinkParameters:
    return LinkParameters(
        attempt_period_ns=10_000,
        attempts_per_batch=10,
        protocol=WernerProtocol(fidelity=fidelity, success_probability=success_probability),
        **others,
    )


def compared(settings: PairsSettings) -> dict[str, Any]:
    """Run, and check what must hold whatever the noise."""
    data = run_pairs(settings)
    result = analyse_pairs(
        settings,
        data,
        predict(settings.network, settings.flows, settings.pairs, measured=settings.measured),
    )
    for flow in result["flows"]:
        assert flow["delivered"] == settings.pairs
        assert flow["ids_agreed"]
    assert not result["leaked"]
    return result


def assert_as_predicted(value: dict[str, Any]) -> None:
    if value["error"] < EXACT:
        assert value["value"] == pytest.approx(value["predicted"], abs=EXACT)
    else:
        assert abs(value["z"]) < Z_LIMIT, value


@pytest.mark.parametrize(
    ("nodes", "pairs"), [(2, 250), (3, 150), (5, 100), pytest.param(16, 70, id="16-70")]
)
def test_the_ends_of_a_noisy_chain_get_pairs_as_predicted(nodes, pairs):
    network = NetworkDescription.chain(nodes, GenericDevice(physics=NOISY), werner(0.99, 0.02))
    result = compared(PairsSettings(network, ends_of_chain(network), pairs))
    (flow,) = result["flows"]
    assert flow["hops"] == nodes - 1
    assert_as_predicted(flow["fidelity"])
    assert_as_predicted(flow["rate_hz"])


def test_wrong_readings_at_a_swap_ruin_as_many_pairs_as_predicted():
    network = NetworkDescription.chain(3, GenericDevice(physics=MISREADING), werner(1, 0.5))
    result = compared(PairsSettings(network, ends_of_chain(network), 400))
    assert_as_predicted(result["mean"]["fidelity"])
    assert result["mean"]["fidelity"]["predicted"] == pytest.approx(0.95**2)


@pytest.mark.parametrize("nodes", [2, 4])
def test_pairs_that_are_measured_at_once_correlate_as_predicted(nodes):
    physics = {**NOISY, "communication": {**NOISY["communication"], "readout_fidelity_0": 0.95}}
    network = NetworkDescription.chain(nodes, GenericDevice(physics=physics), werner(0.97, 0.05))
    result = compared(PairsSettings(network, ends_of_chain(network), 300, measured=True))
    assert_as_predicted(result["mean"]["fidelity"])
    assert_as_predicted(result["mean"]["rate_hz"])


def test_a_link_that_has_to_be_prepared_delays_its_pairs_as_predicted():
    network = NetworkDescription.chain(3, None, werner(0.9, 0.02, preparation_ms=3))
    result = compared(PairsSettings(network, ends_of_chain(network), 150))
    assert_as_predicted(result["mean"]["fidelity"])
    assert_as_predicted(result["mean"]["rate_hz"])
    assert result["mean"]["rate_hz"]["predicted"] < 1e3 / 6, "two bins of the links make 4 ms"


def test_all_leaves_of_a_star_of_32_get_pairs_at_once_as_predicted():
    network = NetworkDescription.star(
        33, GenericDevice(qubits=16, physics=NOISY), werner(0.97, 0.1)
    )
    flows = opposite_leaves(network)
    assert len(flows) == 16
    result = compared(PairsSettings(network, flows, 12))
    assert_as_predicted(result["mean"]["fidelity"])
    assert_as_predicted(result["mean"]["rate_hz"])


def test_flips_of_two_links_cancel_as_often_as_predicted():
    flips = LinkParameters(
        attempt_period_ns=10_000,
        attempts_per_batch=10,
        protocol=BitFlipProtocol(fidelity=0.9, success_probability=0.5),
    )
    network = NetworkDescription.chain(3, None, flips)
    result = compared(PairsSettings(network, ends_of_chain(network), 5))
    assert_as_predicted(result["mean"]["fidelity"])
    assert result["mean"]["fidelity"]["predicted"] == pytest.approx(0.9**2 + 0.1**2)


def test_the_same_seed_gives_the_same_pairs_and_another_one_others():
    network = NetworkDescription.chain(4, GenericDevice(physics=NOISY), werner(0.9, 0.05))
    first, second, third = (
        run_pairs(PairsSettings(network, ends_of_chain(network), 10, seed=seed))
        for seed in (3, 3, 4)
    )
    assert first == second
    assert first.flows[0].times_ns != third.flows[0].times_ns


@pytest.mark.parametrize("memories", [2, 4])
def test_nv_centres_with_memories_repeat(memories):
    network = NetworkDescription.chain(4, NVDevice(memories=memories, noiseless=True))
    data = run_pairs(PairsSettings(network, ends_of_chain(network), 10))
    assert np.allclose(data.flows[0].fidelities, 1)
    assert data.flows[0].ids[0] == data.flows[0].ids[1]
    assert not data.leaked


# --- nodes leave and join ---------------------------------------------------------------

RING = ["a", "b", "c", "d"]


def ring() -> NetworkSystem:
    links = [(RING[n], RING[(n + 1) % 4]) for n in range(4)]
    network = NetworkDescription.joined(RING, links, GenericDevice(), werner(0.95, 0.5))
    return build_network(network, load_profile("zero"), 1, trace_capacity=1 << 14)


def both_ends(source: str, destination: str, pairs: int) -> list[ProgramSpec]:
    """The programs of two nodes that keep pairs and measure them then."""
    install()
    from qnodeos.experiments.programs import pair_ends

    both: dict[str, Any] = {"pairs": pairs, "on_pair": lambda number: None}
    ours = both | {"node": source, "peer": destination, "bases": ()}
    theirs = both | {"node": destination, "peer": source, "measured": False}
    return [
        ProgramSpec(source, "create", pair_ends.create, ours),
        ProgramSpec(destination, "receive", pair_ends.receive, theirs),
    ]


def ask(system: NetworkSystem, source: str, destination: str, pairs: int = 3) -> list[list[int]]:
    """Pairs between two nodes; returns what both ends measured."""
    return system.network.run(both_ends(source, destination, pairs))


def swaps(system: NetworkSystem) -> dict[str, int]:
    return {
        name: len(handles.qnpu_trace.times(Event.QNETWORK_SWAP_RET))
        for name, handles in system.nodes.items()
    }


def test_pairs_go_round_a_node_that_has_left_and_over_it_when_it_is_back():
    with ring() as system:
        assert system.routes()["a"]["c"].next_hop == 1
        ask(system, "a", "c")
        assert swaps(system) == {"a": 0, "b": 3, "c": 0, "d": 0}
        system.remove("b")
        assert "b" not in system.routes()["a"]
        ask(system, "a", "c")
        assert swaps(system) == {"a": 0, "b": 3, "c": 0, "d": 3}
        system.add_back("b")
        system.remove("d")
        ask(system, "a", "c")
        assert swaps(system) == {"a": 0, "b": 6, "c": 0, "d": 3}
        for handles in system.nodes.values():
            kernel = handles.node.kernel
            assert len(kernel.qmmu.free_qubits()) == 5
            assert not kernel.network_layer.circuits


def test_programs_whose_repeater_leaves_are_told_and_the_next_are_served_when_it_is_back():
    network = NetworkDescription.chain(3, GenericDevice(), werner(0.95, 0.001))
    with build_network(network, load_profile("zero"), 1, trace_capacity=1 << 14) as system:
        left_ns = 2_500_000
        system.network.clock.call_at(left_ns, system.remove, "n1")
        with pytest.raises(ProgramError) as caught:
            ask(system, "n0", "n2", pairs=50)
        assert "PeerLostError" in str(caught.value)
        assert "the connection to node 1 was lost" in str(caught.value)
        assert all(
            len(handles.node.kernel.qmmu.free_qubits()) == 5 for handles in system.nodes.values()
        )
        system.add_back("n1")
        ours, theirs = ask(system, "n0", "n2", pairs=2)
        assert len(ours) == len(theirs) == 2


def test_a_node_leaves_once_and_comes_back_once():
    with ring() as system:
        with pytest.raises(ConfigurationError, match="no node 'a' has left; those that have: none"):
            system.add_back("a")
        system.remove("a")
        with pytest.raises(ConfigurationError, match="no node 'a' is there; those that are: b, c"):
            system.remove("a")
        with pytest.raises(ConfigurationError, match="no node 'x' is there"):
            system.remove("x")


HEXAGON = ["a", "b", "c", "d", "e", "f"]
CHORDS = [("a", "d"), ("b", "e")]


@pytest.mark.parametrize("seed", range(4))
def test_whoever_comes_and_goes_nothing_is_left_over(seed):
    rng = Random(seed)
    links = [(HEXAGON[n], HEXAGON[(n + 1) % 6]) for n in range(6)]
    network = NetworkDescription.joined(
        HEXAGON, links + CHORDS, GenericDevice(qubits=2 + seed), werner(0.95, 0.05)
    )
    with build_network(network, load_profile("zero"), seed, trace_capacity=1 << 10) as system:
        clock = system.network.clock

        def come_or_go(name: str) -> None:
            (system.add_back if name in system.absent else system.remove)(name)

        for _ in range(4):
            after_ns = round(rng.uniform(0, 20e6))
            clock.call_at(clock.now_ns + after_ns, come_or_go, rng.choice(HEXAGON))
        ends = rng.sample(HEXAGON, 6)
        specs = [
            spec
            for source, destination in zip(ends[:3], ends[3:], strict=True)
            for spec in both_ends(source, destination, pairs=5)
        ]
        for program in system.network.attempt(specs).programs:
            assert program.error is None or isinstance(program.error, QNodeOSError)
        for name in list(system.absent):
            system.add_back(name)
        system.network.settle()
        for handles in system.nodes.values():
            kernel = handles.node.kernel
            assert len(kernel.qmmu.free_qubits()) == 2 + seed
            assert not kernel.network_layer.circuits
            assert not kernel.processes


# --- the commands -----------------------------------------------------------------------


def invoke(*arguments: str) -> str:
    done = CliRunner().invoke(cli.app, ["network", *arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def test_pairs_of_a_chain_from_the_command_line(tmp_path):
    path = tmp_path / "pairs.json"
    printed = invoke(
        "pairs", "--nodes", "4", "--link-fidelity", "0.9", "--pairs", "5", "--json", str(path)
    )
    assert "All qubits are free again." in printed
    (flow,) = json.loads(path.read_text("utf-8"))["flows"]
    assert flow["path"] == ["n0", "n1", "n2", "n3"]
    weight = ((4 * 0.9 - 1) / 3) ** 3
    assert flow["fidelity"]["value"] == pytest.approx((1 + 3 * weight) / 4)
    assert flow["fidelity"]["predicted"] == pytest.approx((1 + 3 * weight) / 4)
    assert flow["rate_hz"]["predicted"] == pytest.approx(500, rel=1e-3)


def test_pairs_of_a_star_from_the_command_line():
    printed = invoke("pairs", "--topology", "star", "--nodes", "5", "--pairs", "6", "--kind",
                     "measure")  # fmt: skip
    assert "n1 - n3" in printed
    assert "n2 - n4" in printed
    assert "mean of 2" in printed


def test_pairs_without_a_prediction_say_why(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text(
        "nodes: {a: {}, b: {device: {kind: nv, noiseless: true}}, c: {}}\n"
        "links: [{between: [a, b]}, {between: [b, c]}]\n",
        "utf-8",
    )
    printed = invoke("pairs", "--network", str(path), "--from", "a", "--to", "c", "--pairs", "3")
    assert "nothing is predicted for paths over node b" in " ".join(printed.split())
    printed = invoke("describe", str(path))
    assert "a - b - c" in printed
    assert "1 + 4 memories" in printed
    with pytest.raises(ConfigurationError, match="there is no node 'x'; the nodes are: a, b, c"):
        invoke("pairs", "--network", str(path), "--from", "a", "--to", "x")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "n0"], "give both, or none"),
        (["--topology", "star", "--nodes", "2"], "a star needs two leaves"),
        (["--quiet"], "nothing would be kept"),
    ],
)
def test_commands_that_make_no_sense(arguments, message):
    assert message in " ".join(invoke("pairs", *arguments).split())


# --- predictions ------------------------------------------------------------------------


def test_a_certain_herald_takes_one_bin_of_each_link():
    certain = werner(1, 1)
    for nodes, bins in ((2, 1), (3, 2), (9, 2)):
        network = NetworkDescription.chain(nodes, None, certain)
        (prediction,) = predict(network, ends_of_chain(network), 100)
        assert prediction.spacing_ms == pytest.approx(bins)
        assert prediction.fidelity == pytest.approx(1)


def test_waiting_is_averaged_over_the_geometric_distribution():
    # One link in every bin, so slow that when in its bin the herald comes does not matter: from
    # the herald to the other end's correction three ticks pass, and the halves wait together.
    physics = {"communication": {"coherence_time_ms": 10}}
    network = NetworkDescription.chain(2, GenericDevice(physics=physics), werner(1, 0.001))
    (prediction,) = predict(network, ends_of_chain(network), 100)
    assert prediction.fidelity == pytest.approx((1 + math.exp(-2 * 0.03 / 10)) / 2, abs=1e-6)


def test_a_hub_without_enough_qubits_serves_circuits_one_after_the_other():
    # Each flow has every second bin. One at a time, it takes three, and the next can begin at once.
    flows = [[Hop(frozenset({place}), 1.0), Hop(frozenset({place + 2}), 1.0)] for place in (0, 1)]
    assert [bins for _, bins in shared_turns(flows, room=2, period=4)] == pytest.approx([4, 4])
    found = shared_turns(flows, room=1, period=4)
    assert [bins for _, bins in found] == pytest.approx([6, 6], rel=0.01)
    for phases, _ in found:
        assert phases.sum() == pytest.approx(1)


def test_nothing_is_predicted_of_software_with_latencies():
    with pytest.raises(ConfigurationError, match="latencies of the profile paper"):
        predict(NetworkDescription.chain(3, latencies="paper"), [("n0", "n2")], 10)


def test_nothing_is_predicted_where_flows_share_a_link():
    network = NetworkDescription.chain(4)
    with pytest.raises(ConfigurationError, match="share a link, as that of n1 and n2"):
        predict(network, [("n0", "n2"), ("n1", "n3")], 1)
    with pytest.raises(ConfigurationError, match="no path leads from node a to node b"):
        predict(NetworkDescription.joined("ab", []), [("a", "b")], 1)


def test_ctrl_c_says_that_nothing_is_kept(monkeypatch, tmp_path):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("qnodeos.cli.network_run.run_pairs", interrupted)
    path = tmp_path / "pairs.json"
    done = CliRunner().invoke(cli.app, ["network", "pairs", "--pairs", "3", "--json", str(path)])
    assert done.exit_code == 130
    assert "nothing is kept" in done.output
    assert not path.exists()
