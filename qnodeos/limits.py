"""Every bound of the operating system, in one place.

Nothing in the kernel grows without one of these; the error that reports a reached bound
names the field, so that a deployment knows which number to change.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of one QNPU.

    Attributes:
        processes: user processes alive at once.
        programs_per_client: programs of one connection registered at once, and reasons why
            its programs ended that are remembered.
        highest_priority: programs may ask for priorities from 0 to this; 0 makes all equal.
        subroutine_bytes: size of one subroutine as sent.
        pending_subroutines: subroutines queued in one process.
        pending_bytes: size of all of them together.
        compiled_subroutines: compiled subroutines kept per process for re-use.
        compiled_bytes: size, as sent, of all of them together; a compiled one takes up to
            two hundred times as much.
        instructions_per_activation: instructions between two waits or the end.
        instructions_per_tick: instructions run, or compiled, before the kernel takes the next
            tick (a subroutine is compiled as a whole). In real time they should fit in one
            (100 instructions take about 10 us to run).
        activation_ticks: how long one activation may hold the QNPU, device time included
            (1 s at 10 us per tick).
        qubit_ticks: how long a program may keep a qubit that is wanted, by another program or
            for entanglement; 0 for as long as it likes.
        array_length: entries of one array.
        array_entries: entries of all arrays of one process; the arrays created first are
            evicted beyond it, because the SDK never re-uses an array address.
        er_sockets: open ER sockets of one process.
        entanglement_requests: outstanding create requests of one process, and requests
            accepted from one peer.
        receive_requests: outstanding receive requests of one ER socket.
        pairs_per_request: pairs one request may ask for.
        unclaimed_pairs: pairs an ER socket keeps for receive requests still to come.
        result_entries: registers and array entries one subroutine may return in all.
        offer_timeout_ticks: how long a create request waits for the peer to open the ER
            socket it names, and a pair for somebody who receives it (10 s at 10 us per tick).
        lone_attempt_ticks: how long a node attempts entanglement in a time bin without its
            peer, before it leaves the rest of the bin to programs (3 ms at 10 us: more than
            one subroutine of the published experiments takes at a peer).
        announcement_timeout_ticks: how long a heralded qubit waits for the creator's
            announcement before it is given up (100 ms at 10 us).
        circuits: requests between nodes that are no neighbours a node takes part in at once,
            as an end or on the way.
        circuit_attempts: attempts at one pair of such a request before it fails.
        circuit_turn_ticks: how long a node on the way serves an attempt before others have
            their turn (10 s at 10 us, assumed: twenty times the mean time of a published pair).
        circuit_retry_ticks: time until a request that found a connection missing, or a node
            full, is forwarded again (100 ms at 10 us, assumed).
        pair_cutoff_ticks: how long one half waits for the other, or for word from it, before
            the attempt is given up (10 s at 10 us, assumed: set it to what the memories
            allow); 0 for as long as it takes.
    """

    processes: int = 64
    programs_per_client: int = 16
    highest_priority: int = 100
    subroutine_bytes: int = 64 * 1024
    pending_subroutines: int = 64
    pending_bytes: int = 1024 * 1024
    compiled_subroutines: int = 64
    compiled_bytes: int = 256 * 1024
    instructions_per_activation: int = 1_000_000
    instructions_per_tick: int = 10_000
    activation_ticks: int = 100_000
    qubit_ticks: int = 0
    array_length: int = 65_536
    array_entries: int = 262_144
    er_sockets: int = 32
    entanglement_requests: int = 64
    receive_requests: int = 64
    pairs_per_request: int = 1_024
    unclaimed_pairs: int = 1_024
    result_entries: int = 262_144
    offer_timeout_ticks: int = 1_000_000
    lone_attempt_ticks: int = 300
    announcement_timeout_ticks: int = 10_000
    circuits: int = 256
    circuit_attempts: int = 100
    circuit_turn_ticks: int = 1_000_000
    circuit_retry_ticks: int = 10_000
    pair_cutoff_ticks: int = 1_000_000
