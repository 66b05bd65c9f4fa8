"""A QNPU service in this process, turned by hand, with clients on real sockets.

Nothing waits: time is the test's (ticks of the engine, nanoseconds of the loop's clock), and
sockets are looked at after every turn.
"""

from __future__ import annotations

import os
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from time import monotonic
from typing import Any, Final, TypeVar

from drivers.nv import NV_CAPABILITIES, NVDriver
from qnodeos.api.framing import Deframer, frame
from qnodeos.api.host_wire import (
    PROTOCOL_VERSION,
    Hello,
    Message,
    Netqasm,
    Refused,
    Register,
    Reply,
    Welcome,
    decode_server,
    encode,
)
from qnodeos.api.netqasm import Flavour
from qnodeos.engine.interface import EngineEvent, EngineStatistics, LinkName, Mode, SkippedSlots
from qnodeos.errors import ChannelError, FrameError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.endpoint import FrameMaster
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome
from qnodeos.qdevice.protocols import QDevice
from qnodeos.service.limits_config import LimitsConfig
from qnodeos.service.listeners import open_listeners
from qnodeos.service.loop import Loop
from qnodeos.service.node_file import NodeFile
from qnodeos.service.notify import Notifier
from qnodeos.service.service import QnpuService
from sim.noise import NVNoise
from sim.nv_device import BehaviouralNVDevice
from sim.nv_timing import NVTiming
from tests.unit.kernel_programs import submit

DEADLINE_S: Final = 10.0
"""A test that has not seen by then what it waits for fails; nothing waits that long."""
TICK_NS: Final = 10_000

MessageT = TypeVar("MessageT", bound=Message)


def nv_device(seed: int = 1) -> BehaviouralNVDevice:
    """A perfect device that nothing else is connected to."""
    return BehaviouralNVDevice(NVTiming(), NVNoise.noiseless(), None, Random(seed))


class ManualEngine:
    """A `TickEngine` whose ticks the test makes happen.

    Args:
        device: at the other end of the wire.
        mode: what it says of itself.

    Attributes:
        is_device_alive: False: the device is gone, and the engine answers for it.
        submitted: every instruction handed over.
        skips: that nobody has taken yet.
        wake_tick: when it is to ring.
    """

    is_native: Final = False
    link: Final[LinkName] = "loopback"

    def __init__(self, device: QDevice, mode: Mode = "event-paced") -> None:
        self.mode: Mode = mode
        self.tick_ns = device.capabilities.tick_ns
        self.capabilities: Capabilities | None = device.capabilities
        self.is_device_alive = True
        self.submitted: list[PhysicalInstruction] = []
        self.is_started = self.is_closed = False
        self._device = device
        self._master = FrameMaster()
        self._events: deque[EngineEvent] = deque()
        self._outstanding = False
        self._command_tick: int | None = None
        self.skips: list[SkippedSlots] = []
        self._tick = 0
        self.wake_tick: int | None = None
        self._bell = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)

    @property
    def idle(self) -> bool:
        return not self._outstanding

    def start(self) -> None:
        self.is_started = True

    def stop(self) -> None:
        self.is_started = False

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            os.close(self._bell)

    def now_tick(self) -> int:
        return self._tick

    def submit(self, instruction: PhysicalInstruction) -> None:
        if self._outstanding:
            raise FrameError("one is outstanding")
        self._outstanding = True
        self._command_tick = None
        self.submitted.append(instruction)
        if self.is_device_alive:
            self._master.submit(instruction)
        else:
            self._fail()

    def poll(self) -> EngineEvent | None:
        with suppress(BlockingIOError):
            os.eventfd_read(self._bell)
        if self.wake_tick is not None and self.wake_tick <= self._tick:
            self.wake_tick = None
        if not self._events:
            return None
        self._outstanding = False
        return self._events.popleft()

    def filenos(self) -> tuple[int, ...]:
        return (self._bell,)

    def wake_at(self, tick: int | None) -> None:
        self.wake_tick = tick
        self._ring()

    def tick_reading(self) -> tuple[int, int]:
        return self._tick, self._tick * self.tick_ns + 77

    def take_skips(self) -> list[SkippedSlots]:
        skips, self.skips = self.skips, []
        return skips

    def statistics(self) -> EngineStatistics:
        return EngineStatistics(
            self.mode, self.link, False, self.tick_ns, device_attached=self.is_device_alive
        )

    def advance(self, ticks: int = 1) -> None:
        """Let the time go on, and a frame each way pass in every tick."""
        for _ in range(ticks):
            self._tick += 1
            if self.is_device_alive:
                frame = self._master.outgoing()
                if self._command_tick is None and not self._master.has_news:
                    self._command_tick = self._tick
                response = self._master.incoming(self._device.exchange(self._tick, frame))
                if response is not None:
                    self._tell(*response)
        self._ring()

    def kill_device(self) -> None:
        """The lab dies."""
        self.is_device_alive = False
        if self._outstanding and not self._events:
            self._fail()

    def revive_device(self, device: QDevice) -> None:
        """Another lab takes its place."""
        self.is_device_alive = True
        self._device = device
        self._master = FrameMaster()

    def _fail(self) -> None:
        self._tell(Outcome.HARDWARE_FAILURE, None)
        self._ring()

    def _tell(self, outcome: Outcome, herald: BellState | None) -> None:
        sent = self._tick if self._command_tick is None else self._command_tick
        self._events.append(EngineEvent(self._tick, outcome, herald, sent))

    def _ring(self) -> None:
        if self._events or (self.wake_tick is not None and self.wake_tick <= self._tick):
            os.eventfd_write(self._bell, 1)


class Peer:
    """The other end of a connection to the service.

    Attributes:
        messages: what came and has not been taken.
        is_over: whether the service has closed the connection.
    """

    def __init__(self, bench: Bench, connection: socket.socket) -> None:
        self._bench = bench
        self.socket = connection
        self.socket.setblocking(False)
        self.messages: deque[Any] = deque()
        self.is_over = False
        self.is_reading = True
        self._deframer = Deframer()
        self._next = 0

    def send_bytes(self, data: bytes) -> None:
        """Send bytes; while the service does not take them, it is turned."""
        view = memoryview(data)
        deadline_s = monotonic() + DEADLINE_S
        while view:
            try:
                view = view[self.socket.send(view) :]
            except BlockingIOError:
                self._bench.turn()
                assert monotonic() < deadline_s, "the service does not read"

    def send(self, *messages: Message) -> None:
        """Send messages."""
        self.send_bytes(b"".join(frame(encode(message)) for message in messages))

    def greet(self, name: str = "test") -> Welcome:
        """Introduce oneself."""
        self.send(Hello(PROTOCOL_VERSION, name))
        return self.take(Welcome)

    def request(self, raw: bytes) -> int:
        """Send a message of the NetQASM SDK; its number."""
        number = self._next
        self._next += 1
        self.send(Netqasm(number, raw))
        return number

    def ask(self, raw: bytes) -> Reply:
        """Send a message of the NetQASM SDK, and wait for the reply."""
        number = self.request(raw)
        return self.reply(number)

    def register(self, app_id: int = 0, *, qubits: int = 1, priority: int = 0) -> None:
        """Register a program."""
        number = self._next
        self._next += 1
        self.send(Register(number, app_id, qubits, priority))
        assert self.reply(number).error is None

    def run(self, program: str, app_id: int = 0) -> Reply:
        """Run a subroutine to its end."""
        return self.ask(nv(app_id, program))

    def reply(self, number: int) -> Reply:
        """Wait for the reply to a request."""
        self._bench.until(lambda: self.find(number) is not None)
        found = self.find(number)
        assert found is not None
        self.messages.remove(found)
        return found

    def find(self, number: int) -> Reply | None:
        """The reply to a request, if it has come."""
        for message in self.messages:
            if isinstance(message, Reply) and message.request == number:
                return message
        return None

    def take(self, kind: type[MessageT]) -> MessageT:
        """Wait for the next message, which must be of a kind."""
        self._bench.until(lambda: bool(self.messages))
        message = self.messages.popleft()
        assert isinstance(message, kind), message
        return message

    def refusal(self) -> Refused:
        """Wait for the end of the connection and what was said before it."""
        self._bench.until(lambda: self.is_over)
        message = self.messages.pop()
        assert isinstance(message, Refused), message
        return message

    def read(self) -> None:
        """Take what has come."""
        while self.is_reading and not self.is_over:
            try:
                data = self.socket.recv(1 << 16)
            except BlockingIOError:
                return
            except ConnectionError:
                data = b""
            if not data:
                self.is_over = True
                return
            self.messages.extend(decode_server(payload) for payload in self._deframer.feed(data))

    def close(self) -> None:
        """Hang up."""
        self.is_over = True
        self.socket.close()


class Bench:
    """A service, and what the test moves: ticks, the clock and sockets.

    Args:
        folder: for the socket of the API.
        device: False: there is none yet.
        engine: what drives the device; a `ManualEngine` with a perfect NV device if not given.
        fields: of the node file, instead of those of the bench.
        supervisor: path of a datagram socket; it expects a sign of life every second.
        limits: of the service.
    """

    def __init__(
        self,
        folder: Path,
        *,
        device: bool = True,
        engine: ManualEngine | None = None,
        fields: dict[str, Any] | None = None,
        supervisor: str | None = None,
        **limits: int,
    ) -> None:
        self.clock_ns = 0
        self.has_device = device
        self.engine = engine if engine is not None else ManualEngine(nv_device())
        self.said: list[str] = []
        self._peers: list[Peer] = []
        settings: dict[str, Any] = {
            "name": "client",
            "node_id": 0,
            "device": {"link": "loopback"},
            "api": {"listen": [f"unix:{folder}/api.sock", "tcp:127.0.0.1:0"]},
            "trace": {"events": 4_096},
        }
        # All clients on the Unix socket are operators here.
        limits.setdefault("reserved_connections", 0)
        self.node = NodeFile.model_validate(
            settings | (fields or {}) | {"limits": LimitsConfig(**limits)}
        )
        environment = {}
        if supervisor is not None:
            environment = {"NOTIFY_SOCKET": supervisor, "WATCHDOG_USEC": "1000000"}
        self.notifier = Notifier(environment, lambda: self.clock_ns)
        self.service = QnpuService(
            self.node,
            open_engine=self._open,
            make_driver=NVDriver,
            standard=NV_CAPABILITIES,
            flavour=Flavour.NV,
            listeners=open_listeners(self.node),
            loop=Loop(lambda: self.clock_ns),
            incarnation=5,
            random_choice=lambda below: 0,
            notifier=self.notifier,
            say=self.said.append,
        )

    def _open(self) -> ManualEngine:
        if not self.has_device:
            raise ChannelError("there is no channel")
        return self.engine

    @property
    def kernel(self) -> Any:
        """The kernel of the service."""
        assert self.service.kernel is not None
        return self.service.kernel

    def connect(self, *, tcp: bool = False) -> Peer:
        """A connection, over the Unix socket or TCP."""
        address = self.service.server.addresses[1 if tcp else 0]
        family, place = address.resolve()
        connection = socket.socket(family, socket.SOCK_STREAM)
        connection.connect(place)  # the system completes it without the service
        peer = Peer(self, connection)
        self._peers.append(peer)
        return peer

    def client(self, *, tcp: bool = False) -> Peer:
        """A connection that has been welcomed."""
        peer = self.connect(tcp=tcp)
        peer.greet()
        return peer

    def turn(self, ticks: int = 1) -> None:
        """Let ticks pass and the service turn once; then see what has come."""
        self.engine.advance(ticks)
        self.service.turn(0)
        for peer in self._peers:
            peer.read()

    def turns(self, number: int) -> None:
        """Turn several times."""
        for _ in range(number):
            self.turn()

    def pass_ms(self, milliseconds: float) -> None:
        """Let the loop's clock go on, and the service notice."""
        self.clock_ns += round(milliseconds * 1_000_000)
        self.turns(2)

    def until(self, condition: Callable[[], object]) -> None:
        """Turn until something holds."""
        deadline_s = monotonic() + DEADLINE_S
        while not condition():
            self.turn()
            assert monotonic() < deadline_s, "it does not happen"

    def check_clean(self) -> None:
        """Nothing is left of any program or connection."""
        self.turns(3)
        server, kernel = self.service.server, self.kernel
        assert server.open_sockets == 0
        assert server.open_requests == 0
        assert not kernel.processes
        assert kernel.qmmu.free_qubits() == list(NV_CAPABILITIES.qubits)

    def close(self) -> None:
        """End everything."""
        for peer in self._peers:
            peer.close()
        self.service.close()
        self.notifier.close()
        self.engine.close()


def nv(app_id: int, program: str) -> bytes:
    """A subroutine message in the NV flavour."""
    return submit(app_id, program, Flavour.NV)


def open_descriptors() -> int:
    """How many descriptors this process has open."""
    return len(os.listdir("/proc/self/fd"))


def benches() -> Iterator[Callable[..., Bench]]:
    """For a fixture: makes benches and, after the test, closes them and looks for leaks."""
    before = open_descriptors()
    made: list[Bench] = []
    # The path of a socket is short, that of pytest's folder may not be.
    with TemporaryDirectory(prefix="qn") as folder:

        def make(**options: Any) -> Bench:
            made.append(Bench(Path(folder), **options))
            return made[-1]

        yield make
        for bench in made:
            bench.close()
    assert open_descriptors() == before, "a descriptor has leaked"


MEASURE_ONE: Final = """
set Q0 0
qalloc Q0
init Q0
rot_x Q0 16 4
meas Q0 M0
qfree Q0
ret_reg M0
"""
"""Prepares |1> and measures it."""

ENDLESS: Final = """
LOOP:
jmp LOOP
"""

COMPUTE: Final = """
set R0 0
set R1 500
set R2 1
LOOP:
add R0 R0 R2
blt R0 R1 LOOP
"""
"""A thousand instructions, and no quantum one."""
