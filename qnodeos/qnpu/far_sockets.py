"""News between the ends of ER sockets that are no neighbours, when there is no circuit.

They open and they close; and the pairs of a circuit that is done may not be received.

Without them a program that waits to receive, while the program at the other end has ended
without creating anything, would wait for ever. Neighbours tell each other directly
(`qnodeos.qnpu.partners`); here each node on the route passes the news on. News that cannot be
passed on are dropped, as nothing but the end of such a wait depends on them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Final

from qnodeos.api.peer import MAX_PATH, FarMessage, FarRefusal, FarSocket
from qnodeos.errors import EntanglementRequestError
from qnodeos.qnpu.circuit_table import CircuitTable, Surroundings, short
from qnodeos.qnpu.er_sockets import ErSocket, UserRequest
from qnodeos.qnpu.partners import Partners
from qnodeos.qnpu.routes import Route

_MAX_WAITING: Final = 256
"""News that wait for a route or a connection; the oldest are dropped beyond it."""
_REMEMBERED: Final = 64
"""Requests that are done, whose pairs may still be refused."""


class FarSockets:
    """See the module's docstring.

    Args:
        around: what the kernel gives.
        table: sends messages.
        routes: by destination, as they are now.
    """

    def __init__(
        self,
        around: Surroundings,
        table: CircuitTable,
        routes: Callable[[], Mapping[int, Route]],
    ) -> None:
        self._around = around
        self._table = table
        self._routes = routes
        self._partners: dict[int, Partners] = {}
        self._waiting: deque[FarMessage] = deque(maxlen=_MAX_WAITING)
        self._done: deque[UserRequest] = deque(maxlen=_REMEMBERED)

    # --- our sockets ------------------------------------------------------------------

    def opened(self, socket: ErSocket) -> None:
        """A socket of ours is open."""
        if self._is_far(socket):
            self._tell(socket, is_open=True)
            if socket.remote_node in self._partners:
                self._partners[socket.remote_node].opened(socket)

    def closed(self, sockets: Iterable[ErSocket]) -> None:
        """Sockets of ours are closed."""
        for socket in sockets:
            if self._is_far(socket):
                self._tell(socket, is_open=False)
                for promise in socket.promises.values():
                    promise.refuse(
                        "the program there has ended and received "
                        f"{promise.delivered} of {promise.pairs} pairs"
                    )

    def _is_far(self, socket: ErSocket) -> bool:
        return socket.remote_node not in self._around.link_layer.links

    def _tell(self, socket: ErSocket, *, is_open: bool) -> None:
        news = FarSocket(
            socket.remote_node,
            (self._around.node_id,),
            socket.socket_id,
            socket.remote_socket_id,
            is_open,
        )
        opening = replace(news, is_open=True)
        if not is_open and opening in self._waiting:
            self._waiting.remove(opening)  # nobody there has heard of it, so nobody waits for it
            return
        self._send(news)

    def _send(self, news: FarMessage) -> None:
        is_behind = any(each.destination == news.destination for each in self._waiting)
        if is_behind or not self._pass_on(news):
            self._waiting.append(news)

    # --- pairs ------------------------------------------------------------------------

    def done(self, user: UserRequest) -> None:
        """At the head: a request is done."""
        self._done.append(user)

    def refuse(self, head: int, create_id: int, reason: str) -> None:
        """At the tail: the pairs of a request that is done are not wanted."""
        self._send(FarRefusal(head, (self._around.node_id,), create_id, short(reason)))

    # --- passing on -------------------------------------------------------------------

    def try_again(self) -> None:
        """Something has changed: pass on our own news that had to wait."""
        for _ in range(len(self._waiting)):
            news = self._waiting.popleft()
            if not self._pass_on(news):
                self._waiting.append(news)

    def _pass_on(self, news: FarMessage) -> bool:
        route = self._routes().get(news.destination)
        if route is None or not self._table.is_up(route.next_hop):
            return False
        self._around.send(route.next_hop, news)
        return True

    # --- those of others --------------------------------------------------------------

    def receive(self, news: FarMessage) -> None:
        """News have come, for us or to be passed on."""
        me, path = self._around.node_id, news.path
        if news.destination != me:
            if me not in path and len(path) < MAX_PATH:
                self._pass_on(replace(news, path=(*path, me)))
        elif isinstance(news, FarRefusal):
            self._on_refusal(path[0], news)
        else:
            self._on_socket(path[0], news)

    def _on_socket(self, source: int, news: FarSocket) -> None:
        partners = self._partners.get(source)
        if partners is None:
            if not news.is_open or len(self._partners) >= self._around.limits.circuits:
                return
            limits = self._around.limits
            partners = Partners(limits.processes * limits.er_sockets)
            self._partners[source] = partners
        if news.is_open:
            ours = self._around.entanglement.socket(source, news.remote_socket_id)
            partners.end_opened(news.socket_id, news.remote_socket_id, ours)
            return
        socket = partners.end_closed(news.socket_id)
        if socket is not None:
            self._around.link_layer.other_end_closed(socket)

    def _on_refusal(self, source: int, news: FarRefusal) -> None:
        for user in self._done:
            if (user.create_id, user.socket.remote_node) == (news.create_id, source):
                self._around.fault(
                    user.socket.process,
                    EntanglementRequestError(
                        f"node {source} does not want the pairs of request {news.create_id}: "
                        f"{news.reason}"
                    ),
                )
                return
