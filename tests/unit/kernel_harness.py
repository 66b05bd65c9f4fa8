"""What the tests of the kernel share: an assembler, a fake device, nodes and a network.

Nothing here is physics but `Link`, which answers entanglement attempts of two devices with
one verdict for both and measures Bell states ideally. Everything is deterministic: random
numbers come from the generator a test passes in.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from random import Random
from typing import Final, NamedTuple

import numpy as np
from netqasm.backend import messages as sdk
from netqasm.lang.instr.flavour import NVFlavour, VanillaFlavour
from netqasm.lang.parsing.text import parse_text_subroutine

from qnodeos.api.host import ArrayResult, ErrorReport, HostReply, RegisterResult
from qnodeos.api.netqasm import INSTRUCTION_BYTES, Flavour
from qnodeos.api.peer import PeerMessage
from qnodeos.errors import UnsupportedInstructionError
from qnodeos.limits import Limits
from qnodeos.qdevice import instructions as physical
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Axis, Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import OUTCOME_OF_HERALD, BellState, Outcome
from qnodeos.qnpu.execution import WAIT
from qnodeos.qnpu.isa import CORE, FLAVOURS
from qnodeos.qnpu.kernel import Kernel, KernelConfig
from qnodeos.qnpu.process import NETWORK_PID, ProcessState
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.qnpu.scheduler import SchedulingPolicy
from qnodeos.trace.events import PRODUCE_EVENT, Event

# --- programs -------------------------------------------------------------------------


@cache
def assemble(text: str, flavour: Flavour = Flavour.VANILLA) -> bytes:
    """The body of a subroutine, from NetQASM text, by netqasm's own parser."""
    parser = NVFlavour() if flavour is Flavour.NV else VanillaFlavour()
    subroutine = parse_text_subroutine("# NETQASM 0.10\n# APPID 0\n" + text, flavour=parser)
    return b"".join(bytes(instruction.serialize()) for instruction in subroutine.instructions)


def encode(*instructions: tuple[str | int, ...], flavour: Flavour = Flavour.VANILLA) -> bytes:
    """The body of a subroutine from (mnemonic, operands...), including nonsensical ones."""
    table = {name: (code, layout) for code, (name, layout) in CORE.items()}
    table |= {name: (code, layout) for code, (name, layout) in FLAVOURS[flavour].items()}
    body = b""
    for mnemonic, *operands in instructions:
        code, layout = table[str(mnemonic)]
        packed = bytes([code]) + struct.pack(layout.format, *operands)
        body += packed.ljust(INSTRUCTION_BYTES, b"\0")
    return body


def register(name: str) -> int:
    """Encoded byte of a register: R0 is 0, Q0 is 2."""
    return "RCQM".index(name[0]) | int(name[1:]) << 2


def init_app(app_id: int, max_qubits: int = 3) -> bytes:
    """The SDK's message that registers a program."""
    return bytes(sdk.InitNewAppMessage(app_id=app_id, max_qubits=max_qubits))


def open_socket(app_id: int, socket_id: int, remote_node: int, remote_socket: int) -> bytes:
    """The SDK's message that opens an ER socket."""
    return bytes(
        sdk.OpenEPRSocketMessage(
            app_id=app_id,
            epr_socket_id=socket_id,
            remote_node_id=remote_node,
            remote_epr_socket_id=remote_socket,
            min_fidelity=50,
        )
    )


def stop_app(app_id: int) -> bytes:
    """The SDK's message that ends a program."""
    return bytes(sdk.StopAppMessage(app_id=app_id))


def submit(app_id: int, program: str | bytes, flavour: Flavour = Flavour.VANILLA) -> bytes:
    """A subroutine message from text or from the bytes of its body."""
    body = assemble(program, flavour) if isinstance(program, str) else program
    return struct.pack("<BBBH", 2, 0, 10, app_id) + body


def create_epr(
    *,
    remote: int = 2,
    socket: int = 0,
    pairs: int = 1,
    virtuals: Sequence[int] | None = None,
    arguments: dict[int, int] | None = None,
    base: int = 0,
    wait: bool = True,
) -> str:
    """A create request; its results are array ``base``, returned if it waits for them."""
    return _request("create_epr C0 C1 C2 C3 C4", **locals())


def recv_epr(
    *,
    remote: int = 1,
    socket: int = 0,
    pairs: int = 1,
    virtuals: Sequence[int] | None = None,
    base: int = 0,
    wait: bool = True,
) -> str:
    """A receive request; its results are array ``base``, returned if it waits for them."""
    return _request("recv_epr C0 C1 C2 C4", arguments=None, **locals())


def measure_directly(**more: int) -> dict[int, int]:
    """Arguments of a measure-directly request; names are those of `_ARGUMENT`."""
    return {0: 1} | {_ARGUMENT[name]: value for name, value in more.items()}


_ARGUMENT: Final = {
    "random_local": 2,
    "random_remote": 3,
    "time_unit": 5,
    "max_time": 6,
    **{f"local_{i}": 14 + i for i in range(3)},
    **{f"remote_{i}": 17 + i for i in range(3)},
    "local_axes": 20,
    "remote_axes": 21,
}


def _request(
    instruction: str,
    *,
    remote: int,
    socket: int,
    pairs: int,
    virtuals: Sequence[int] | None,
    arguments: dict[int, int] | None,
    base: int,
    wait: bool,
) -> str:
    lines = [f"array {10 * pairs} @{base}", f"array {pairs} @{base + 1}"]
    names = range(pairs) if virtuals is None else virtuals
    lines += [f"store {virtual} @{base + 1}[{i}]" for i, virtual in enumerate(names)]
    lines.append(f"array 22 @{base + 2}")
    for index, value in ({1: pairs} | (arguments or {})).items():
        lines.append(f"store {value} @{base + 2}[{index}]")
    operands = (remote, socket, base + 1, base + 2, base)
    lines += [f"set C{i} {value}" for i, value in enumerate(operands)]
    lines.append(instruction)
    if wait:
        lines += [f"wait_all @{base}[0:{10 * pairs}]", f"ret_arr @{base}"]
    return "\n".join(lines) + "\n"


# --- the device and its driver --------------------------------------------------------

CAPABILITIES: Final = Capabilities(
    name="fake",
    communication_qubits=(0, 1, 2),
    memory_qubits=(),
    instructions=frozenset(Opcode),
    tick_ns=10_000,
)

GATES: Final[dict[str, tuple[tuple[Axis, int], ...]]] = {
    "x": ((Axis.X, 16),),
    "y": ((Axis.Y, 16),),
    "z": ((Axis.Z, 16),),
    "h": ((Axis.Y, 8), (Axis.X, 16)),
    "s": ((Axis.Z, 8),),
    "k": ((Axis.X, 8), (Axis.Z, 8)),
    "t": ((Axis.Z, 4),),
}
TWO_QUBIT_STEPS: Final = {"cnot": (Axis.X, 8), "cphase": (Axis.Z, 8)}


class FakeDriver:
    """A QDriver that can do everything on a grid of pi/16; a rotation by 0 is nothing."""

    def __init__(self, capabilities: Capabilities = CAPABILITIES) -> None:
        self._capabilities = capabilities
        self.corrections: list[tuple[BellState, int]] = []

    @property
    def capabilities(self) -> Capabilities:
        return self._capabilities

    @staticmethod
    def _steps(numerator: int, exponent: int) -> int:
        if exponent > 4:
            raise UnsupportedInstructionError(f"angle {numerator} pi/2^{exponent}")
        return (numerator << 4 - exponent) % 32

    def initialise(self, qubit: int) -> Sequence[PhysicalInstruction]:
        return [physical.ini(qubit)]

    def rotate(
        self, axis: Axis, numerator: int, exponent: int, qubit: int
    ) -> Sequence[PhysicalInstruction]:
        steps = self._steps(numerator, exponent)
        return [physical.sqg(axis, steps, qubit)] if steps else []

    def gate(self, mnemonic: str, qubit: int) -> Sequence[PhysicalInstruction]:
        return [physical.sqg(axis, steps, qubit) for axis, steps in GATES[mnemonic]]

    def controlled_rotate(
        self, axis: Axis, numerator: int, exponent: int, control: int, target: int
    ) -> Sequence[PhysicalInstruction]:
        steps = self._steps(numerator, exponent)
        return [physical.tqg(axis, steps, control, target)] if steps else []

    def two_qubit_gate(
        self, mnemonic: str, first: int, second: int
    ) -> Sequence[PhysicalInstruction]:
        if mnemonic == "mov":
            return [physical.mov(first, second)]
        if mnemonic == "swp":
            return [physical.swp(first, second)]
        axis, steps = TWO_QUBIT_STEPS[mnemonic]
        return [physical.tqg(axis, steps, first, second), physical.sqg(axis, 32 - steps, second)]

    def measure(self, qubit: int) -> Sequence[PhysicalInstruction]:
        return [physical.msr(qubit)]

    def entangle(self, link: int, qubit: int) -> PhysicalInstruction:
        return physical.ent(link, qubit)

    def entangle_and_measure(self, link: int, qubit: int) -> PhysicalInstruction:
        return physical.enm(link, qubit)

    def measurement_basis(
        self, rotations: Sequence[tuple[Axis, int]], qubit: int
    ) -> Sequence[PhysicalInstruction]:
        return [
            physical.pmg(axis, steps, qubit, append=number > 0)
            for number, (axis, steps) in enumerate(rotations or [(Axis.X, 0)])
        ]

    def correct(self, state: BellState, qubit: int) -> Sequence[PhysicalInstruction]:
        self.corrections.append((state, qubit))
        gates = {
            BellState.PHI_PLUS: "",
            BellState.PSI_PLUS: "x",
            BellState.PHI_MINUS: "z",
            BellState.PSI_MINUS: "xz",
        }
        return [instruction for name in gates[state] for instruction in self.gate(name, qubit)]


class Answer(NamedTuple):
    """What the device reports of an instruction."""

    outcome: Outcome
    herald: BellState | None = None


SUCCESS: Final = Answer(Outcome.SUCCESS_ZERO)


class FakeDevice:
    """Takes one instruction at a time and answers it some ticks later.

    Attributes:
        ticks: time from sending an instruction to its outcome, unless a link decides.
        answers: what to answer, from the instruction; `SUCCESS` unless a test says more.
        measurements: results of the next MSRs; 0 when they run out.
        log: (tick, instruction) of everything received.
        link: decides what becomes of ENT and ENM; without one they are just answered.
    """

    def __init__(self, ticks: int = 1) -> None:
        self.ticks = ticks
        self.answers: Callable[[PhysicalInstruction], Answer] = self._measure
        self.measurements: deque[int] = deque()
        self.log: list[tuple[int, PhysicalInstruction]] = []
        self.link: Link | None = None
        self.busy: PhysicalInstruction | None = None
        self.since_tick = 0
        self.due_tick: int | None = None
        self.answer = SUCCESS
        self.basis: list[tuple[Axis, int]] = []

    def _measure(self, instruction: PhysicalInstruction) -> Answer:
        if instruction.opcode is Opcode.MSR and self.measurements:
            bit = self.measurements.popleft()
            return Answer(Outcome.SUCCESS_ONE if bit else Outcome.SUCCESS_ZERO)
        return SUCCESS

    @property
    def instructions(self) -> list[PhysicalInstruction]:
        """Everything received, without the times."""
        return [instruction for _, instruction in self.log]

    def send(self, tick: int, instruction: PhysicalInstruction) -> None:
        """Take an instruction; there must be none outstanding."""
        assert self.busy is None, f"{instruction} was sent while {self.busy} is outstanding"
        self.log.append((tick, instruction))
        self.busy = instruction
        self.since_tick = tick
        if instruction.opcode is Opcode.PMG:
            if not instruction.other:
                self.basis = []
            self.basis.append((instruction.axis, instruction.steps))
        if self.link is not None and instruction.opcode in (Opcode.ENT, Opcode.ENM):
            self.link.attempt(self, tick)
        else:
            self.due_tick = tick + self.ticks
            self.answer = self.answers(instruction)

    def poll(self, tick: int) -> Answer | None:
        """The answer, if it is due."""
        if self.due_tick is None or tick < self.due_tick:
            return None
        self.busy = self.due_tick = None
        return self.answer


PAULI: Final = {
    Axis.X: np.array([[0, 1], [1, 0]], dtype=complex),
    Axis.Y: np.array([[0, -1j], [1j, 0]]),
    Axis.Z: np.diag([1, -1]).astype(complex),
}
BELL: Final = {
    BellState.PHI_PLUS: np.array([1, 0, 0, 1]) / np.sqrt(2),
    BellState.PSI_PLUS: np.array([0, 1, 1, 0]) / np.sqrt(2),
    BellState.PSI_MINUS: np.array([0, 1, -1, 0]) / np.sqrt(2),
    BellState.PHI_MINUS: np.array([1, 0, 0, -1]) / np.sqrt(2),
}


def rotation(rotations: Sequence[tuple[Axis, int]]) -> np.ndarray:
    """The unitary of rotations (axis, steps of pi/16) in order of time, shape (2, 2)."""
    unitary = np.eye(2, dtype=complex)
    for axis, steps in rotations:
        half = steps * np.pi / 32
        unitary = (np.cos(half) * np.eye(2) - 1j * np.sin(half) * PAULI[axis]) @ unitary
    return unitary


def outcome_probabilities(
    state: BellState, first: Sequence[tuple[Axis, int]], second: Sequence[tuple[Axis, int]]
) -> np.ndarray:
    """Probabilities of 00, 01, 10, 11 after rotating both halves, shape (4,)."""
    amplitudes = np.kron(rotation(first), rotation(second)) @ BELL[state]
    probabilities: np.ndarray = np.abs(amplitudes) ** 2
    return probabilities


class Verdict(NamedTuple):
    """What becomes of one batch of attempts: does each device see a herald, and which."""

    first: bool = True
    second: bool = True
    bell_state: BellState = BellState.PSI_PLUS


FAILED: Final = Verdict(False, False)


class Link:
    """Joins two devices: attempts that meet are answered together, others do not sync.

    Args:
        decide: the verdict on each batch, in turn.
        rng: draws the measurement results of ENM.
        batch_ticks: how long a batch takes once both devices attempt.
        patience_ticks: how long a device waits for its neighbour.
    """

    def __init__(
        self,
        first: FakeDevice,
        second: FakeDevice,
        decide: Callable[[], Verdict],
        rng: Random,
        batch_ticks: int = 3,
        patience_ticks: int = 10,
    ) -> None:
        self._devices = first, second
        self._decide = decide
        self._rng = rng
        self._batch_ticks = batch_ticks
        self._patience_ticks = patience_ticks
        self.verdicts: list[Verdict] = []
        first.link = second.link = self

    def attempt(self, device: FakeDevice, tick: int) -> None:
        """A device starts a batch."""
        other = self._devices[1 - self._devices.index(device)]
        meets = (
            other.busy is not None
            and other.busy.opcode in (Opcode.ENT, Opcode.ENM)
            and other.answer.outcome is Outcome.ENTANGLEMENT_SYNC_FAILURE
            and other.due_tick is not None
            and tick < other.due_tick
        )
        if not meets:
            device.due_tick = tick + self._patience_ticks
            device.answer = Answer(Outcome.ENTANGLEMENT_SYNC_FAILURE)
            return
        verdict = self._decide()
        self.verdicts.append(verdict)
        first, second = self._devices
        weights = outcome_probabilities(verdict.bell_state, first.basis, second.basis)
        [drawn] = self._rng.choices(range(4), weights=[float(weight) for weight in weights])
        for end, success, bit in zip(self._devices, verdict[:2], divmod(drawn, 2), strict=True):
            end.due_tick = tick + self._batch_ticks
            end.answer = self._answer(end, success, verdict.bell_state, bit)

    @staticmethod
    def _answer(device: FakeDevice, success: bool, state: BellState, bit: int) -> Answer:
        if not success:
            return Answer(Outcome.ENTANGLEMENT_FAILURE)
        assert device.busy is not None
        if device.busy.opcode is Opcode.ENT:
            return Answer(OUTCOME_OF_HERALD[state])
        return Answer(Outcome.SUCCESS_ONE if bit else Outcome.SUCCESS_ZERO, state)


# --- nodes ----------------------------------------------------------------------------


class Record(NamedTuple):
    """One event of a trace."""

    tick: int
    event: Event
    pid: int
    detail: int


class WatchingTrace:
    """Keeps every event, and checks at each that the scheduler is non-pre-emptive."""

    def __init__(self) -> None:
        self.records: list[Record] = []
        self.kernel: Kernel | None = None
        self._active: int | None = None

    def record(self, time: int, event: int, process: int = 0, detail: int = 0) -> None:
        record = Record(time, Event(event), process, detail)
        self.records.append(record)
        if self._active == NETWORK_PID and self._has_network_left(record):
            self._active = None
        if record.event in _STARTS:
            assert self._active is None, f"{record} while process {self._active} is running"
            self._active = process
        elif record.event in _PRODUCES:
            assert self._active == process, f"{record} while process {self._active} is running"
        elif record.event in _ENDS and self._active == process:
            self._active = None

    def _has_network_left(self, record: Record) -> bool:
        # The real system has no event for a network process that starts to wait.
        assert self.kernel is not None
        waits = self.kernel.network.state is ProcessState.WAITING
        return waits or record.event is Event.SCHEDULER_ARRIVE_NET_PROCESS

    def events(self, *which: Event) -> list[Record]:
        """The records of some kinds of event."""
        return [record for record in self.records if record.event in which]


_STARTS: Final = {Event.PROCESSOR_START_USER_PROCESS, Event.PROCESSOR_START_NET_PROCESS}
_PRODUCES: Final = set(PRODUCE_EVENT.values())
_ENDS: Final = {
    Event.PROCESSOR_WAIT_USER_PROCESS,
    Event.PROCESSOR_FINISH_USER_PROCESS,
    Event.PROCESSOR_FINISH_NET_PROCESS,
    Event.PROCMGR_SUBROUTINE_ABORTED,
}


@dataclass
class Node:
    """A kernel with a fake device, and the CNPU's view of it."""

    kernel: Kernel
    driver: FakeDriver
    device: FakeDevice
    trace: WatchingTrace
    replies: dict[int, HostReply] = field(default_factory=dict)
    sent: int = 0
    tick: int = 0
    inbox: list[Callable[[int], None]] = field(default_factory=list)
    next_tick: int | None = 0

    def post(self, raw: bytes, client: int = 1) -> int:
        """Send a host message; it arrives at the next tick. Returns its number."""
        request = self.sent
        self.sent += 1
        self.inbox.append(lambda tick: self.kernel.host_message(client, request, raw, tick))
        return request

    def close(self, client: int = 1) -> None:
        """Close a client's connection; the kernel hears of it at the next tick."""
        self.inbox.append(lambda tick: self.kernel.client_closed(client, tick))

    def step(self, tick: int) -> None:
        """Run one tick: outcome, messages, kernel, instruction."""
        self.tick = tick
        answer = self.device.poll(tick)
        arrived, self.inbox = self.inbox, []
        for deliver in arrived:
            deliver(tick)
        instruction = self.kernel.tick(tick) if answer is None else self.kernel.tick(tick, *answer)
        if instruction is not None:
            self.device.send(tick, instruction)
        for reply in self.kernel.host_outbox:
            assert reply.request not in self.replies, f"a second reply: {reply}"
            self.replies[reply.request] = reply
        self.kernel.host_outbox.clear()
        self.next_tick = self.kernel.next_tick(tick)
        assert self.next_tick is None or self.next_tick > tick

    def due(self) -> int | None:
        """The next tick at which this node has something to do."""
        candidates = [self.next_tick, self.device.due_tick]
        if self.inbox:
            candidates.append(self.tick + 1)
        return min((tick for tick in candidates if tick is not None), default=None)

    # --- what came of it --------------------------------------------------------------

    def error(self, request: int) -> ErrorReport:
        """The error a request was answered with."""
        error = self.replies[request].error
        assert error is not None, f"request {request} succeeded: {self.replies[request]}"
        return error

    def results(self, request: int) -> tuple[RegisterResult | ArrayResult, ...]:
        """The results of a subroutine that succeeded."""
        reply = self.replies[request]
        assert reply.error is None, reply.error
        return reply.results

    def values(self, request: int) -> list[int]:
        """The values of the registers a subroutine returned."""
        results = self.results(request)
        return [result.value for result in results if isinstance(result, RegisterResult)]

    def array(self, request: int, number: int = 0) -> tuple[int | None, ...]:
        """One of the arrays a subroutine returned."""
        arrays = [r for r in self.results(request) if isinstance(r, ArrayResult)]
        return arrays[number].values

    # --- invariants -------------------------------------------------------------------

    def check_owners(self) -> None:
        """No physical qubit has two owners, and each is where its owner sees it."""
        kernel = self.kernel
        owned = Counter[int](kernel.qmmu.owned(NETWORK_PID))
        for pid in kernel.processes:
            mine = kernel.qmmu.owned(pid)
            owned.update(mine)
            mapped = [kernel.qmmu.physical(pid, virtual) for virtual in range(256)]
            assert sorted(q for q in mapped if q is not None) == sorted(mine)
        free = kernel.qmmu.free_qubits()
        assert sorted([*owned.elements(), *free]) == sorted(self.driver.capabilities.qubits)

    def check_states(self) -> None:
        """The scheduler's list, the states of the processes and their work agree."""
        kernel = self.kernel
        processes = [kernel.network, *kernel.processes.values()]
        ready = [process for process in processes if process.state is ProcessState.READY]
        assert sorted(p.pid for p in kernel.scheduler.ready) == sorted(p.pid for p in ready)
        assert sum(process.state is ProcessState.RUNNING for process in processes) <= 1
        for process in kernel.processes.values():
            assert process.state is not ProcessState.ENDED
            if process.state is ProcessState.IDLE:
                assert process.current is None
                assert not process.pending

    def check_waiters(self) -> None:
        """Nobody waits whose condition holds: call it only when nothing is going on."""
        for process in self.kernel.processes.values():
            assert process.state in (ProcessState.IDLE, ProcessState.WAITING), process.state
            if process.state is ProcessState.WAITING:
                assert process.execution.run() == WAIT, process.execution.waiting_for

    def check_clean(self) -> None:
        """Nothing is left of any program."""
        kernel = self.kernel
        assert not kernel.processes
        assert not kernel.scheduler.ready
        assert kernel.qmmu.free_qubits() == list(self.driver.capabilities.qubits)
        assert kernel.network.state is ProcessState.IDLE
        assert self.device.busy is None
        assert len(self.replies) == self.sent
        # Nothing public shows these; a leak in them would show only after hours.
        assert not kernel._qubit_waiters
        assert not kernel.entanglement._sockets
        assert not kernel.entanglement._outstanding
        for link in kernel.link_layer.links.values():
            assert not link.queue
            assert not link.announced
            assert not link.offers


BIN_TICKS: Final = 100


def make_node(
    node_id: int = 1,
    peers: dict[int, int] | None = None,
    *,
    flavour: Flavour = Flavour.VANILLA,
    capabilities: Capabilities = CAPABILITIES,
    limits: Limits | None = None,
    device_ticks: int = 1,
    random_choice: Callable[[int], int] = lambda below: 0,
    policy: SchedulingPolicy | None = None,
    dispatch_ticks: int = 0,
    schedule: NetworkSchedule | None = None,
) -> Node:
    """A node; its neighbour is node 2 (or 1, if it is node 2), over link 0."""
    peers = {3 - node_id: 0} if peers is None else peers
    driver, trace = FakeDriver(capabilities), WatchingTrace()
    config = KernelConfig(
        node_id, flavour, peers, dispatch_ticks, limits if limits is not None else Limits()
    )
    kernel = Kernel(config, driver, trace, random_choice, policy)
    trace.kernel = kernel
    kernel.install_schedule(
        schedule
        if schedule is not None
        else NetworkSchedule(
            bin_ticks=BIN_TICKS, guard_ticks=5, batch_ticks=15, pattern=tuple(peers)
        )
    )
    return Node(kernel, driver, FakeDevice(device_ticks), trace)


class Lab:
    """Nodes 1, 2, ... and the classical network between them, in virtual time.

    Args:
        delay: ticks the next peer message takes; those between two nodes stay in order.
        every_tick: run every tick; otherwise only those at which something is due.
    """

    def __init__(
        self,
        *nodes: Node,
        delay: Callable[[], int] = lambda: 3,
        every_tick: bool = False,
    ) -> None:
        self.nodes = dict(enumerate(nodes, start=1))
        self.tick = -1
        self.messages: list[tuple[int, int, int, PeerMessage]] = []
        self.sent: list[tuple[int, int, PeerMessage]] = []
        self._delay = delay
        self._every_tick = every_tick
        self._arrivals: dict[tuple[int, int], int] = {}
        self._actions: list[tuple[int, Callable[[], None]]] = []

    def at(self, tick: int, action: Callable[[], object]) -> None:
        """Do something just before a tick."""
        self._actions.append((tick, lambda: (action(), None)[1]))
        self._actions.sort(key=lambda entry: entry[0])

    def run(self, ticks: int = 1_000) -> None:
        """Run until ``ticks`` from now, or until nothing is left to do."""
        end = self.tick + ticks
        while True:
            following = self._following()
            if following is None or following > end:
                break
            self.step(following)
        self.tick = end

    def settle(self, ticks: int = 50_000) -> None:
        """Run until nothing is left to do."""
        end = self.tick + ticks
        while (following := self._following(idle=True)) is not None:
            assert following <= end, "the nodes do not come to rest"
            self.step(following)

    def step(self, tick: int) -> None:
        """Run one tick at all nodes that have something to do."""
        self.tick = tick
        while self._actions and self._actions[0][0] <= tick:
            self._actions.pop(0)[1]()
        arrived = [m for m in self.messages if m[0] <= tick]
        self.messages = [m for m in self.messages if m[0] > tick]
        for _, source, destination, message in arrived:
            self._deliver(source, destination, message)
        for node_id, node in self.nodes.items():
            due = node.due()
            if not (self._every_tick or node.inbox or (due is not None and due <= tick)):
                continue
            node.step(tick)
            node.check_states()
            for peer, message in node.kernel.peer_outbox:
                self._send(node_id, peer, message)
            node.kernel.peer_outbox.clear()

    def _deliver(self, source: int, destination: int, message: PeerMessage) -> None:
        kernel = self.nodes[destination].kernel
        self.nodes[destination].inbox.append(
            lambda tick: kernel.peer_message(source, message, tick)
        )

    def _send(self, source: int, destination: int, message: PeerMessage) -> None:
        self.sent.append((source, destination, message))
        if destination not in self.nodes:
            return
        way = source, destination
        arrival = max(self.tick + self._delay(), self._arrivals.get(way, 0))
        self._arrivals[way] = arrival
        self.messages.append((arrival, source, destination, message))

    def _following(self, *, idle: bool = False) -> int | None:
        candidates = [message[0] for message in self.messages]
        candidates += [tick for tick, _ in self._actions]
        for node in self.nodes.values():
            due = node.due()
            if due is not None:
                candidates.append(due)
        if not candidates:
            return None if idle or not self._every_tick else self.tick + 1
        return self.tick + 1 if self._every_tick else max(min(candidates), self.tick + 1)

    def check_clean(self) -> None:
        """Close every connection, let things settle, and find nothing left."""
        for node in self.nodes.values():
            for client in {process.owner[0] for process in node.kernel.processes.values()}:
                node.close(client)
        self.settle()
        for node in self.nodes.values():
            node.check_owners()
            node.check_clean()


def solo(node: Node) -> Lab:
    """A node alone."""
    return Lab(node)


def pair(
    decide: Callable[[], Verdict] = Verdict,
    *,
    seed: int = 1,
    delay: Callable[[], int] = lambda: 3,
    every_tick: bool = False,
    batch_ticks: int = 3,
    **options: object,
) -> tuple[Lab, Node, Node, Link]:
    """Two neighbours, nodes 1 and 2, whose devices are linked."""
    rng = Random(seed)
    first = make_node(1, random_choice=rng.randrange, **options)  # type: ignore[arg-type]
    second = make_node(2, random_choice=rng.randrange, **options)  # type: ignore[arg-type]
    link = Link(first.device, second.device, decide, rng, batch_ticks)
    return Lab(first, second, delay=delay, every_tick=every_tick), first, second, link


def verdicts(*given: Verdict, then: Verdict = FAILED) -> Callable[[], Verdict]:
    """Verdicts in turn, and what comes after them."""
    turns: Iterator[Verdict] = iter(given)
    return lambda: next(turns, then)
