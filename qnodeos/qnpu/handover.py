"""Handing pairs to whom they were made for: a program at this node, or the network layer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from qnodeos.errors import CallerError, DeviceFailureError, QNodeOSError
from qnodeos.qdevice.instructions import Axis
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.attempt_basis import AttemptBasis
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.er_sockets import ErSocket, Pair
from qnodeos.qnpu.link_layer import LinkLayer
from qnodeos.qnpu.link_queue import LinkRequest
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.requests import can_be_phi_plus
from qnodeos.qnpu.time_bins import TimeBins


@dataclass(slots=True)
class Herald:
    """A pair this node has seen heralded, as receiver."""

    request: LinkRequest
    socket: ErSocket | None
    index: int
    bell_state: BellState
    tick: int
    physical: int | None
    outcome: int | None
    sequence: int = 0
    announced_tick: int = 0


class Handover:
    """Hands over pairs, and says why there will be none.

    Args:
        entanglement: of the programs here.
        link_layer: told of pairs and segments.
        basis: in which the last attempt has measured.
        bins: the time bins.
        fault: ends what a program does, because of an error.

    Attributes:
        pairs: handed over so far, by peer.
    """

    __slots__ = ("_basis", "_bins", "_entanglement", "_fault", "_link_layer", "pairs")

    def __init__(
        self,
        entanglement: EntanglementManager,
        link_layer: LinkLayer,
        basis: AttemptBasis,
        bins: TimeBins,
        fault: Callable[[UserProcess, QNodeOSError], None],
    ) -> None:
        self.pairs: Counter[int] = Counter()
        self._entanglement = entanglement
        self._link_layer = link_layer
        self._basis = basis
        self._bins = bins
        self._fault = fault

    def to_creator(
        self,
        request: LinkRequest,
        physical: int,
        measured: int | None,
        bell_state: BellState,
        tick: int,
    ) -> None:
        """Announce a pair of a request of this node, and hand it over.

        Args:
            request: the request.
            physical: our half.
            measured: its outcome, None if it is kept.
            bell_state: that was heralded.
            tick: when.
        """
        sequence = self._link_layer.announce(request, bell_state, tick)
        if request.user is None:  # a segment: its pairs are kept
            self._link_layer.segment_made(request, physical, tick)
            return
        kept = physical if measured is None else None
        pair = self._pair(request, sequence, kept, measured, bell_state, tick)
        try:
            self._entanglement.deliver_to_creator(request.user, pair)
            self.pairs[request.peer] += 1
        except CallerError as error:
            self._fault(request.user.socket.process, error)

    def is_wanted(self, herald: Herald) -> bool:
        """Whether there still is somebody to take a pair that the peer has asked for."""
        request = herald.request
        if request.segment is not None:
            return not request.cancelled
        socket = self._entanglement.socket(request.peer, request.terms.remote_socket_id)
        return socket is not None and socket is herald.socket

    def to_receiver(self, herald: Herald) -> None:
        """Hand over a pair that the peer has asked for, and that is wanted."""
        request = herald.request
        if request.segment is not None:
            assert herald.physical is not None
            self._link_layer.segment_made(request, herald.physical, herald.tick)
            return
        assert herald.socket is not None
        pair = self._pair(
            request,
            herald.sequence,
            herald.physical,
            herald.outcome,
            herald.bell_state,
            herald.announced_tick,
        )
        try:
            self._entanglement.deliver_to_receiver(herald.socket, pair)
            self.pairs[request.peer] += 1
        except CallerError as error:
            self._fault(herald.socket.process, error)

    def attempt_failed(self, request: LinkRequest, reason: str) -> None:
        """The device cannot make the pairs of a request."""
        if request.segment is not None:
            if not request.cancelled:
                self._link_layer.segment_lost(request, reason)
        elif request.user is not None:
            self._fault(request.user.socket.process, DeviceFailureError(reason))

    def correction_failed(self, herald: Herald, reason: str) -> None:
        """A pair that was made is of no use."""
        if herald.request.segment is not None:
            self._link_layer.segment_lost(herald.request, reason)
        elif herald.socket is not None:
            self._fault(herald.socket.process, DeviceFailureError(reason))

    def _pair(
        self,
        request: LinkRequest,
        sequence: int,
        kept: int | None,
        measured: int | None,
        bell_state: BellState,
        tick: int,
    ) -> Pair:
        terms = request.terms
        is_phi_plus = not terms.kind.receiver_measures or can_be_phi_plus(
            tuple((Axis(axis), steps) for axis, steps in terms.remote_rotations),
            terms.remote_random_basis,
        )
        schedule = self._bins.schedule
        assert schedule is not None
        return Pair(
            request.create_id,
            sequence,
            kept,
            measured,
            self._basis.code,
            bell_state,
            tick,
            is_phi_plus,
            schedule.begins(request.start_bin),
        )
