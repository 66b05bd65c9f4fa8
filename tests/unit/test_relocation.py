"""Qubits are moved away to make room for the next pair, and nobody notices.

Every qubit of the fake devices holds a token, so that it is seen where each state is: the
number of the pair it is half of, or the name of the program that initialised it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from random import Random

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from qnodeos.api.peer import Announce, EntanglementType, PairLost
from qnodeos.limits import Limits
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction, mov
from qnodeos.qdevice.outcomes import BellState, Outcome
from qnodeos.qnpu.process import NETWORK_PID
from tests.unit.kernel_device import FAILED, Answer, Verdict
from tests.unit.kernel_harness import BIN_TICKS, Node, pair
from tests.unit.kernel_programs import create_epr, init_app, open_socket, recv_epr, submit

ELECTRON, FIRST_MEMORY = 0, 1
Token = int | str


def device_with(memories: int) -> Capabilities:
    """An electron, and memories."""
    return Capabilities(
        name="fake",
        communication_qubits=(ELECTRON,),
        memory_qubits=tuple(range(FIRST_MEMORY, FIRST_MEMORY + memories)),
        instructions=frozenset(Opcode),
        tick_ns=10_000,
    )


class Tokens:
    """What each qubit of a device holds, by following the instructions it gets.

    Attributes:
        measured: (process id, token) of every measurement of a program.
        moves: how often a qubit was moved by the network process.
    """

    def __init__(self, node: Node) -> None:
        self.node = node
        self.held: dict[int, Token] = {}
        self.measured: list[tuple[int, Token]] = []
        self.moves = 0
        self._send, self._poll = node.device.send, node.device.poll
        node.device.send = self.send  # type: ignore[method-assign]
        node.device.poll = self.poll  # type: ignore[method-assign]

    def send(self, tick: int, instruction: PhysicalInstruction) -> None:
        process = self.node.kernel._processor.in_flight
        assert process is not None
        self._follow(process.pid, instruction)
        self._send(tick, instruction)

    def _follow(self, pid: int, instruction: PhysicalInstruction) -> None:
        qubit, qmmu = instruction.qubit, self.node.kernel.qmmu
        if instruction.opcode is Opcode.MOV:
            assert pid == NETWORK_PID
            assert qmmu.owner(instruction.other) == NETWORK_PID
            self.held[instruction.other] = self.held.pop(qubit)
            self.moves += 1
            return
        assert qmmu.owner(qubit) == pid, instruction
        if instruction.opcode is Opcode.INI:
            self.held[qubit] = f"program {pid}"
        elif instruction.opcode is Opcode.MSR:
            self.measured.append((pid, self.held[qubit]))
        elif instruction.opcode is Opcode.SQG:
            assert qubit in self.held

    def poll(self, tick: int) -> Answer | None:
        device = self.node.device
        busy, answer = device.busy, self._poll(tick)
        if answer is not None and busy is not None and busy.opcode is Opcode.ENT:
            assert device.link is not None
            self.held.pop(busy.qubit, None)  # every attempt destroys what was there
            if answer.outcome.is_success:
                self.held[busy.qubit] = sum(each.first for each in device.link.verdicts) - 1
        return answer


def start(node: Node, remote: int, number: int = 0, max_qubits: int = 4, client: int = 1) -> None:
    """Register application 0 of a client, and open its socket of a number."""
    node.post(init_app(0, max_qubits), client)
    node.post(open_socket(0, number, remote, number), client)


MEASURE = "meas Q0 M0\nqfree Q0\n"


def measure_all(virtuals: list[int]) -> str:
    return "".join(f"set Q0 {virtual}\n{MEASURE}" for virtual in virtuals)


# --- one after the other --------------------------------------------------------------


def test_pairs_that_are_kept_at_once_need_a_memory_each():
    lab, first, second, _ = pair(Verdict, capabilities=device_with(2))
    tokens = Tokens(first), Tokens(second)
    start(first, 2)
    start(second, 1)
    virtuals = [2, 0, 1]
    options = {"pairs": 3, "virtuals": virtuals}
    created = first.post(submit(0, create_epr(**options) + measure_all(virtuals)))  # type: ignore[arg-type]
    received = second.post(submit(0, recv_epr(**options) + measure_all(virtuals)))  # type: ignore[arg-type]
    lab.run(2_000)
    for node, request, seen in zip((first, second), (created, received), tokens, strict=True):
        assert node.array(request)[4::10] == (0, 1, 2)
        assert seen.measured == [(1, 0), (1, 1), (1, 2)]
        moves = [each for each in node.device.instructions if each.opcode is Opcode.MOV]
        assert moves == [mov(ELECTRON, 1), mov(ELECTRON, 2)]
    lab.check_clean()


def test_a_pair_nobody_has_received_makes_room_for_the_next():
    lab, first, second, _ = pair(Verdict, capabilities=device_with(2))
    tokens = Tokens(first), Tokens(second)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr(pairs=2)))
    lab.run(4 * BIN_TICKS)
    assert first.array(created)[4::10] == (0, 1)
    assert second.kernel.entanglement.keeper(1) is not None
    received = second.post(submit(0, recv_epr(pairs=2) + measure_all([0, 1])))
    lab.run(BIN_TICKS)
    assert second.array(received)[4::10] == (0, 1)
    assert tokens[1].measured == [(1, 0), (1, 1)]
    assert tokens[1].moves == 1
    lab.check_clean()


def test_the_qubit_of_another_program_is_moved():
    """It waits for its host, and goes on with the qubit as if nothing had happened."""
    lab, first, second, _ = pair(Verdict, capabilities=device_with(1))
    tokens = Tokens(first)
    first.post(init_app(0), 9)
    first.post(submit(0, "qalloc Q0\ninit Q0\n"), 9)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr() + measure_all([0])))
    second.post(submit(0, recv_epr()))
    lab.run(4 * BIN_TICKS)
    assert first.array(created)[4] == 0
    assert tokens.moves == 1
    assert first.kernel.qmmu.physical(1, 0) == FIRST_MEMORY
    first.post(submit(0, MEASURE), 9)
    lab.run(BIN_TICKS)
    assert tokens.measured == [(2, 0), (1, "program 1")]
    lab.check_clean()


def test_a_measured_pair_makes_room_too():
    lab, first, second, _ = pair(Verdict, capabilities=device_with(1))
    Tokens(first)
    first.post(init_app(0), 9)
    first.post(submit(0, "qalloc Q0\ninit Q0\n"), 9)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr(arguments={0: 1})))
    second.post(submit(0, recv_epr(measured=True)))
    lab.run(4 * BIN_TICKS)
    assert first.array(created)[5] == 0
    lab.check_clean()


# --- when it cannot be done -----------------------------------------------------------


def test_a_bin_is_blocked_only_if_there_is_no_memory_either():
    lab, first, second, _ = pair(Verdict, capabilities=device_with(1))
    first.post(init_app(0), 9)
    first.post(submit(0, "qalloc Q0\ninit Q0\nset Q0 1\nqalloc Q0\n"), 9)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr()))
    lab.run(4 * BIN_TICKS)
    assert created not in first.replies
    assert first.kernel.statistics().bins_blocked == 3
    first.post(submit(0, "set Q0 1\nqfree Q0\n"), 9)
    lab.run(2 * BIN_TICKS)
    assert first.array(created)[4] == 0
    lab.check_clean()


@pytest.mark.parametrize("owner", ["program", "socket"])
def test_a_move_that_fails_ends_the_program_whose_qubit_it_was(owner):
    lab, first, second, _ = pair(Verdict, capabilities=device_with(2))
    node = first if owner == "program" else second
    node.device.answers = lambda instruction: Answer(
        Outcome.HARDWARE_FAILURE if instruction.opcode is Opcode.MOV else Outcome.SUCCESS_ZERO
    )
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr(pairs=2)))
    if owner == "program":
        second.post(submit(0, recv_epr(pairs=2)))
    lab.run(6 * BIN_TICKS)
    late = node.post(submit(0, "ret_reg R0"))
    lab.run(BIN_TICKS)
    assert "HARDWARE_FAILURE when a qubit of the program was moved" in node.error(late).text
    assert node.kernel.qmmu.free_qubits() == [ELECTRON, FIRST_MEMORY, FIRST_MEMORY + 1]
    lab.check_clean()


def test_a_program_may_end_while_its_qubit_is_moved():
    lab, first, second, _ = pair(Verdict, capabilities=device_with(1), device_ticks=20)
    first.post(init_app(0), 9)
    first.post(submit(0, "qalloc Q0\ninit Q0\n"), 9)
    start(first, 2)
    start(second, 1)
    created = first.post(submit(0, create_epr()))
    second.post(submit(0, recv_epr()))
    lab.run(BIN_TICKS + 10)
    assert first.device.busy == mov(ELECTRON, FIRST_MEMORY)
    first.close(9)
    lab.run(3 * BIN_TICKS)
    assert first.array(created)[4] == 0
    assert first.kernel.qmmu.free_qubits() == [FIRST_MEMORY]
    lab.check_clean()


def test_an_announcement_while_a_qubit_is_moved_is_of_no_attempt():
    lab, first, second, _ = pair(Verdict, capabilities=device_with(1), device_ticks=20)
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr(pairs=2)))
    received = second.post(submit(0, recv_epr(pairs=2)))

    def moves() -> bool:
        busy = second.device.busy
        return busy is not None and busy.opcode is Opcode.MOV

    while not moves():
        lab.run(1)
    announce = Announce(9, 4, 0, BellState.PHI_PLUS, 10_000)
    second.inbox.append(lambda tick: second.kernel.peer_message(1, announce, tick))
    lab.run(2)
    assert moves()
    assert (2, 1, PairLost(9, 4)) in lab.sent
    lab.run(6 * BIN_TICKS)
    assert second.array(received)[4::10] == (0, 1)
    lab.check_clean()


# --- programs that wait for a qubit they keep from coming -----------------------------

HOLD_ALL = "qalloc Q0\nset Q1 1\nqalloc Q1\n"


@pytest.mark.parametrize(
    ("program", "kind", "words"),
    [
        (HOLD_ALL + create_epr(virtuals=[2]), "NoQubitError", "holds all 2 qubits"),
        (HOLD_ALL + create_epr(arguments={0: 1}), "NoQubitError", "holds all 2 qubits"),
        (HOLD_ALL + recv_epr(remote=2, virtuals=[2]), "NoQubitError", "holds all 2 qubits"),
        ("qalloc Q0\n" + create_epr(), "QubitAccessError", "virtual qubit 0, which is already"),
        (create_epr(pairs=2, virtuals=[0, 0]), "QubitAccessError", "virtual qubit 0, which is"),
    ],
)
def test_a_program_that_keeps_what_it_waits_for_is_told(program, kind, words):
    lab, first, second, _ = pair(Verdict, capabilities=device_with(1))
    start(first, 2)
    start(second, 1)
    waiting = first.post(submit(0, program))
    lab.run(6 * BIN_TICKS)
    assert first.error(waiting).kind == kind
    assert words in first.error(waiting).text
    lab.check_clean()


def test_a_program_that_asks_for_more_pairs_than_it_can_hold_is_told():
    lab, first, second, _ = pair(Verdict, capabilities=device_with(1))
    start(first, 2)
    start(second, 1)
    waiting = first.post(submit(0, create_epr(pairs=3)))
    second.post(submit(0, recv_epr(pairs=3)))
    lab.run(6 * BIN_TICKS)
    assert first.error(waiting).kind == "NoQubitError"
    assert "holds all 2 qubits" in first.error(waiting).text
    lab.check_clean()


def test_a_pair_that_nobody_has_asked_for_does_not_take_the_last_of_several_qubits():
    lab, first, second, _ = pair(Verdict, capabilities=device_with(2))
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr(pairs=3)))
    lab.run(6 * BIN_TICKS)
    assert len(second.kernel.qmmu.free_qubits()) == 1
    received = second.post(submit(0, recv_epr(pairs=3)))
    lab.run(6 * BIN_TICKS)
    assert second.array(received)[4::10] == (0, 1, 2)
    lab.check_clean()


def test_a_program_that_holds_all_it_registered_for_is_told():
    lab, first, second, _ = pair(Verdict, capabilities=device_with(3))
    start(first, 2, max_qubits=1)
    start(second, 1)
    waiting = first.post(submit(0, "qalloc Q0\n" + create_epr(virtuals=[1])))
    lab.run(BIN_TICKS)
    assert first.error(waiting).kind == "NoQubitError"
    assert "registered for 1 and holds as many" in first.error(waiting).text
    lab.check_clean()


def test_pairs_not_received_count_as_held():
    """The pair on one socket keeps the only qubit; the program waits on another."""
    lab, first, second, _ = pair(Verdict, capabilities=device_with(0))
    for node, remote in ((first, 2), (second, 1)):
        start(node, remote)
        node.post(open_socket(0, 1, remote, 1))
    first.post(submit(0, create_epr() + "set Q0 0\nqfree Q0\n"))
    lab.run(3 * BIN_TICKS)
    waiting = second.post(submit(0, recv_epr(socket=1)))
    lab.run(BIN_TICKS)
    assert "pairs it has not received included" in second.error(waiting).text
    lab.check_clean()


def test_a_program_may_wait_for_a_pair_that_has_been_measured():
    """Its qubit is free again; the pair comes with the announcement, though all are in use."""
    lab, first, second, _ = pair(Verdict, capabilities=device_with(0), delay=lambda: 30)
    start(first, 2)
    start(second, 1)
    first.post(submit(0, create_epr(arguments={0: 1})))
    received = second.post(submit(0, recv_epr(measured=True, wait=False)))
    lab.run(BIN_TICKS + 12)
    assert second.kernel.qmmu.free_qubits() == [ELECTRON]
    waiting = second.post(submit(0, "qalloc Q0\nwait_all @0[0:10]\nret_arr @0\n"))
    lab.run(BIN_TICKS)
    assert second.replies[received].error is None
    assert second.array(waiting)[5] == 0
    lab.check_clean()


# --- anything at all ------------------------------------------------------------------


@dataclass(frozen=True)
class Part:
    """What the programs of a number do at both nodes.

    Attributes:
        creator: node that creates.
        kind, pairs: of the request.
        sequential: all pairs in the same virtual qubit, one after the other.
        holds: node whose program keeps a qubit of its own meanwhile; 0 for none.
    """

    creator: int
    kind: EntanglementType
    pairs: int
    sequential: bool
    holds: int


PARTS = st.builds(
    Part,
    creator=st.integers(1, 2),
    kind=st.sampled_from(EntanglementType),
    pairs=st.integers(1, 2),
    sequential=st.booleans(),
    holds=st.integers(0, 2),
)


def program_of(part: Part, node_id: int, number: int) -> str:
    """The program of a node: entanglement, then a measurement of everything it holds."""
    creates = part.creator == node_id
    keeps = not (part.kind.creator_measures if creates else part.kind.receiver_measures)
    virtuals = [0] * part.pairs if part.sequential else list(range(part.pairs))
    remote = 3 - node_id
    before = "set Q0 3\nqalloc Q0\ninit Q0\n" if part.holds == node_id else ""
    request = (
        create_epr(
            remote=remote,
            socket=number,
            pairs=part.pairs,
            virtuals=virtuals,
            arguments={0: int(part.kind)},
            wait=False,
        )
        if creates
        else recv_epr(
            remote=remote,
            socket=number,
            pairs=part.pairs,
            virtuals=virtuals,
            wait=False,
            measured=not keeps,
        )
    )
    waits, after = f"wait_all @0[0:{10 * part.pairs}]\n", ""
    if keeps and part.sequential:
        waits = "".join(
            f"wait_all @0[{10 * i}:{10 * (i + 1)}]\nset Q0 0\n{MEASURE}" for i in range(part.pairs)
        )
    elif keeps:
        after = measure_all(virtuals)
    if part.holds == node_id:
        after += f"set Q0 3\n{MEASURE}"
    return f"{before}{request}{waits}{after}ret_arr @0\n"


@settings(max_examples=60)
@given(
    st.lists(PARTS, min_size=1, max_size=3),
    st.integers(0, 2**16),
    st.lists(st.integers(0, 3 * BIN_TICKS), min_size=6, max_size=6),
)
def test_states_follow_their_names_whoever_is_moved(parts, seed, starts):
    """Three programs hold at most three qubits each; there is one more for the next pair."""
    chances = Random(seed)
    states = list(BellState)

    def decide() -> Verdict:
        heralded = chances.random() < 0.5
        return Verdict(bell_state=chances.choice(states)) if heralded else FAILED

    delays = Random(seed + 1)
    lab, first, second, _ = pair(
        decide,
        seed=seed,
        delay=lambda: delays.randint(1, BIN_TICKS // 2),
        capabilities=device_with(3 * len(parts)),
        device_ticks=1 + seed % 3,
        limits=Limits(announcement_timeout_ticks=4 * BIN_TICKS),
    )
    nodes = {1: first, 2: second}
    tokens = {node_id: Tokens(node) for node_id, node in nodes.items()}
    posted: dict[tuple[int, int], int] = {}
    pids: dict[tuple[int, int], int] = {}

    def launch(node_id: int, number: int) -> None:
        node = nodes[node_id]
        start(node, 3 - node_id, number, client=number)
        program = submit(0, program_of(parts[number], node_id, number))
        posted[node_id, number] = node.post(program, number)

    for number in range(len(parts)):
        for node_id in (1, 2):
            lab.at(starts[2 * number + node_id - 1], partial(launch, node_id, number))
    lab.run(80 * BIN_TICKS)
    for (node_id, number), request in posted.items():
        node, part = nodes[node_id], parts[number]
        [pid] = [p.pid for p in node.kernel.processes.values() if p.owner[0] == number]
        pids[node_id, number] = pid
        values = node.array(request)
        creates = part.creator == node_id
        measures = part.kind.creator_measures if creates else part.kind.receiver_measures
        expected: list[Token] = [] if measures else [v or 0 for v in values[4::10]]
        if part.holds == node_id:
            expected.append(f"program {pid}")
        assert [token for who, token in tokens[node_id].measured if who == pid] == expected
    for number, part in enumerate(parts):
        told = []
        for node_id in (1, 2):
            values = nodes[node_id].array(posted[node_id, number])
            creates = part.creator == node_id
            measures = part.kind.creator_measures if creates else part.kind.receiver_measures
            place = 5 if measures else 4
            told.append((values[1::10], values[place::10], values[place + 3 :: 10], values[9::10]))
        assert told[0] == told[1], "create ids, sequence numbers, goodness and Bell states"
    event(f"moves: {min(sum(each.moves for each in tokens.values()), 5)}")
    lab.check_clean()
