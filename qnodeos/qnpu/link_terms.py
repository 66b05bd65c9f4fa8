"""The terms of requests between nodes: how they are made, and whether they make sense."""

from __future__ import annotations

from typing import Final

from qnodeos.api.peer import CircuitTerms, EntanglementType, RequestTerms, Segment
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import ANGLE_STEPS, Axis
from qnodeos.qnpu.er_sockets import ErSocket
from qnodeos.qnpu.requests import RANDOM_BASES, ROTATIONS, CreateArguments, are_weights

NO_SOCKET: Final = -1
"""Number of the ER sockets of a request that is for a segment of a circuit."""


def terms_of(socket: ErSocket, arguments: CreateArguments, start_bin: int) -> RequestTerms:
    """What the neighbour has to know of a create request of ours."""
    return RequestTerms(
        socket_id=socket.socket_id,
        remote_socket_id=socket.remote_socket_id,
        kind=arguments.kind,
        pairs=arguments.pairs,
        remote_rotations=tuple((int(axis), n) for axis, n in arguments.remote_rotations),
        remote_random_basis=arguments.remote_random_basis,
        start_bin=start_bin,
        priority=arguments.priority,
        remote_weights=arguments.remote_weights,
        atomic=arguments.atomic,
        consecutive=arguments.consecutive,
    )


def segment_terms(segment: Segment, start_bin: int, priority: int) -> RequestTerms:
    """What the neighbour has to know of a request of ours for a segment: one pair, kept."""
    return RequestTerms(
        socket_id=NO_SOCKET,
        remote_socket_id=NO_SOCKET,
        kind=EntanglementType.KEEP,
        pairs=1,
        remote_rotations=(),
        remote_random_basis=0,
        start_bin=start_bin,
        priority=priority,
        segment=segment,
    )


def are_valid(terms: RequestTerms | CircuitTerms, limits: Limits) -> bool:
    """Whether a request can be served, whoever wrote its terms."""
    if isinstance(terms, RequestTerms) and terms.segment is not None:
        only = segment_terms(terms.segment, terms.start_bin, terms.priority)
        return terms == only and 0 <= terms.priority <= limits.highest_priority
    return (
        1 <= terms.pairs <= limits.pairs_per_request
        and 0 <= terms.remote_random_basis < len(RANDOM_BASES)
        and are_weights(terms.remote_random_basis, terms.remote_weights)
        and 0 <= terms.priority <= limits.highest_priority
        and len(terms.remote_rotations) <= ROTATIONS
        and all(
            axis in list(Axis) and 0 <= steps < ANGLE_STEPS
            for axis, steps in terms.remote_rotations
        )
    )
