"""The QNPU service: kernel, tick engine, API server and peers in one thread.

One turn of the policy loop:

1. wait (event-paced: for a descriptor or a timer; spinning: not at all);
2. take the device's outcome, if there is one, and give the kernel's next instruction to the
   engine: nothing else comes between the two;
3. serve sockets and timers;
4. if any of that, or the time, gave the kernel something to do, run it, send what it says.

Time is the engine's tick, read once per turn. A service whose device is not there yet runs
without a kernel, answers every request with a `DeviceFailureError`, and looks for the device
until it comes; one whose device goes away later keeps its kernel (the engine answers for the
device then).
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any, Final, Protocol

from qnodeos import __version__
from qnodeos.api.host import ErrorReport, HostReply
from qnodeos.api.host_wire import ProcessInfo, Welcome
from qnodeos.api.netqasm import Flavour
from qnodeos.api.peer import PeerMessage
from qnodeos.engine.interface import EngineEvent, SkippedSlots, TickEngine
from qnodeos.errors import ChannelError, ConfigurationError, DeviceFailureError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.kernel import Kernel
from qnodeos.qnpu.kernel_config import KernelConfig
from qnodeos.qnpu.scheduler import POLICIES
from qnodeos.service.events import EventStream
from qnodeos.service.listeners import Listener
from qnodeos.service.loop import MAX_EVENTS, Loop, Ready, stop_signals
from qnodeos.service.node_file import NodeFile
from qnodeos.service.notify import Notifier
from qnodeos.service.realtime import RealtimeReport
from qnodeos.service.rehearsal import Rehearsal
from qnodeos.service.self_description import engine_figures, limits_by_name, welcome_of
from qnodeos.service.server import ApiServer
from qnodeos.trace import Event, TraceRecorder

_LOOK_FOR_DEVICE_NS: Final = 200_000_000
"""How often a missing device is looked for (assumed)."""
_WATCH_DEVICE_NS: Final = 500_000_000
"""How often the state of the device is looked at, to report it (assumed)."""
_READ_SKIPS_NS: Final = 100_000_000
"""How often the skips of the engine are read (assumed). It keeps 1024, and a tick thread without
a core of its own has been seen to lose 1.1 % of 100 000 a second: 110 in this time."""
LATEST_SKIPS: Final = 16
"""Skips that the statistics show."""


class Peers(Protocol):
    """The QNPUs of other nodes, as the service uses them."""

    def send(self, messages: Sequence[tuple[int, PeerMessage]]) -> None:
        """Send the kernel's messages, each to a node."""
        ...

    def statistics(self) -> dict[str, Any]:
        """Counters and states."""
        ...

    def close(self) -> None:
        """End all connections."""
        ...


class QnpuService:
    """One node's QNPU; close it after use.

    Args:
        node: the node.
        open_engine: makes the tick engine; raises ChannelError while there is no device.
        make_driver: the QDriver for a device.
        standard: what the platform's devices can do, told to clients until there is one.
        flavour: NetQASM that the node speaks.
        listeners: where programs connect; owned by this object from now on.
        loop: owned by this object from now on.
        incarnation: number of this start; later ones are larger.
        random_choice: a random integer below its argument, for random bases.
        make_peers: connects to the other nodes; None for a node without.
        notifier: to the supervisor; None for none. Stays the caller's.
        say: takes lines about what changes, for people.

    Attributes:
        tick: of this turn; 0 until there is a device.
        kernel: None until there is a device.
        trace: the events of the QNPU.
        realtime: what the system granted; set it before the first turn.
    """

    def __init__(
        self,
        node: NodeFile,
        *,
        open_engine: Callable[[], TickEngine],
        make_driver: Callable[[Capabilities], QDriver],
        standard: Capabilities,
        flavour: Flavour,
        listeners: Sequence[Listener],
        loop: Loop,
        incarnation: int,
        random_choice: Callable[[int], int],
        make_peers: Callable[[QnpuService, Kernel, TickEngine], Peers] | None = None,
        notifier: Notifier | None = None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.node = node
        self.loop = loop
        self.incarnation = incarnation
        self.tick = 0
        self.kernel: Kernel | None = None
        self.peers: Peers | None = None
        self.realtime = RealtimeReport()
        self.trace = TraceRecorder(standard.tick_ns, node.trace.events)
        self._open_engine = open_engine
        self._standard = standard
        self._flavour = flavour
        self._make_driver = make_driver
        self._make_peers = make_peers
        self._random_choice = random_choice
        self._notifier = notifier
        self._say = say
        self._limits = node.limits.kernel(standard.tick_ns)
        self._engine: TickEngine | None = None
        self._latest_skips: deque[SkippedSlots] = deque(maxlen=LATEST_SKIPS)
        self._rehearsal: Rehearsal | None = None
        self._is_rehearsing = False
        self._engine_fds: frozenset[int] = frozenset()
        self._is_spinning = self._polls_always = False
        self._due: int | None = None
        self._armed: int | None = None
        self._kernel_tick = 0
        self._turns = 0
        self._started_ns = loop.now_ns()
        self._stop_reason: str | None = None
        self._device_state = ""
        self._is_closed = False
        self._server = ApiServer(
            loop, listeners, node.limits, self._welcome(standard), self, self._event_stream()
        )
        try:
            self._look_for_device()
        except BaseException:
            self.close()
            raise
        if notifier is not None and notifier.watchdog_interval_ns is not None:
            self._give_sign_of_life()

    @property
    def engine(self) -> TickEngine | None:
        """The tick engine; None until there is a device."""
        return self._engine

    @property
    def server(self) -> ApiServer:
        """The API server."""
        return self._server

    # --- the device -------------------------------------------------------------------

    def _look_for_device(self) -> None:
        try:
            engine = self._open_engine()
        except ChannelError as error:
            self._report_device(f"no device: {error}")
            self.loop.call_after(_LOOK_FOR_DEVICE_NS, self._look_for_device)
            return
        try:
            self._attach(engine)
        except BaseException:
            if self._engine is not engine:  # otherwise `close` does it, and forgets its files first
                engine.close()
            raise
        self._watch_device()
        self._read_skips()

    def _attach(self, engine: TickEngine) -> None:
        """Begin: there is a device."""
        node = self.node
        capabilities = engine.capabilities or replace(self._standard, tick_ns=engine.tick_ns)
        for name, peer in node.peers.items():
            if peer.device_link >= capabilities.links:
                raise ConfigurationError(
                    f"peers.{name}.device_link is {peer.device_link}, and the device "
                    f"({capabilities.name}) has {capabilities.links} links"
                )
        self.trace.unit_ns = engine.tick_ns
        self._limits = node.limits.kernel(engine.tick_ns)
        kernel = Kernel(
            KernelConfig(
                node_id=node.node_id,
                flavour=self._flavour,
                peers={peer.node_id: peer.device_link for peer in node.peers.values()},
                limits=self._limits,
            ),
            self._make_driver(capabilities),
            self.trace,
            self._random_choice,
            POLICIES[node.scheduler](),
        )
        engine.start()
        self.tick = self._kernel_tick = engine.now_tick()
        self._is_spinning = engine.mode == "spinning"
        # The native one takes 0.1 us to say no, the other makes system calls.
        self._polls_always = self._is_spinning or engine.is_native
        if not self._is_spinning:
            self._engine_fds = frozenset(engine.filenos())
            for fd in self._engine_fds:
                self.loop.watch(fd, _nothing)
        self._engine = engine
        self.kernel = kernel
        if node.realtime.rehearse_us and node.peers:
            self._rehearsal = Rehearsal(self._make_driver(capabilities), engine.tick_ns)
        self._server.welcome(self._welcome(capabilities))
        if self._make_peers is not None:
            self.peers = self._make_peers(self, kernel, engine)

    def _watch_device(self) -> None:
        assert self._engine is not None
        self.loop.call_after(_WATCH_DEVICE_NS, self._watch_device)
        counted = self._engine.statistics()
        paced = f"{counted.mode} over {counted.link}"
        if counted.device_attached:
            self._report_device(f"device attached, {paced}")
        else:
            self._report_device(f"the device is gone, waiting for it to come back, {paced}")

    def _read_skips(self) -> None:
        """Take the skips from the engine before it has no room for more."""
        assert self._engine is not None
        self.loop.call_after(_READ_SKIPS_NS, self._read_skips)
        self._latest_skips.extend(self._engine.take_skips())

    def _report_device(self, state: str) -> None:
        if state != self._device_state:
            self._device_state = state
            self._say(state)
            if self._notifier is not None:
                self._notifier.status(state)

    # --- turns ------------------------------------------------------------------------

    def turn(self, timeout_s: float | None) -> None:
        """One turn of the policy loop.

        Args:
            timeout_s: longest time to wait for something to do; None without end. A spinning
                service does not wait at all.
        """
        loop = self.loop
        self._turns += 1
        ready = loop.wait(0 if self._is_spinning else timeout_s)
        engine = self._engine
        if engine is None:
            loop.dispatch(ready)
            return
        event = engine.poll() if self._polls_always or self._has_rung(ready) else None
        tick = engine.now_tick()
        self.tick = tick
        if event is not None:
            # Before all else: the next instruction is to go out with the next frame.
            self._run_kernel(event.tick, event)
        if loop.dispatch(ready) or (self._due is not None and tick >= self._due):
            self._run_kernel(tick, None)

    def _has_rung(self, ready: Ready) -> bool:
        fds = self._engine_fds
        # Where many are ready, the engine may be among those left for the next turn.
        return len(ready) == MAX_EVENTS or any(fd in fds for fd, _ in ready)

    def _run_kernel(self, tick: int, event: EngineEvent | None) -> None:
        """Let the kernel do what is due, and carry out what it says."""
        kernel, engine = self.kernel, self._engine
        if kernel is None or engine is None:
            return  # the device has been found in this very turn
        # An outcome may have come in a tick in which something else was done already.
        tick = self._kernel_tick = max(tick, self._kernel_tick)
        if event is None:
            instruction = kernel.tick(tick)
        else:
            self.trace.record(event.command_tick, Event.QDEVICE_CONSUME_CMD)
            self.trace.record(event.tick, Event.QDEVICE_PRODUCE_OUTCOME, 0, event.outcome)
            instruction = kernel.tick(tick, event.outcome, event.herald)
        if instruction is not None:
            engine.submit(instruction)
        outbox, peer_outbox = kernel.host_outbox, kernel.peer_outbox
        while outbox or peer_outbox:  # a connection that breaks adds to them
            replies, messages = outbox[:], peer_outbox[:]
            outbox.clear()
            peer_outbox.clear()
            for reply in replies:
                self._server.reply(reply)
            if messages and self.peers is not None:
                self.peers.send(messages)
        if self._rehearsal is not None and not self._is_rehearsing and kernel.is_waiting:
            self._is_rehearsing = True
            self.loop.call_after(self.node.realtime.rehearse_us * 1_000, self._rehearse)
        self._due = due = kernel.next_tick(tick)
        if not self._is_spinning:
            if self._armed is not None and self._armed <= self.tick:
                self._armed = None  # it has rung
            if due != self._armed:
                self._armed = due
                engine.wake_at(due)

    def _rehearse(self) -> None:
        """While programs wait, keep warm what is needed when they do not any more."""
        kernel, rehearsal = self.kernel, self._rehearsal
        if kernel is None or rehearsal is None or not kernel.is_waiting:
            self._is_rehearsing = False
            return
        try:
            if kernel.link_layer.is_creating or kernel.network_layer.is_creating:
                rehearsal.delegate()
            else:
                rehearsal.compute()
        except Exception as error:  # a rehearsal must never end the service
            self._rehearsal = None
            self._say(f"no more rehearsals: {type(error).__name__}: {error}")
            return
        self.loop.call_after(self.node.realtime.rehearse_us * 1_000, self._rehearse)

    def run(self) -> str:
        """Serve until a signal or `stop`; returns what ended it. Main thread only."""
        with stop_signals(self.loop, lambda number: self.stop(f"signal {number}")):
            if self._notifier is not None:
                self._notifier.ready(self._device_state)
            while self._stop_reason is None:
                self.turn(None)
        if self._notifier is not None:
            self._notifier.stopping(self._stop_reason)
        return self._stop_reason

    def stop(self, reason: str) -> None:
        """End `run` after this turn."""
        self._stop_reason = reason

    def close(self) -> None:
        """End all connections and give everything back; more than once does no harm."""
        if self._is_closed:
            return
        self._is_closed = True
        self._server.close("the QNPU is stopping; connect again when it is back")
        if self.peers is not None:
            self.peers.close()
        if self._engine is not None:
            for fd in self._engine_fds:
                self.loop.forget(fd)
            self._engine.close()
        self.loop.close()

    def _give_sign_of_life(self) -> None:
        """Tell the supervisor that the loop has come round."""
        assert self._notifier is not None
        assert self._notifier.watchdog_interval_ns is not None
        self.loop.call_after(self._notifier.watchdog_interval_ns, self._give_sign_of_life)
        self._notifier.alive()

    # --- what the API server asks -----------------------------------------------------

    def host_message(self, client: int, request: int, raw: bytes) -> None:
        """See `qnodeos.service.client_requests.Qnpu`."""
        if self.kernel is None:
            self._answer_without_device(client, request)
        else:
            self.kernel.host_message(client, request, raw, self.kernel_now())

    def register(
        self, client: int, request: int, app_id: int, max_qubits: int, priority: int
    ) -> None:
        """See `qnodeos.service.client_requests.Qnpu`."""
        if self.kernel is None:
            self._answer_without_device(client, request)
        else:
            self.kernel.register(client, request, app_id, max_qubits, priority, self.kernel_now())

    def cancel(self, client: int, request: int, target: int) -> None:
        """See `qnodeos.service.client_requests.Qnpu`."""
        if self.kernel is None:
            self._answer_without_device(client, request)
        else:
            self.kernel.cancel(client, request, target, self.kernel_now())

    def client_closed(self, client: int) -> None:
        """See `qnodeos.service.client_requests.Qnpu`."""
        if self.kernel is not None:
            self.kernel.client_closed(client, self.kernel_now())

    def kernel_now(self) -> int:
        """The tick for the kernel: that of this turn, unless an outcome has brought a later."""
        self._kernel_tick = max(self._kernel_tick, self.tick)
        return self._kernel_tick

    def _answer_without_device(self, client: int, request: int) -> None:
        error = DeviceFailureError(f"{self._device_state}; start the lab, and try again")
        report = ErrorReport(error.code, type(error).__name__, str(error))
        self._server.reply(HostReply(client, request, error=report))

    def process_list(self, client: int | None) -> tuple[ProcessInfo, ...]:
        """See `qnodeos.service.client_requests.Qnpu`."""
        if self.kernel is None:
            return ()
        return tuple(
            ProcessInfo(
                info.pid,
                info.client,
                info.app_id,
                info.state,
                info.priority,
                info.pending,
                info.serial,
                info.qubits,
                info.requests,
            )
            for info in self.kernel.list_processes()
            if client is None or info.client == client
        )

    # --- what it tells of itself ------------------------------------------------------

    def statistics(self) -> dict[str, dict[str, Any]]:
        """See `qnodeos.service.client_requests.Qnpu`."""
        groups: dict[str, dict[str, Any]] = {
            "service": {
                "node": self.node.name,
                "node_id": self.node.node_id,
                "version": __version__,
                "pid": os.getpid(),
                "incarnation": self.incarnation,
                "uptime_ns": self.loop.now_ns() - self._started_ns,
                "turns": self._turns,
                "device": self._device_state,
                "scheduler": self.node.scheduler,
                "trace_events": self.trace.recorded,
                "trace_dropped": self.trace.dropped,
                **self._server.statistics(),
            },
            "realtime": self.realtime.as_dict(),
            "limits": limits_by_name(self.node.limits, self._limits),
        }
        if self._engine is not None:
            groups["engine"] = {
                **engine_figures(self._engine),
                "tick": self._engine.now_tick(),
                "latest_skips": [list(skip) for skip in self._latest_skips],
            }
        if self.kernel is not None:
            groups["kernel"] = asdict(self.kernel.statistics())
        if self.peers is not None:
            groups["peers"] = self.peers.statistics()
        return groups

    def _welcome(self, capabilities: Capabilities) -> Welcome:
        return welcome_of(self.node, self.incarnation, self._flavour, capabilities, self._limits)

    def _event_stream(self) -> EventStream:
        def epoch_ns() -> int:
            if self._engine is None:
                return 0
            tick, now_ns = self._engine.tick_reading()
            return now_ns - tick * self._engine.tick_ns

        return EventStream(self.trace, epoch_ns)


def _nothing(events: int) -> None:
    """The engine has been looked after before the descriptors."""
