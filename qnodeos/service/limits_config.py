"""The bounds of a node's QNPU service, and of the kernel in it, as its node file gives them."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from qnodeos.limits import Limits


class LimitsConfig(BaseModel):
    """Bounds of the service (all assumed); what reaches one is refused and counted."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    connections: Annotated[int, Field(ge=1, le=10_000)] = Field(
        64, description="connections of programs at once"
    )
    reserved_connections: Annotated[int, Field(ge=0, le=1_000)] = Field(
        4,
        description="further connections, only for operators (the user that runs the service, or "
        "root, on a Unix socket), so that qnodeos ps and top get in when all others are taken",
    )
    connections_per_user: Annotated[int, Field(ge=1, le=10_000)] = Field(
        32,
        description="connections of one user on the Unix sockets, operators excepted; TCP does "
        "not tell the user",
    )
    handshakes: Annotated[int, Field(ge=1, le=10_000)] = Field(
        64,
        description="further connections that may be in their handshake; the oldest of them makes "
        "room",
    )
    handshake_ms: Annotated[int, Field(ge=10, le=600_000)] = Field(
        5_000, description="time a connection has for its handshake"
    )
    idle_ms: Annotated[int, Field(ge=100, le=86_400_000)] = Field(
        300_000, description="silence, with no request open, after which a connection is closed"
    )
    programs_per_client: Annotated[int, Field(ge=1, le=4_096)] = Field(
        8, description="programs of one connection at once"
    )
    requests_per_client: Annotated[int, Field(ge=1, le=65_536)] = Field(
        64, description="requests of one connection that wait for their reply"
    )
    outbound_bytes: Annotated[int, Field(ge=65_536, le=1 << 30)] = Field(
        8 << 20,
        description="replies waiting for one connection; a reader slower than that is disconnected",
    )
    events: Annotated[int, Field(ge=16, le=1_000_000)] = Field(
        8_192, description="trace events waiting for one subscriber; more are dropped and counted"
    )
    messages_per_turn: Annotated[int, Field(ge=1, le=1_024)] = Field(
        4, description="messages taken from one connection before the others have their turn"
    )
    highest_priority: Annotated[int, Field(ge=0, le=1_000)] = Field(
        100,
        description="programs of operators (the user that runs the service, or root, on a "
        "Unix socket) may ask for priorities from 0 to this",
    )
    client_priority: Annotated[int, Field(ge=0, le=1_000)] = Field(
        0,
        description="the same for all other programs; more than 0 lets one of them keep those of "
        "lower priority waiting for ever",
    )
    processes: Annotated[int, Field(ge=1, le=65_536)] = Field(
        64, description="user processes of all programs"
    )
    processes_per_user: Annotated[int, Field(ge=1, le=65_536)] = Field(
        32,
        description="those of one user on the Unix sockets, operators excepted, and of all "
        "programs on TCP together",
    )
    subroutine_bytes: Annotated[int, Field(ge=64, le=4 << 20)] = Field(
        16 * 1024,
        description="size of one subroutine; compiling one of 16 KiB holds everything else up for "
        "some 30 ms",
    )
    pending_subroutines: Annotated[int, Field(ge=1, le=65_536)] = Field(
        64, description="subroutines waiting in one process"
    )
    instructions_per_activation: Annotated[int, Field(ge=1, le=100_000_000)] = Field(
        100_000,
        description="instructions of a subroutine between two waits; one that runs more is taken "
        "for an endless loop",
    )
    activation_ms: Annotated[int, Field(ge=1, le=3_600_000)] = Field(
        1_000,
        description="time a subroutine may hold the QNPU between two waits, that of the device "
        "included",
    )
    qubit_ms: Annotated[int, Field(ge=0, le=3_600_000)] = Field(
        10_000,
        description="time a program may keep a qubit that another program, or an entanglement "
        "request, waits for; 0: as long as it likes",
    )
    instructions_per_tick: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        200,
        description="instructions of a subroutine before the service looks after everything else "
        "(200 take about 20 us)",
    )

    array_length: Annotated[int, Field(ge=1, le=65_536)] = Field(
        16_384, description="entries of one array of a program"
    )
    array_entries: Annotated[int, Field(ge=1, le=262_144)] = Field(
        65_536, description="entries of all arrays of one process; the oldest are dropped beyond"
    )
    result_entries: Annotated[int, Field(ge=1, le=262_144)] = Field(
        65_536, description="registers and array entries one subroutine may return"
    )

    offer_ms: Annotated[int, Field(ge=1, le=86_400_000)] = Field(
        60_000,
        description="time a request for entanglement waits until the program at the other node "
        "opens its ER socket, then it fails",
    )
    circuits: Annotated[int, Field(ge=1, le=65_536)] = Field(
        256,
        description="requests between nodes that are no neighbours this node takes part in at once",
    )
    circuit_attempts: Annotated[int, Field(ge=1, le=1_000_000)] = Field(
        100, description="attempts at one pair of such a request before it fails"
    )
    circuit_turn_ms: Annotated[int, Field(ge=1, le=3_600_000)] = Field(
        10_000,
        description="time a node on the way serves an attempt before others have their turn",
    )
    pair_cutoff_ms: Annotated[int, Field(ge=0, le=3_600_000)] = Field(
        10_000,
        description="time one half of a pair waits for the other before the attempt is given up: "
        "what the memories allow; 0: as long as it takes",
    )

    def kernel(self, tick_ns: int) -> Limits:
        """The bounds of the kernel, for a tick of some length."""
        return Limits(
            processes=self.processes,
            programs_per_client=self.programs_per_client,
            highest_priority=self.highest_priority,
            subroutine_bytes=self.subroutine_bytes,
            pending_subroutines=self.pending_subroutines,
            instructions_per_activation=self.instructions_per_activation,
            instructions_per_tick=self.instructions_per_tick,
            array_length=self.array_length,
            array_entries=self.array_entries,
            result_entries=self.result_entries,
            activation_ticks=max(1, self.activation_ms * 1_000_000 // tick_ns),
            qubit_ticks=self.qubit_ms * 1_000_000 // tick_ns,
            offer_timeout_ticks=max(1, self.offer_ms * 1_000_000 // tick_ns),
            circuits=self.circuits,
            circuit_attempts=self.circuit_attempts,
            circuit_turn_ticks=max(1, self.circuit_turn_ms * 1_000_000 // tick_ns),
            pair_cutoff_ticks=self.pair_cutoff_ms * 1_000_000 // tick_ns,
        )
