"""Rehearsing: keeping the code of the critical path warm while nothing is to be done.

A QNPU waits for entanglement for tens of milliseconds, and then has some tens of microseconds
for each step. Meanwhile the processor's caches and branch predictors forget: the same code that
takes 20 us when it has just run takes ten times as long after 20 ms of sleep (measured:
docs/decisions/0017-rehearsal.md). So while a program waits, the service runs now and then
through what comes next, with a kernel of its own that has no device, no peer and no client: a
pair is heralded, gates and a readout follow, results are encoded, and everything is thrown away.

The real kernel, its trace and its counters are not touched.
"""

from __future__ import annotations

import struct
from typing import Final

from qnodeos.api.host_wire import Netqasm, decode_client, encode, reply_of
from qnodeos.api.netqasm import INSTRUCTION_BYTES, Flavour
from qnodeos.api.peer import Accept, Announce, EntanglementType, Offer, PeerMessage, RequestTerms
from qnodeos.api.peer_wire import LinkMessage, decode, from_wire, to_wire
from qnodeos.api.peer_wire import encode as encode_peer
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.isa import CORE, FLAVOURS
from qnodeos.qnpu.kernel import Kernel
from qnodeos.qnpu.kernel_config import KernelConfig
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.trace import TraceRecorder

_BIN_TICKS: Final = 1_000
_NODE, _PEER = 0, 1
_CLIENT: Final = 1
_APP: Final = 0
_MAX_STEPS: Final = 64
"""Ticks one instruction sequence may take, far more than any does."""

# Registers by their encoded bytes.
_R0, _R1, _R2, _R3, _R4, _Q0, _M0 = 0, 4, 8, 12, 16, 2, 3

_Lines = tuple[tuple[str | int, ...], ...]
_ARRAYS: Final[_Lines] = (
    ("set", _R0, 10),
    ("array", _R0, 0),
    ("set", _R0, 1),
    ("array", _R0, 1),
    ("set", _R0, 0),
    ("set", _R1, 0),
    ("store", _R0, 1, _R1),
)
_CREATE: Final[_Lines] = (
    *_ARRAYS,
    ("set", _R0, 22),
    ("array", _R0, 2),
    ("set", _R0, 0),
    ("set", _R1, 0),
    ("store", _R0, 2, _R1),
    ("set", _R0, 1),
    ("set", _R1, 1),
    ("store", _R0, 2, _R1),
    ("set", _R0, _PEER),
    ("set", _R1, 0),
    ("set", _R2, 1),
    ("set", _R3, 2),
    ("set", _R4, 0),
    ("create_epr", _R0, _R1, _R2, _R3, _R4),
)
_RECEIVE: Final[_Lines] = (
    *_ARRAYS,
    ("set", _R0, _PEER),
    ("set", _R1, 0),
    ("set", _R2, 1),
    ("set", _R3, 0),
    ("recv_epr", _R0, _R1, _R2, _R3),
    ("ret_arr", 0),
    ("ret_arr", 1),
)
_MEASURE: Final[_Lines] = (
    ("set", _Q0, 0),
    ("rot_y", _Q0, 8, 4),
    ("set", _Q0, 0),
    ("rot_x", _Q0, 16, 4),
    ("set", _Q0, 0),
    ("meas", _Q0, _M0),
    ("qfree", _Q0),
    ("ret_reg", _M0),
)


class Rehearsal:
    """A kernel that delegates a computation to nobody, and does one for nobody.

    Args:
        driver: of the device; drivers are pure, so the real kernel's does.
        tick_ns: length of a tick.
    """

    def __init__(self, driver: QDriver, tick_ns: int) -> None:
        self._kernel = Kernel(
            KernelConfig(_NODE, Flavour.NV, {_PEER: 0}, limits=Limits()),
            driver,
            TraceRecorder(tick_ns, 256),
            lambda bound: 0,
        )
        self._kernel.install_schedule(NetworkSchedule(_BIN_TICKS, 0, _BIN_TICKS, (_PEER,)))
        self._tick = 1
        self._requests = 0
        self._kernel.register(_CLIENT, 0, _APP, 1, 0, self._tick)
        self._host(_open_socket())
        self._create = _message(_CREATE + _MEASURE)
        self._receive = _message(_RECEIVE)
        self._measure = _message(_MEASURE)

    def delegate(self) -> None:
        """Create a pair, do gates on it and measure it.

        Raises:
            RuntimeError: the kernel did not do what it always does.
        """
        self._host(self._create)
        self._kernel.tick(self._tick)
        (offer,) = (m for _, m in self._sent() if isinstance(m, Offer))
        self._kernel.peer_message(_PEER, Accept(offer.create_id, offer.terms.start_bin), self._tick)
        self._attempt(Outcome.SUCCESS_PSI_PLUS)
        self._reply()

    def compute(self) -> None:
        """Receive a pair, correct it, and then do gates on it and measure it.

        Raises:
            RuntimeError: the kernel did not do what it always does.
        """
        self._host(self._receive)
        self._kernel.tick(self._tick)
        number = self._requests
        terms = RequestTerms(0, 0, EntanglementType.KEEP, 1, (), 0, self._tick // _BIN_TICKS + 1)
        self._kernel.peer_message(_PEER, Offer(number, terms), self._tick)
        self._sent()
        self._attempt(Outcome.SUCCESS_PSI_MINUS)
        announce = Announce(number, 0, 0, BellState.PSI_MINUS, self._tick)
        self._kernel.peer_message(_PEER, _over_the_wire(announce), self._tick)
        self._carry_out(self._kernel.tick(self._tick))
        self._reply()
        self._host(self._measure)
        self._carry_out(self._kernel.tick(self._tick))
        self._reply()

    # --- the parts of the others --------------------------------------------------------

    def _attempt(self, herald: Outcome) -> None:
        """Let the next bin begin, and its first batch of attempts be heralded."""
        self._tick = (self._tick // _BIN_TICKS + 1) * _BIN_TICKS
        if self._kernel.tick(self._tick) is None:
            raise RuntimeError("the kernel does not attempt entanglement in its bin")
        self._tick += 1
        instruction = self._kernel.tick(self._tick, herald)
        for _, message in self._sent():
            _over_the_wire(message)
        self._carry_out(instruction)

    def _carry_out(self, instruction: PhysicalInstruction | None) -> None:
        for _ in range(_MAX_STEPS):
            if instruction is None:
                return
            self._tick += 1
            instruction = self._kernel.tick(self._tick, Outcome.SUCCESS_ZERO)
        raise RuntimeError("the kernel does not come to an end")

    def _host(self, raw: bytes) -> None:
        self._requests += 1
        message = decode_client(encode(Netqasm(self._requests, raw)))
        assert isinstance(message, Netqasm)
        self._kernel.host_message(_CLIENT, message.request, message.raw, self._tick)

    def _reply(self) -> None:
        self._kernel.next_tick(self._tick)
        replies = self._kernel.host_outbox
        if not replies or replies[-1].error is not None:
            raise RuntimeError(f"the kernel answers {replies[-1:]} to what it always does")
        encode(reply_of(replies[-1]))
        replies.clear()

    def _sent(self) -> list[tuple[int, PeerMessage]]:
        sent = self._kernel.peer_outbox[:]
        self._kernel.peer_outbox.clear()
        return sent


def _over_the_wire(message: PeerMessage) -> PeerMessage:
    arrived = decode(encode_peer(to_wire(message, 0, 0)))
    assert isinstance(arrived, LinkMessage)
    return from_wire(arrived, 0)


def _message(lines: _Lines) -> bytes:
    """A message that submits a subroutine, from (mnemonic, operands...)."""
    codes = {name: (code, layout) for code, (name, layout) in CORE.items()}
    codes |= {name: (code, layout) for code, (name, layout) in FLAVOURS[Flavour.NV].items()}
    body = b""
    for mnemonic, *operands in lines:
        code, layout = codes[str(mnemonic)]
        line = bytes([code]) + struct.pack(layout.format, *operands)
        body += line.ljust(INSTRUCTION_BYTES, b"\0")
    return struct.pack("<BBBH", 2, 0, 10, _APP) + body


def _open_socket() -> bytes:
    return struct.pack("<B3xIiiiB3x", 1, _APP, 0, _PEER, 0, 0)
