"""What a scheduling decision of the kernel costs among few and among many processes.

A kernel alone, with a device that answers at the next tick. What is counted is a subroutine from
its turn to the next one's: the end or the wait of a process, the choice of the next, its start.
Three kinds of processes, because they wait in different places:

    ready        all have work queued that needs nothing: all are ready all the time
    one qubit    all want the device's only qubit: one has it, the others wait for it
    entangling   all ask a neighbour for a pair, and wait in the queue of the link; the
                 neighbour accepts at once, and one pair is heralded in every time bin

A process that is answered gets its next subroutine at once, so their number does not change.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from netqasm.lang.instr import NVFlavour
from netqasm.lang.parsing.text import parse_text_subroutine

from benchmarks.measure import Effort, Figure, Outcome, Work, compare, gc_paused
from drivers.nv import NV_CAPABILITIES, NVDriver
from qnodeos.api.netqasm import Flavour
from qnodeos.api.peer import Accept, Offer
from qnodeos.limits import Limits
from qnodeos.qdevice import outcomes
from qnodeos.qdevice.instructions import Opcode
from qnodeos.qnpu.kernel import Kernel
from qnodeos.qnpu.kernel_config import KernelConfig
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.qnpu.scheduler import POLICIES
from qnodeos.trace.recorder import TraceRecorder

NEIGHBOUR: Final = 1
APP_ID: Final = 0
DECISIONS: Final = 1_000
FEW: Final = 10
MANY: Final = 1_000
ROUNDS: Final = 5
WANTED: Final = (0.0, 2.0)
SCHEDULE: Final = NetworkSchedule(bin_ticks=10, guard_ticks=1, batch_ticks=2, pattern=(NEIGHBOUR,))

_SUBROUTINE: Final = 2
_NETQASM_VERSION: Final = (0, 10)
_ONE_QUBIT: Final = "set Q0 0\nqalloc Q0\ninit Q0\nmeas Q0 M0\nqfree Q0\nret_reg M0\n"
_PAIR: Final = """
array 10 @0
array 1 @1
store 0 @1[0]
array 22 @2
store 1 @2[1]
set C0 {neighbour}
set C1 {socket}
set C2 1
set C3 2
set C4 0
create_epr C0 C1 C2 C3 C4
wait_all @0[0:10]
set Q0 0
meas Q0 M0
qfree Q0
ret_reg M0
"""


@dataclass(frozen=True)
class Kind:
    """A kind of processes.

    Attributes:
        text: of the subroutine of a process, with its number as `socket`.
        queued: whether all subroutines are queued before the kernel runs; otherwise each
            process has one at a time.
    """

    name: str
    text: str
    queued: bool = False


KINDS: Final = (
    Kind("ready", "ret_reg R0\n", queued=True),
    Kind("one qubit", _ONE_QUBIT),
    Kind("entangling", _PAIR),
)


def roomy(processes: int, queued: int = 1) -> Limits:
    """Limits that let so many processes be, with so many subroutines queued in each."""
    return Limits(
        processes=processes,
        entanglement_requests=max(processes, 64),
        pending_subroutines=max(queued, 64),
    )


@cache
def body(text: str) -> bytes:
    """The body of a subroutine, from NetQASM text."""
    parsed = parse_text_subroutine("# NETQASM 0.10\n# APPID 0\n" + text, flavour=NVFlavour())
    return b"".join(bytes(instruction.serialize()) for instruction in parsed.instructions)


def message(subroutine: bytes) -> bytes:
    """The host message that submits a subroutine."""
    return struct.pack("<BBBH", _SUBROUTINE, *_NETQASM_VERSION, APP_ID) + subroutine


class Machine:
    """A kernel with processes of one kind; each is the program of a connection of its own.

    Attributes:
        work: the host message of each process.
        answered: subroutines that have been answered.
    """

    def __init__(
        self, policy: str, kind: Kind, processes: int, queued: int = 1, limits: Limits | None = None
    ) -> None:
        self.answered = 0
        self._is_closed = kind.queued
        self._tick = 0
        self._outcome: outcomes.Outcome | None = None
        self._processes = processes
        self.work = self.subroutines(kind.text)
        self.kernel = kernel = Kernel(
            KernelConfig(0, Flavour.NV, {NEIGHBOUR: 0}, limits=limits or roomy(processes, queued)),
            NVDriver(NV_CAPABILITIES),
            TraceRecorder(NV_CAPABILITIES.tick_ns, 1024),
            lambda bound: 0,
            POLICIES[policy](),
        )
        kernel.install_schedule(SCHEDULE)
        for number in range(processes):
            kernel.host_message(number, 0, struct.pack("<B3xIB3x", 0, APP_ID, 1), 0)
            kernel.host_message(
                number, 0, struct.pack("<B3xIIIIB3x", 1, APP_ID, number, NEIGHBOUR, number, 50), 0
            )
        for reply in kernel.host_outbox:
            if reply.error is not None:
                raise RuntimeError(f"the kernel refused: {reply.error}")
        kernel.host_outbox.clear()
        self.queue(self.work)
        self.run(processes)  # everything is compiled, and everybody has had a turn

    def subroutines(self, text: str) -> list[bytes]:
        """Host messages with a subroutine for every process."""
        return [
            message(body(text.format(neighbour=NEIGHBOUR, socket=number)))
            for number in range(self._processes)
        ]

    def queue(self, work: Sequence[bytes], times: int = 1) -> None:
        """Give every process its subroutine, so many times."""
        for _ in range(times):
            for number, raw in enumerate(work):
                self.kernel.host_message(number, 1, raw, self._tick)

    def run(self, more: int) -> None:
        """Run until so many more subroutines have been answered."""
        kernel, wanted = self.kernel, self.answered + more
        while self.answered < wanted:
            tick, outcome = self._tick, self._outcome
            instruction = kernel.tick(tick) if outcome is None else kernel.tick(tick, outcome)
            self._outcome = None if instruction is None else _OUTCOMES.get(
                instruction.opcode, outcomes.Outcome.SUCCESS_ZERO
            )  # fmt: skip
            if kernel.peer_outbox:
                self._accept()
            if kernel.host_outbox:
                self._go_on()
            following = kernel.next_tick(tick)
            if instruction is None and following is not None:
                self._tick = following
            else:
                self._tick = tick + 1

    def _accept(self) -> None:
        kernel = self.kernel
        messages, kernel.peer_outbox[:] = list(kernel.peer_outbox), []
        for peer, message in messages:
            if isinstance(message, Offer):
                accept = Accept(message.create_id, message.terms.start_bin)
                kernel.peer_message(peer, accept, self._tick)

    def _go_on(self) -> None:
        kernel = self.kernel
        replies, kernel.host_outbox[:] = list(kernel.host_outbox), []
        self.answered += len(replies)
        for reply in replies:
            if reply.error is not None:
                raise RuntimeError(f"a subroutine failed: {reply.error}")
            if not self._is_closed:
                kernel.host_message(reply.client, 1, self.work[reply.client], self._tick)


_OUTCOMES: Final = {Opcode.ENT: outcomes.Outcome.SUCCESS_PSI_PLUS}


def compared(policy: str, kind: Kind, few: int, many: int, effort: Effort) -> Figure:
    """The cost of a decision among many processes against that among few."""
    decisions = effort.of(DECISIONS)

    def work(processes: int) -> Work:
        each = max(1, decisions // processes)
        machine = Machine(policy, kind, processes, each)

        def prepare() -> Callable[[], None]:
            if kind.queued:
                machine.queue(machine.work, each)
            return lambda: machine.run(each * processes)

        return Work(f"{processes:,} processes", "decision", each * processes, prepare)

    effort = Effort(min(effort.rounds, ROUNDS), effort.fraction)
    return compare(work(many), work(few), effort, gc_state=gc_paused).cost(
        f"decision, {kind.name}, {policy}", wanted=WANTED
    )


def run(effort: Effort) -> Outcome:
    """Measure."""
    many = effort.of(MANY)
    figures = [compared(policy, kind, FEW, many, effort) for policy in POLICIES for kind in KINDS]
    return Outcome(figures, "off while timed")
