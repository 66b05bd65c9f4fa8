"""Which routes the nodes of a network are told to use, and who has to be told anew."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from qnodeos.api.peer_wire import InstallRoutes
from qnodeos.qnpu.routes import make_routes


class RoutePlan:
    """The routes that the connected nodes have, or were told.

    A node that is not connected is not led through if there is another way: nobody knows
    whether it is there. Without it everything else stays as it is, so most nodes hear nothing.

    Args:
        links: the fidelity of each link, by the node ids of its ends.
    """

    def __init__(self, links: Mapping[tuple[int, int], float]) -> None:
        self._links = links
        self._nodes = frozenset(node for link in links for node in link)
        self._told: dict[int, InstallRoutes] = {}

    def forget(self, node: int) -> None:
        """A node is not connected any more, or says that it could not use its routes."""
        self._told.pop(node, None)

    def changes(self, connected: Collection[int]) -> list[tuple[int, InstallRoutes]]:
        """Connected nodes, each with the routes it has to be told now.

        Args:
            connected: ids of all nodes that are.
        """
        routes = make_routes(self._links, avoid=self._nodes - set(connected))
        changed = []
        for node in sorted(self._nodes & set(connected)):
            message = InstallRoutes(
                tuple(
                    (destination, route.next_hop, route.hops, route.fidelity)
                    for destination, route in sorted(routes[node].items())
                )
            )
            if self._told.get(node) != message:
                self._told[node] = message
                changed.append((node, message))
        return changed
