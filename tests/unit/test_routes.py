"""Routes: the best path between any two nodes, and never a loop."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.qnpu.routes import Route, make_routes, werner_weight

CHAIN = {(1, 2): 0.97, (2, 3): 0.9, (3, 4): 0.94}


def path(routes: dict[int, dict[int, Route]], source: int, destination: int) -> list[int]:
    nodes = [source]
    while nodes[-1] != destination:
        nodes.append(routes[nodes[-1]][destination].next_hop)
        assert len(nodes) <= len(routes), f"the route {nodes} has a loop"
    return nodes


def test_a_chain_leads_from_neighbour_to_neighbour():
    routes = make_routes(CHAIN)
    assert path(routes, 1, 4) == [1, 2, 3, 4]
    assert path(routes, 4, 1) == [4, 3, 2, 1]
    assert [routes[1][node].hops for node in (2, 3, 4)] == [1, 2, 3]
    assert (routes[2][3].next_hop, routes[2][3].hops) == (3, 1)
    assert routes[2][3].fidelity == pytest.approx(0.9)


def test_the_weights_of_the_links_multiply():
    expected = 0.96 * (4 * 0.9 - 1) / 3 * (4 * 0.94 - 1) / 3
    assert werner_weight(make_routes(CHAIN)[1][4].fidelity) == pytest.approx(expected)


def test_a_better_way_round_wins_over_a_bad_link():
    assert make_routes({(1, 2): 0.99, (2, 3): 0.99, (1, 3): 0.8})[1][3].next_hop == 2
    assert make_routes({(1, 2): 0.85, (2, 3): 0.85, (1, 3): 0.8})[1][3].next_hop == 3


def test_equal_ways_take_the_fewest_hops_and_then_the_lowest_node():
    square = {
        (1, 3): 1.0,
        (1, 2): 1.0,
        (2, 4): 1.0,
        (3, 4): 1.0,
        (4, 5): 1.0,
        (1, 6): 1.0,
        (6, 5): 1.0,
    }
    routes = make_routes(square)
    assert path(routes, 1, 4) == [1, 2, 4]
    assert path(routes, 1, 5) == [1, 6, 5]


def test_a_node_nobody_hears_of_is_avoided_if_there_is_another_way():
    square = {(1, 2): 1.0, (2, 4): 1.0, (1, 3): 0.8, (3, 4): 0.8}
    assert path(make_routes(square, avoid={2}), 1, 4) == [1, 3, 4]
    assert path(make_routes(square, avoid={2, 3}), 1, 4) == [1, 2, 4]
    assert path(make_routes(square, avoid={2}), 1, 2) == [1, 2]


def test_no_route_leads_through_a_node_that_cannot_swap():
    square = {(1, 2): 1.0, (2, 4): 1.0, (1, 3): 0.8, (3, 4): 0.8}
    assert path(make_routes(square, ends={2}), 1, 4) == [1, 3, 4]
    assert path(make_routes(square, ends={2}), 1, 2) == [1, 2]
    assert 4 not in make_routes(square, ends={2, 3})[1]


def test_a_network_in_two_parts_has_no_routes_between_them():
    routes = make_routes({(1, 2): 1.0, (3, 4): 1.0})
    assert routes == {
        1: {2: Route(2, 1, 1.0)},
        2: {1: Route(1, 1, 1.0)},
        3: {4: Route(4, 1, 1.0)},
        4: {3: Route(3, 1, 1.0)},
    }


def test_a_link_without_entanglement_is_no_reason_for_a_negative_weight():
    assert make_routes({(1, 2): 0.1, (2, 3): 1.0})[1][3].fidelity == 0.25


@pytest.mark.parametrize(
    ("links", "message"),
    [({(1, 1): 1.0}, "node 1 to itself"), ({(1, 2): 1.2}, "fidelity 1.2, outside 0..1")],
)
def test_what_is_no_network_is_refused(links, message):
    with pytest.raises(ValueError, match=message):
        make_routes(links)


NODES = st.integers(1, 9)
NETWORKS = st.dictionaries(
    st.tuples(NODES, NODES).filter(lambda link: link[0] < link[1]),
    st.sampled_from([0.0, 0.5, 0.8, 0.9, 0.97, 1.0]),
    min_size=1,
    max_size=20,
)


@given(NETWORKS, st.frozensets(NODES, max_size=3))
def test_routes_follow_links_without_loops_and_say_what_their_path_gives(links, avoid):
    routes = make_routes(links, avoid)
    for source, mine in routes.items():
        for destination, route in mine.items():
            nodes = path(routes, source, destination)
            assert len(nodes) == route.hops + 1
            weight = 1.0
            for hop in pairwise(nodes):
                weight *= werner_weight(links[min(hop), max(hop)])
            assert werner_weight(route.fidelity) == pytest.approx(weight)
            back = routes[destination][source]
            assert back.fidelity == pytest.approx(route.fidelity)
            if not avoid and (min(source, destination), max(source, destination)) in links:
                direct = links[min(source, destination), max(source, destination)]
                assert werner_weight(route.fidelity) >= werner_weight(direct) - 1e-12
