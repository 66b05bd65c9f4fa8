"""The ER sockets at the other end of a link, and which of ours each was the partner of.

A number of an ER socket is used again by the next program. So it is not enough to hear that
socket 0 has closed: that may be said of an earlier program, which was slow to end, while the
next one here waits for its successor. An end is the partner of the first socket of ours that
was open together with it, and of no later one.

    SocketOpened    the end is there; if our socket is open, they are partners
    our socket opens             they are partners, if the end has had none
    our socket closes            the end is spent
    SocketClosed    the end is gone: it matters to its partner only

When the connection to the neighbour is back, both say again what is open, and what has closed
meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass

from qnodeos.qnpu.er_sockets import ErSocket


@dataclass(eq=False, slots=True)
class _End:
    """An open ER socket of the neighbour.

    Attributes:
        connects_to: number of the socket here that it names.
        partner: ours that was open together with it; may have closed since.
    """

    connects_to: int
    partner: ErSocket | None = None


class Partners:
    """See the module's docstring.

    Args:
        most: ends known at once; the oldest is forgotten beyond it, and its end not noticed.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._ends: dict[int, _End] = {}

    def end_opened(self, socket_id: int, connects_to: int, ours: ErSocket | None) -> None:
        """The neighbour has opened a socket, or says again that it is open.

        Args:
            socket_id: the neighbour's number of it.
            connects_to: number of the socket here that it names.
            ours: that socket, if it is open.
        """
        end = self._ends.get(socket_id)
        if end is None or end.connects_to != connects_to:
            self._ends.pop(socket_id, None)
            if len(self._ends) >= self._most:
                del self._ends[next(iter(self._ends))]
            self._ends[socket_id] = _End(connects_to)
        if ours is not None:
            self.opened(ours)

    def opened(self, ours: ErSocket) -> None:
        """A socket of ours is open."""
        end = self._ends.get(ours.remote_socket_id)
        if end is not None and end.connects_to == ours.socket_id and end.partner is None:
            end.partner = ours

    def end_closed(self, socket_id: int) -> ErSocket | None:
        """The neighbour has closed a socket; returns its partner, which may have closed, too."""
        end = self._ends.pop(socket_id, None)
        return None if end is None else end.partner
