"""A network as data: shapes, time bins, and what is wrong with a file."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from qnodeos.assembly.description import (
    HUB,
    MIXED_FIDELITY,
    GenericDevice,
    NetworkDescription,
    NodeDescription,
    NVDevice,
    load_description,
    quick_link,
)
from qnodeos.config.loader import parse_config
from qnodeos.errors import ConfigurationError
from qnodeos.service.schedule_plan import MAX_NODES
from sim.entangled_state import SinglePhotonProtocol, WernerProtocol
from sim.link import LinkParameters
from sim.register_physics import RegisterPhysics

MIXED = """
nodes:
  alice: {device: {kind: generic, qubits: 3}}
  relay:
    device:
      kind: nv
      memories: 2
      physics:
        memory: {coherence_time_ms: 250}
  bob: {}
links:
  - between: [alice, relay]
    link:
      protocol: {kind: werner, fidelity: 0.9}
    fidelity: 0.85
  - between: [relay, bob]
schedule: {bin_ms: 2, guard_ms: 0.2}
latencies: paper
"""


def described(text: str) -> NetworkDescription:
    return parse_config(text, NetworkDescription, "net.yaml")


def test_a_file_says_what_it_names_and_the_rest_is_quick_and_perfect(tmp_path):
    path = tmp_path / "net.yaml"
    path.write_text(MIXED, "utf-8")
    network = load_description(path)
    relay = network.nodes["relay"].device.register_physics()
    assert (relay.communication_qubits, relay.memory_qubits) == (1, 2)
    assert relay.memory.coherence_time_ms == 250
    assert relay.communication == NVDevice(memories=2).register_physics().communication
    assert network.nodes["alice"].device.register_physics().qubits == 3
    assert network.nodes["bob"].device == GenericDevice()
    first, second = network.links
    assert first.link.protocol == WernerProtocol(fidelity=0.9, success_probability=0.5)
    assert second.link == quick_link()
    assert (first.estimate, second.estimate) == (0.85, 1.0)


def test_the_estimate_of_a_link_is_that_of_its_protocol():
    network = NetworkDescription.joined("ab", [("a", "b")], link=LinkParameters.paper())
    assert network.links[0].estimate == SinglePhotonProtocol().fidelity
    mocked = NetworkDescription.joined("ab", [("a", "b")], link=LinkParameters.paper(mocked=True))
    assert mocked.links[0].estimate == MIXED_FIDELITY


def test_what_was_written_is_read_again():
    network = described(MIXED)
    assert described(network.model_dump_json()) == network


def test_shapes():
    chain = NetworkDescription.chain(4)
    assert [link.between for link in chain.links] == [("n0", "n1"), ("n1", "n2"), ("n2", "n3")]
    star = NetworkDescription.star(4)
    assert [link.between for link in star.links] == [(HUB, "n1"), (HUB, "n2"), (HUB, "n3")]
    full = NetworkDescription.fully_connected(["a", "b", "c"], NVDevice())
    assert [link.between for link in full.links] == [("a", "b"), ("a", "c"), ("b", "c")]
    assert all(node.device == NVDevice() for node in full.nodes.values())


def test_the_bins_of_a_chain_alternate():
    schedules = NetworkDescription.chain(4).schedules()
    assert {name: schedule.pattern for name, schedule in schedules.items()} == {
        "n0": (1, None),
        "n1": (0, 2),
        "n2": (3, 1),
        "n3": (2, None),
    }


@given(st.sets(st.frozensets(st.integers(0, 9), min_size=2, max_size=2), min_size=1, max_size=20))
def test_in_every_bin_both_ends_of_a_link_mean_each_other(pairs):
    names = [f"n{number}" for number in range(10)]
    links = [(f"n{min(pair)}", f"n{max(pair)}") for pair in pairs]
    network = NetworkDescription.joined(names, links)
    ids, schedules = network.node_ids, network.schedules()
    used = set()
    for name, schedule in schedules.items():
        for number, peer in enumerate(schedule.pattern):
            if peer is not None:
                other = names[peer]
                assert schedules[other].pattern[number] == ids[name]
                used.add(frozenset((name, other)))
    assert used == {frozenset(link) for link in links}


def test_the_links_of_a_device_are_numbered_as_its_neighbours():
    network = NetworkDescription.chain(3)
    assert list(network.neighbours("n1")) == ["n0", "n2"]
    assert network.neighbours("n0")["n1"] is network.neighbours("n1")["n0"]


def test_as_many_nodes_as_a_schedule_may_have():
    assert len(NetworkDescription.star(MAX_NODES).bins) == MAX_NODES - 1
    with pytest.raises(ValidationError, match=f"at most {MAX_NODES} items"):
        NetworkDescription.star(MAX_NODES + 1)


NODES = "nodes: {a: {}, b: {}, c: {device: {kind: nv}}}\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NODES + "links: [{between: [a, x]}]", "links[0] joins 'x', which is no node; the nodes"),
        (NODES + "links: [{between: [a, a]}]", "links[0] joins 'a' with itself"),
        (
            NODES + "links: [{between: [a]}]",
            "links[0].between: must be the names of two nodes, as in",
        ),
        (
            NODES + "links: [{between: [a, b, c]}]",
            "with a link for each two nodes, not a list of 3",
        ),
        (
            NODES + "links: [{between: a}]",
            "links[0].between: must be the names of two nodes, as in",
        ),
        (
            NODES + "links: [{between: [a, b]}, {between: [b, a]}]",
            "links[1] is a second link between 'b' and 'a'",
        ),
        (
            NODES + "links: [{between: [a, b], link: {attempts_per_batch: 100}}]",
            "a batch of 1 ms (links[0].link: attempts_per_batch x attempt_period_ns) do not fit",
        ),
        (
            "nodes: {a: {}, b: {}, c: {device: {kind: nv, physics: {tick_ns: 5}}}}",
            "a tick is 5 ns at node c and 10000 ns at others",
        ),
        (
            "nodes:\n  a: {device: {kind: generic, physics: {memory: {gate_tics: 3}}}}",
            "net.yaml:2: nodes.a.device: physics: memory.gate_tics: is not a known field; did you",
        ),
        (
            "nodes: {a: {device: {kind: generic, physics: {communication_qubits: 9}}}}",
            "physics.communication_qubits follows from the kind of the device",
        ),
        ("nodes:\n  a: {}\n  2b: {}", "net.yaml:3: nodes.2b: a node's name has up to 64 letters"),
        ("nodes: {a: {device: {kind: nv, memories: 16}}}", "less than or equal to 15, not 16"),
        ("nodes: {a: {device: {qubits: 3}}}", "nodes.a.device: needs the field 'kind'"),
        ("nodes: {a: {}}\nlatencies: none", "there is no latency profile 'none'"),
        ("nodes: {}", "nodes: Dictionary should have at least 1 item"),
    ],
)
def test_what_is_wrong_is_said(text, message):
    with pytest.raises(ConfigurationError) as caught:
        described(text)
    assert message in str(caught.value)


def test_physics_changes_a_noiseless_device_only_where_it_says_so():
    network = described(
        "nodes: {a: {device: {kind: nv, memories: 2, noiseless: true, "
        "physics: {memory: {coherence_time_ms: 250}}}}}"
    )
    physics = network.nodes["a"].device.register_physics()
    perfect = RegisterPhysics.nv_noiseless(2)
    memory = perfect.memory.model_copy(update={"coherence_time_ms": 250.0})
    assert physics == perfect.model_copy(update={"memory": memory})


@pytest.mark.parametrize(
    ("device", "is_way"),
    [
        (GenericDevice(qubits=1), False),
        (GenericDevice(qubits=2), True),
        (NVDevice(memories=0), False),
        (NVDevice(memories=1), True),
    ],
)
def test_a_node_of_one_qubit_is_no_repeater(device, is_way):
    chain = NetworkDescription.chain(3)
    nodes = dict(chain.nodes) | {"n1": NodeDescription(device=device)}
    routes = chain.model_copy(update={"nodes": nodes}).routes()
    assert (2 in routes[0]) == is_way
    assert 1 in routes[0]
