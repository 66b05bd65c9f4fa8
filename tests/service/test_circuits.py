"""Circuits over the peer protocol: kernels, connections and a controller that makes the routes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from qnodeos.api.peer import PeerMessage
from qnodeos.service.controller import ControllerCore
from qnodeos.service.controller_file import ControllerFile
from tests.service.peer_net import MS, TICK_NS, Net
from tests.service.test_peer_faults import TIMING
from tests.unit.kernel_harness import Lab
from tests.unit.kernel_world import BIN_TICKS, Network, ask, network

NAMES = {1: "one", 2: "two", 3: "three", 4: "four"}
MS_PER_BIN = BIN_TICKS * TICK_NS / MS
RING = ((1, 2), (2, 3), (3, 4), (1, 4))


class WiredLab(Lab):
    """Nodes whose kernels reach each other, and a controller, over connections."""

    def __init__(self, made: Network, delay_ns: int = 20_000) -> None:
        super().__init__(every_tick=True)
        self.nodes = made.nodes
        self.net = Net(lambda: delay_ns, TIMING)
        self.net.now_ns = self.tick = 0
        self._links = made.links
        for number in self.nodes:
            self.connect(number)

    def connect(self, number: int) -> None:
        """Start the peer protocol of a node."""
        neighbours = {
            a + b - number: NAMES[a + b - number] for a, b in self._links if number in (a, b)
        }
        kernel = self.nodes[number].kernel
        self.net.start(number, NAMES[number], neighbours, kernel=kernel)

    def step(self, tick: int) -> None:
        """Carry what is under way, then run the tick."""
        self.net.run((tick * TICK_NS - self.net.now_ns) / MS)
        super().step(tick)

    def _send(self, source: int, destination: int, message: PeerMessage) -> None:
        self.sent.append((source, destination, message))
        if source in self.net.hosts:
            self.net.send(source, destination, message)


def wired(
    links: Sequence[tuple[int, int]], *fidelities: float, **options: Any
) -> tuple[Network, WiredLab, ControllerCore]:
    """A network whose nodes have neither routes nor the schedule of the controller yet."""
    made = network(links, **options)
    for node in made.nodes.values():
        node.kernel.install_routes({})
    lab = WiredLab(made)
    made.lab = lab
    values = {
        "nodes": {
            NAMES[number]: {"node_id": number, "address": f"tcp:127.0.0.1:{7000 + number}"}
            for number in made.nodes
        },
        "links": [
            (NAMES[first], NAMES[second], *fidelities[place : place + 1])
            for place, (first, second) in enumerate(links)
        ],
        "bin_ms": MS_PER_BIN,
        "guard_ms": 0.03,
        "batch_ms": 0.08,
        "start_delay_ms": 1,
        "synchronisation": {"period_ms": 50, "exchanges": 1, "first_round_ms": 5},
    }
    core = lab.net.start_controller(ControllerFile.model_validate(values))
    lab.run(1_000)
    assert core.is_ready
    return made, lab, core


def test_three_services_make_pairs_between_the_outer_ones():
    net, lab, _ = wired([(1, 2), (2, 3)], 0.9, 0.8)
    route = net.nodes[1].kernel.entanglement.routes[3]
    assert (route.next_hop, route.hops) == (2, 2)
    assert route.fidelity == pytest.approx((1 + 3 * (2.6 / 3) * (2.2 / 3)) / 4)
    created, received = ask(net, 1, 3, pairs=2, virtuals=[0, 1])
    lab.run(2_000)
    mine, theirs = net.nodes[1].array(created), net.nodes[3].array(received)
    for start in (0, 10):
        assert mine[start + 1] == theirs[start + 1]
        assert mine[start + 4] == theirs[start + 4] == start // 10
        assert mine[start + 7] == theirs[start + 7]
    for virtual in (0, 1):
        assert net.world.fidelity(net.half(1, virtual), net.half(3, virtual)) == pytest.approx(1)
    net.check_idle()


def test_requests_go_round_a_node_that_has_left_and_over_it_when_it_is_back():
    net, lab, _ = wired(RING, 0.95, 0.95, 0.8, 0.8)
    ask(net, 1, 3)
    lab.run(1_000)
    assert net.nodes[2].kernel.network_layer.attempts.swaps == 1
    lab.net.kill(2)
    lab.run(1_000)
    ask(net, 1, 3, client=2, socket=2)
    lab.run(1_000)
    assert net.nodes[4].kernel.network_layer.attempts.swaps == 1
    assert net.world.fidelity(net.half(1, 0, 2), net.half(3, 0, 2)) == pytest.approx(1)
    for peer in (1, 3):
        net.nodes[2].kernel.peer_lost(peer, lab.tick)
    lab.connect(2)
    lab.run(3_000)
    ask(net, 1, 3, client=3, socket=3)
    lab.run(1_000)
    assert net.nodes[2].kernel.network_layer.attempts.swaps == 2
    net.check_idle()


@pytest.mark.parametrize("silently", [False, True])
def test_connections_that_break_end_circuits_at_both_ends_and_new_ones_work(silently):
    net, lab, _ = wired([(1, 2), (2, 3)], heralds=0.0)
    created, received = ask(net, 1, 3)
    lab.run(200)
    lab.net.cut(silently=silently)
    lab.run(2_000)
    for node, request in ((1, created), (3, received)):
        assert net.nodes[node].error(request).kind == "PeerLostError"
    net.chances.heralds = 0.7
    ask(net, 1, 3, client=2, socket=2)
    lab.run(2_000)
    assert net.world.fidelity(net.half(1, 0, 2), net.half(3, 0, 2)) == pytest.approx(1)
    net.check_idle()
