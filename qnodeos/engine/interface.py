"""What a tick engine offers to the one thread that decides, and what it counts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

from qnodeos.engine.histogram import Histogram
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome

Mode = Literal["spinning", "event-paced"]
LinkName = Literal["loopback", "shm", "spidev"]

BUSY_LIMIT_NS: Final = 10_000_000_000
"""How long a device may be busy with one instruction: 10 s (assumed)."""
SHARED_SILENCE_NS: Final = 500_000_000
"""How long a device that shares our cores may be silent: 0.5 s (assumed).

It may have to wait for a core. For a device on a wire of its own, which clocks every frame,
`SILENCE_LIMIT_FRAMES` holds instead.
"""
STALL_NS: Final = 1_000_000
"""An exchange that is later than this is a stall: 1 ms (assumed)."""
SKIP_EVENTS: Final = 1024
"""How many skips an engine keeps until they are read; more are counted only."""


class EngineEvent(NamedTuple):
    """What the device answered to the outstanding instruction.

    Attributes:
        tick: device tick of the frame that brought it. An event-paced engine takes it later than
            that, by what its lateness says.
        outcome: HARDWARE_FAILURE also if the engine gave the instruction up.
        herald: Bell state heralded, for an ENM.
        command_tick: device tick of the frame that first carried the instruction; ``tick`` if the
            engine gave it up before any did.
    """

    tick: int
    outcome: Outcome
    herald: BellState | None
    command_tick: int


class SkippedSlots(NamedTuple):
    """Ticks at which an exchange was due and none took place.

    Spinning, these slots are lost: no frame went out in them. Event-paced, no frame was due in
    them that said something new but the one that was taken late, so they say for how long it
    waited.

    Attributes:
        tick: the tick at which the exchange that was late should have been.
        slots: how many ticks it was late.
    """

    tick: int
    slots: int


@dataclass(frozen=True)
class EngineStatistics:
    """What an engine has counted since it was opened.

    Attributes:
        mode: how frames are paced.
        link: what they travel on.
        is_native: whether the C extension does it.
        tick_ns: length of a tick.
        priority: SCHED_FIFO priority of the tick thread; 0 without one.
        core: the tick thread is pinned to; None if it is not, or if there is none.
        ticks: exchanges of frames done. Event-paced: those that could say something new.
        skipped: ticks at which an exchange was due and none could be done (`SkippedSlots`).
        skips_unread: skips that were counted and not kept, because nobody read them: there are
            more than `SKIP_EVENTS` of them between two `take_skips`.
        stalls: exchanges later than `STALL_NS`.
        lateness_ns: of the exchanges, behind the begin of their tick.
        reaction_ticks: from the tick at which the device had an outcome (the one before the
            frame that brought it) to the tick of the frame with the next instruction; at
            least 2.
        instructions: handed over.
        events: given back.
        given_up: instructions answered HARDWARE_FAILURE by the engine: the device was silent,
            had restarted, was gone, or was busy for too long.
        busy_timeouts: those among them whose device was busy for too long.
        corrupted_frames: damaged frames received.
        device_restarts: how often the device said it had restarted, or came back after it
            was gone.
        ring_overflows: events or commands for which a ring had no room (none is lost: they wait).
        link_errors: exchanges that the link refused.
        device_attached: whether there is a device at the other end, as far as the link can tell.
        warnings: what keeps this engine from what it could do, each a sentence.
    """

    mode: Mode
    link: LinkName
    is_native: bool
    tick_ns: int
    priority: int = 0
    core: int | None = None
    ticks: int = 0
    skipped: int = 0
    skips_unread: int = 0
    stalls: int = 0
    lateness_ns: Histogram = field(default_factory=Histogram)
    reaction_ticks: Histogram = field(default_factory=Histogram)
    instructions: int = 0
    events: int = 0
    given_up: int = 0
    busy_timeouts: int = 0
    corrupted_frames: int = 0
    device_restarts: int = 0
    ring_overflows: int = 0
    link_errors: int = 0
    device_attached: bool = True
    warnings: tuple[str, ...] = ()


class TickEngine(Protocol):
    """Exchanges one frame each way per device tick. All methods belong to one thread."""

    @property
    def is_native(self) -> bool:
        """Whether the C extension does the work, and not the pure-Python fallback."""
        ...

    @property
    def mode(self) -> Mode:
        """Whether a thread exchanges every tick, or `poll` what there is to exchange."""
        ...

    @property
    def link(self) -> LinkName:
        """What the frames travel on."""
        ...

    @property
    def tick_ns(self) -> int:
        """Length of a device tick."""
        ...

    @property
    def capabilities(self) -> Capabilities | None:
        """What the device says it can do; None if this link cannot ask it."""
        ...

    @property
    def idle(self) -> bool:
        """Whether no instruction is outstanding, so that `submit` may be called."""
        ...

    def start(self) -> None:
        """Begin to exchange frames; once started, more than once does nothing.

        Raises:
            DeviceError: the link or the thread cannot be started.
        """
        ...

    def stop(self) -> None:
        """Stop exchanging frames; `start` begins anew, with a new session."""
        ...

    def close(self) -> None:
        """Stop, and give everything back; more than once does no harm."""
        ...

    def now_tick(self) -> int:
        """The device tick now; never decreases."""
        ...

    def submit(self, instruction: PhysicalInstruction) -> None:
        """Hand over the next instruction; it goes out with the next frame.

        Raises:
            FrameError: one is outstanding (its event has not been taken from `poll`), or it
                is a NOP, or the engine is not started.
        """
        ...

    def poll(self) -> EngineEvent | None:
        """The next event if there is one; also clears what made `filenos` readable."""
        ...

    def filenos(self) -> tuple[int, ...]:
        """Descriptors, always the same, readable when `poll` may have something to do."""
        ...

    def wake_at(self, tick: int | None) -> None:
        """Make `filenos` readable at this tick, once; replaces an earlier wish.

        The first `poll` at or after that tick takes it back. In spinning mode only after
        `filenos` has been called.

        Args:
            tick: device tick; None for never.
        """
        ...

    def tick_reading(self) -> tuple[int, int]:
        """(device tick, CLOCK_MONOTONIC in ns), read together."""
        ...

    def take_skips(self) -> list[SkippedSlots]:
        """The skips since the last call, oldest first; at most `SKIP_EVENTS` are kept."""
        ...

    def statistics(self) -> EngineStatistics:
        """What has been counted so far; takes some 100 us, so not between two ticks."""
        ...
