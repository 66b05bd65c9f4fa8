"""Circuits: pairs between nodes that are no neighbours, and all that can become of them."""

from __future__ import annotations

import pytest

from tests.unit.kernel_programs import create_epr, init_app, open_socket, recv_epr, submit
from tests.unit.kernel_world import Network, chain


def start(net: Network, node: int, remote: int, socket: int = 0, client: int = 1) -> None:
    """Register a program and open its socket."""
    net.nodes[node].post(init_app(0), client)
    net.nodes[node].post(open_socket(0, socket, remote, socket), client)


def ask(net: Network, head: int, tail: int, client: int = 1, socket: int = 0, **create):
    """A create request at one node and the receive request for it at another."""
    start(net, head, tail, socket, client)
    start(net, tail, head, socket, client)
    pairs = create.get("pairs", 1)
    created = net.nodes[head].post(
        submit(0, create_epr(remote=tail, socket=socket, **create)), client
    )
    virtuals = create.get("virtuals")
    received = net.nodes[tail].post(
        submit(0, recv_epr(remote=head, socket=socket, pairs=pairs, virtuals=virtuals)), client
    )
    return created, received


@pytest.mark.parametrize("nodes", [3, 4, 6])
def test_a_chain_delivers_a_pair_to_its_ends(nodes):
    net = chain(nodes)
    created, received = ask(net, 1, nodes)
    net.lab.run(3_000)
    mine, theirs = net.nodes[1].array(created), net.nodes[nodes].array(received)
    assert mine[:7] == (0, 0, 0, 0, 0, 0, nodes)
    assert theirs[:7] == (0, 0, 0, 1, 0, 0, 1)
    assert mine[7:] == theirs[7:]
    assert net.world.fidelity(net.halves(1), net.halves(nodes)) == pytest.approx(1)
    assert net.swaps() == nodes - 2
    net.check_idle()
    net.lab.check_clean()
