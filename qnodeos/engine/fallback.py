"""The tick engine in pure Python: event-paced only, for machines without a compiler.

No thread paces frames: `poll` exchanges what says something new, and the clock says at which
tick it would have been on the wire. See docs/decisions/0013-tick-engine.md.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import Final

from qnodeos.engine.histogram import HistogramCounter
from qnodeos.engine.interface import (
    SHARED_SILENCE_NS,
    SKIP_EVENTS,
    STALL_NS,
    EngineEvent,
    EngineStatistics,
    LinkName,
    Mode,
    SkippedSlots,
)
from qnodeos.engine.links import LoopbackLink, ShmLink
from qnodeos.engine.schedule import frame_at
from qnodeos.engine.timer import Timer
from qnodeos.engine.wires import LoopbackWire, ShmWire, Wire
from qnodeos.errors import DeviceError, FrameError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.endpoint import FrameMaster, Response
from qnodeos.qdevice.frames import MAX_SESSION
from qnodeos.qdevice.instructions import PhysicalInstruction

MAINTENANCE_NS: Final = 100_000_000
"""Between two looks whether the device is still there (assumed)."""


class PythonEngine:
    """See `qnodeos.engine.interface.TickEngine`.

    Args:
        link: what to talk to.
        silence_limit_ticks: ticks without a sign of life before an instruction is given up.
        busy_limit_ticks: ticks before an instruction is given up although its device is busy.
        warnings: for the statistics.
        clock: CLOCK_MONOTONIC in ns, or what takes its place in a test.

    Raises:
        ChannelError: the channel cannot be used.
    """

    is_native: Final = False
    mode: Final[Mode] = "event-paced"

    def __init__(
        self,
        link: LoopbackLink | ShmLink,
        *,
        silence_limit_ticks: int | None = None,
        busy_limit_ticks: int,
        warnings: tuple[str, ...] = (),
        clock: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wire: Wire = ShmWire(link.path) if isinstance(link, ShmLink) else LoopbackWire(link)
        self.link: LinkName = "shm" if isinstance(link, ShmLink) else "loopback"
        try:
            self._timer = Timer()
        except BaseException:
            self._wire.close()
            raise
        self.tick_ns = self._wire.tick_ns
        self._silence_limit = silence_limit_ticks or SHARED_SILENCE_NS // self.tick_ns
        self._busy_limit = busy_limit_ticks
        self._warnings = warnings
        self._clock = clock
        self._session = self._wire.session
        self._master = FrameMaster(self._session, silence_limit=self._silence_limit)
        self._running = False
        self._closed = False
        self._events: deque[EngineEvent] = deque()
        self._skips: deque[SkippedSlots] = deque()
        self._lateness = HistogramCounter()
        self._reaction = HistogramCounter()
        self._latest_tick = -(1 << 62)
        self._maintenance_ns = 0
        self._wake_tick: int | None = None
        self._outstanding = False
        self._ticks = self._skipped = self._skips_unread = self._stalls = 0
        self._instructions = self._answered = self._given_up = self._busy_timeouts = 0
        self._returns = self._overflows = 0
        self._corrupted = self._restarts = 0
        self._forget()

    @property
    def capabilities(self) -> Capabilities | None:
        """See `TickEngine`."""
        return self._wire.capabilities

    @property
    def idle(self) -> bool:
        """See `TickEngine`."""
        return not self._outstanding

    # --- life -------------------------------------------------------------------------

    def start(self) -> None:
        """See `TickEngine`."""
        if self._closed:
            raise DeviceError("the engine has been closed; open another")
        if self._running:
            return
        now_ns = self._clock()
        self._wire.start(now_ns)
        self._exchanged = self._wire.tick_at(now_ns)
        self._maintenance_ns = now_ns + MAINTENANCE_NS
        self._running = True
        self._work(now_ns)

    def stop(self) -> None:
        """See `TickEngine`."""
        if not self._running:
            return
        self._running = False
        self._timer.set(None)
        self._events.clear()
        self._outstanding = False
        self._corrupted += self._master.corrupted_frames
        self._restarts += self._master.device_restarts
        self._session = self._session + 1 & MAX_SESSION
        self._master = FrameMaster(self._session, silence_limit=self._silence_limit)
        self._forget()

    def close(self) -> None:
        """See `TickEngine`."""
        if self._closed:
            return
        self.stop()
        self._closed = True
        self._timer.close()
        self._wire.close()

    def _forget(self) -> None:
        """The wire is new, or will be."""
        self._current: tuple[int, int] | None = None
        self._sent_frame: int | None = None
        self._deadline_tick: int | None = None
        self._event_tick: int | None = None
        self._command_tick: int | None = None
        self._to_send = False
        self._refused = False

    # --- time -------------------------------------------------------------------------

    def now_tick(self) -> int:
        """See `TickEngine`."""
        return self._advance_clock(self._clock())

    def tick_reading(self) -> tuple[int, int]:
        """See `TickEngine`."""
        now_ns = self._clock()
        return self._advance_clock(now_ns), now_ns

    def _advance_clock(self, now_ns: int) -> int:
        tick = self._wire.tick_at(now_ns)
        self._latest_tick = max(self._latest_tick, tick)
        return self._latest_tick

    def wake_at(self, tick: int | None) -> None:
        """See `TickEngine`."""
        self._wake_tick = tick
        if self._running:
            self._set_timer()

    def filenos(self) -> tuple[int, ...]:
        """See `TickEngine`."""
        return (*self._wire.filenos(), self._timer.fileno())

    # --- frames -----------------------------------------------------------------------

    def submit(self, instruction: PhysicalInstruction) -> None:
        """See `TickEngine`."""
        if not self._running:
            raise FrameError("the engine is not started; start it before the first instruction")
        if self._outstanding:
            raise FrameError(
                f"{instruction.opcode.name} submitted while another instruction is "
                "outstanding; wait for its event"
            )
        now_ns = self._clock()
        self._exchange_due(self._wire.tick_at(now_ns), now_ns)
        self._master.submit(instruction)
        self._outstanding = self._to_send = True
        self._command_tick = None
        self._instructions += 1
        self._deadline_tick = self._exchanged + self._busy_limit
        self._work(now_ns)

    def poll(self) -> EngineEvent | None:
        """See `TickEngine`."""
        if not self._running:
            return None
        self._wire.acknowledge()
        now_ns = self._clock()
        if self._wake_tick is not None and self._wire.tick_at(now_ns) >= self._wake_tick:
            self._wake_tick = None
        if not self._events:
            self._work(now_ns)
        if not self._events:
            return None
        self._outstanding = False
        event = self._events.popleft()
        self._set_timer()
        return event

    def _work(self, now_ns: int) -> None:
        """Everything that has come due: the device, its frames, ours, and when next."""
        if now_ns >= self._maintenance_ns:
            self._maintenance_ns = now_ns + MAINTENANCE_NS
            self._maintain(now_ns)
        tick = self._wire.tick_at(now_ns)
        self._exchange_due(tick, now_ns)
        if self._deadline_tick is not None and tick >= self._deadline_tick:
            self._busy_timeouts += 1
            self._deliver(self._master.give_up(), tick)
        if not self._wire.attached:
            self._give_up(tick)
        else:
            self._send_news(tick + 1)
        self._set_timer()

    def _maintain(self, now_ns: int) -> None:
        was_attached = self._wire.attached
        self._wire.maintain(now_ns)
        if was_attached and not self._wire.attached:
            self._current = self._sent_frame = None
            self._deliver(self._master.give_up(), self._wire.tick_at(now_ns))
        elif self._wire.attached and not was_attached:
            self._returns += 1
            self._current = self._sent_frame = None
            self._exchanged = self._wire.tick_at(now_ns)

    def _exchange_due(self, tick: int, now_ns: int) -> None:
        """Take the responses that have come to hold, and the ticks in between."""
        self._wire.receive()
        schedule = self._wire.schedule
        while (entry := schedule.take(tick)) is not None:
            # What was said late is on the wire when it is said.
            at = max(entry[0], self._exchanged)
            self._pass(at - 1)
            self._current = entry
            self._exchanged = at
            self._count(at, now_ns - self._wire.time_of(at))
            self._deliver(self._master.incoming(frame_at(entry[1], entry[0], at)), at)
        self._pass(tick)

    def _pass(self, tick: int) -> None:
        """Up to this tick, the wire carries the same again."""
        frames = tick - self._exchanged
        if frames <= 0:
            return
        if self._current is not None:
            from_tick, frame = self._current
            first = self._exchanged + 1
            self._deliver(self._master.incoming(frame_at(frame, from_tick, first)), first)
            self._deliver(self._master.repeated(frames - 1), tick)
        else:
            self._deliver(self._master.silent(frames), tick)
        self._exchanged = tick

    def _send_news(self, tick: int) -> None:
        master = self._master
        if not (master.has_news or self._refused):
            return
        frame = master.outgoing()
        if frame == self._sent_frame:
            return
        if not self._wire.send(tick, frame):
            self._overflows += not self._refused
            self._refused = True
            return
        self._refused = False
        self._sent_frame = frame
        if self._to_send and not master.has_news:
            self._to_send = False
            self._command_tick = tick
            if self._event_tick is not None:
                self._reaction.add(tick - (self._event_tick - 1))

    def _give_up(self, tick: int) -> None:
        if self._outstanding and not self._master.idle:
            self._deliver(self._master.give_up(), tick)

    def _deliver(self, response: Response | None, tick: int) -> None:
        if response is None:
            return
        self._deadline_tick = None
        self._to_send = False
        self._event_tick = tick
        self._answered += 1
        # Outside a session only what the master gives up is answered.
        self._given_up += self._master.has_news
        # A frame is written before its tick; it may be given up before it, too.
        first = tick if self._command_tick is None else min(self._command_tick, tick)
        self._events.append(EngineEvent(tick, *response, first))

    def _count(self, tick: int, late_ns: int) -> None:
        self._ticks += 1
        self._lateness.add(late_ns)
        self._stalls += late_ns > STALL_NS
        slots = late_ns // self.tick_ns
        if slots <= 0:
            return
        self._skipped += slots
        if len(self._skips) < SKIP_EVENTS:
            self._skips.append(SkippedSlots(tick, slots))
        else:
            self._skips_unread += 1

    def _set_timer(self) -> None:
        """At the earliest of what is due without anybody ringing."""
        if self._events:
            self._timer.set(1)
            return
        ticks = [
            tick
            for tick in (self._wake_tick, self._wire.schedule.next_tick, self._deadline_tick)
            if tick is not None
        ]
        due_ns = self._maintenance_ns
        if ticks:
            due_ns = min(due_ns, self._wire.time_of(min(ticks)))
        self._timer.set(due_ns)

    # --- what was counted -------------------------------------------------------------

    def take_skips(self) -> list[SkippedSlots]:
        """See `TickEngine`."""
        skips = list(self._skips)
        self._skips.clear()
        return skips

    def statistics(self) -> EngineStatistics:
        """See `TickEngine`."""
        return EngineStatistics(
            mode=self.mode,
            link=self.link,
            is_native=self.is_native,
            tick_ns=self.tick_ns,
            ticks=self._ticks,
            skipped=self._skipped,
            skips_unread=self._skips_unread,
            stalls=self._stalls,
            lateness_ns=self._lateness.read(),
            reaction_ticks=self._reaction.read(),
            instructions=self._instructions,
            events=self._answered,
            given_up=self._given_up,
            busy_timeouts=self._busy_timeouts,
            corrupted_frames=self._corrupted + self._master.corrupted_frames + self._wire.damaged,
            device_restarts=self._restarts + self._master.device_restarts + self._returns,
            ring_overflows=self._overflows,
            device_attached=self._wire.attached,
            warnings=self._warnings,
        )
