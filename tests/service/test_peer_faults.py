"""Two kernels over the peer protocol: a peer that goes and comes back, a QNPU started anew."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.api.peer import PeerMessage
from qnodeos.limits import Limits
from qnodeos.service.peer_session import PeerTiming
from tests.service.peer_net import MS, TICK_NS, Net
from tests.unit.kernel_device import FAILED, Verdict
from tests.unit.kernel_harness import BIN_TICKS, Lab, Node, make_node, pair
from tests.unit.kernel_programs import (
    create_epr,
    init_app,
    measure_directly,
    open_socket,
    recv_epr,
    submit,
)

NAMES = {1: "one", 2: "two"}
# A bin of the kernel's tests lasts 1 ms.
TIMING = PeerTiming(
    heartbeat_ns=MS // 2,
    silence_ns=4 * MS,
    handshake_ns=4 * MS,
    first_retry_ns=MS // 4,
    longest_retry_ns=2 * MS,
)
LIMITS = Limits(offer_timeout_ticks=20 * BIN_TICKS, announcement_timeout_ticks=3 * BIN_TICKS)


class WiredLab(Lab):
    """Nodes whose kernels reach each other over connections."""

    def __init__(self, first: Node, second: Node, delay_ns: int = 20_000) -> None:
        super().__init__(first, second, every_tick=True)
        self.net = Net(lambda: delay_ns, TIMING)
        self.net.now_ns = 0
        self.tick = 0
        for node_id in NAMES:
            self.connect(node_id)

    def connect(self, node_id: int) -> None:
        """Start the peer protocol of a node."""
        other = 3 - node_id
        self.net.start(
            node_id, NAMES[node_id], {other: NAMES[other]}, kernel=self.nodes[node_id].kernel
        )

    def step(self, tick: int) -> None:
        """Carry what is under way, then run the tick."""
        self.net.run((tick * TICK_NS - self.net.now_ns) / MS)
        super().step(tick)

    def _send(self, source: int, destination: int, message: PeerMessage) -> None:
        self.sent.append((source, destination, message))
        self.net.send(source, destination, message)

    def restart(self, node_id: int) -> Node:
        """The QNPU of a node is killed and started anew; its device has a new session."""
        self.net.kill(node_id)
        old = self.nodes[node_id]
        fresh = make_node(node_id, limits=LIMITS)
        old.device.busy = old.device.due_tick = None
        fresh.device = old.device
        fresh.tick = self.tick
        self.nodes[node_id] = fresh
        self.connect(node_id)
        return fresh

    @property
    def is_connected(self) -> bool:
        """Whether both kernels have a connection to the other."""
        return all(node.kernel.statistics().connected_peers for node in self.nodes.values())


def wired(decide=Verdict, **options) -> WiredLab:
    _, first, second, _ = pair(decide, limits=LIMITS, **options)
    return WiredLab(first, second)


def start(node: Node, remote: int, client: int = 1) -> None:
    node.post(init_app(0), client)
    node.post(open_socket(0, 0, remote, 0), client)


def run_programs(lab: WiredLab, client: int = 1) -> tuple[int, int]:
    """A program at each node that make a pair; the numbers of their subroutines."""
    for node_id, node in lab.nodes.items():
        start(node, 3 - node_id, client)
    return (
        lab.nodes[1].post(submit(0, create_epr()), client),
        lab.nodes[2].post(submit(0, recv_epr()), client),
    )


def check_pair(lab: WiredLab, created: int, received: int) -> None:
    mine, theirs = lab.nodes[1].array(created), lab.nodes[2].array(received)
    assert mine[:2] == theirs[:2]
    assert (mine[3], theirs[3]) == (0, 1)
    assert mine[4] == theirs[4]


def test_a_pair_over_the_peer_protocol():
    lab = wired()
    requests = run_programs(lab)
    lab.run(5 * BIN_TICKS)
    assert lab.is_connected
    check_pair(lab, *requests)
    lab.run(1)
    for node in lab.nodes.values():
        node.close()
    lab.run(BIN_TICKS)
    for node in lab.nodes.values():
        node.check_clean()


@pytest.mark.parametrize("silently", [False, True])
def test_a_peer_that_goes_ends_what_was_agreed_and_comes_back(silently):
    chances = [FAILED] * 200
    lab = wired(lambda: chances.pop() if chances else Verdict())
    created, received = run_programs(lab)
    lab.run(3 * BIN_TICKS)
    assert created not in lab.nodes[1].replies
    lab.net.cut(silently=silently)
    lab.run(10 * BIN_TICKS)
    for node, request in ((lab.nodes[1], created), (lab.nodes[2], received)):
        assert node.error(request).kind == "PeerLostError"
        assert node.kernel.qmmu.free_qubits() == [0, 1, 2]
    assert lab.is_connected
    chances.clear()
    again = run_programs(lab, client=2)
    lab.run(5 * BIN_TICKS)
    check_pair(lab, *again)


def test_a_program_whose_pair_the_peer_never_heard_of_learns_of_it():
    """The pair was made in the time in which nobody had noticed the silence yet."""
    chances = [FAILED] * 200
    lab = wired(lambda: chances.pop() if chances else Verdict())
    created, received = run_programs(lab)
    lab.run(3 * BIN_TICKS)
    lab.net.cut(silently=True)
    chances.clear()
    lab.run(10 * BIN_TICKS)
    assert lab.nodes[1].array(created)[3] == 0
    assert lab.nodes[2].error(received).kind == "PeerLostError"
    late = lab.nodes[1].post(submit(0, "qfree Q0\n"))
    lab.run(5)
    assert "PeerLostError" in lab.nodes[1].error(late).text
    assert "may not know of the pair" in lab.nodes[1].error(late).text


def test_requests_made_while_the_peer_is_away_are_served_when_it_is_back():
    lab = wired()
    lab.run(BIN_TICKS)
    lab.net.is_down = True
    lab.net.cut()
    lab.run(BIN_TICKS)
    assert not lab.is_connected
    requests = run_programs(lab)
    lab.run(5 * BIN_TICKS)
    assert lab.sent == []
    lab.net.is_down = False
    lab.run(10 * BIN_TICKS)
    check_pair(lab, *requests)


def test_a_peer_that_stays_away():
    lab = wired()
    lab.net.is_down = True
    created, received = run_programs(lab)
    lab.run(25 * BIN_TICKS)
    assert lab.nodes[1].error(created).kind == "EntanglementTimeoutError"
    assert received not in lab.nodes[2].replies, "nobody has promised it anything"


@pytest.mark.parametrize("node_id", [1, 2])
def test_a_qnpu_that_is_started_anew(node_id):
    chances = [FAILED] * 200
    lab = wired(lambda: chances.pop() if chances else Verdict())
    requests = dict(zip((1, 2), run_programs(lab), strict=True))
    lab.run(3 * BIN_TICKS)
    fresh = lab.restart(node_id)
    chances.clear()
    lab.run(10 * BIN_TICKS)
    other = lab.nodes[3 - node_id]
    assert other.error(requests[3 - node_id]).kind == "PeerLostError"
    assert fresh.replies == {}
    assert lab.is_connected
    again = run_programs(lab, client=2)
    lab.run(5 * BIN_TICKS)
    check_pair(lab, *again)


@settings(max_examples=30)
@given(st.data())
def test_nothing_leaks_whatever_becomes_of_the_connections(data):
    chances = Random(data.draw(st.integers(0, 999)))
    lab = wired(lambda: Verdict() if chances.random() < 0.4 else FAILED, device_ticks=2)
    lab.net.delay_ns = lambda: chances.randint(10_000, 600_000)
    kind = data.draw(st.sampled_from([{}, measure_directly()]))
    client = 0
    for act in data.draw(
        st.lists(
            st.sampled_from(["run", "run", "cut", "silence", "restart 1", "restart 2", "down"]),
            min_size=1,
            max_size=8,
        )
    ):
        if act == "run":
            client += 1
            for node_id, node in lab.nodes.items():
                start(node, 3 - node_id, client)
                remote = 3 - node_id
                program = (
                    create_epr(remote=remote, arguments=kind)
                    if chances.random() < 0.5
                    else recv_epr(remote=remote, measured=bool(kind))
                )
                node.post(submit(0, program), client)
        elif act in ("cut", "silence"):
            lab.net.cut(silently=act == "silence")
        elif act == "down":
            lab.net.is_down = not lab.net.is_down
        else:
            lab.restart(int(act[-1]))
        lab.run(chances.randint(0, 3 * BIN_TICKS))
    lab.net.is_down = False
    lab.run(15 * BIN_TICKS)
    assert lab.is_connected
    for node in lab.nodes.values():
        node.check_owners()
        for number in range(client + 1):
            node.close(number)
    lab.run(5 * BIN_TICKS)
    for node in lab.nodes.values():
        node.check_clean()
