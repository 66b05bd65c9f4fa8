"""What must hold of the kernel whatever happens, and in whatever order.

Checked at every step of every example: a physical qubit has at most one owner, and the
states of the processes, the scheduler's list and their work agree (`Node.check_owners`,
`Node.check_states`); a process's physical instructions come only between its dispatch and
its wait or end (`WatchingTrace`); the device has at most one outstanding instruction
(`FakeDevice.send`); no request is answered twice (`Node.step`); no state is left but by
the table (`Process.handle` raises). At the end of every example: every request was
answered, and nothing is left of any program (`Node.check_clean`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from random import Random

from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from qnodeos.api.peer import (
    Accept,
    Announce,
    Cancel,
    EntanglementType,
    Offer,
    PairLost,
    Reject,
    RequestTerms,
    SocketClosed,
    SocketOpened,
)
from qnodeos.limits import Limits
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from qnodeos.qdevice.outcomes import BellState, Outcome
from qnodeos.qnpu.process import ProcessState
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.qnpu.scheduler import POLICIES
from tests.unit.kernel_device import FAILED, Answer, Verdict
from tests.unit.kernel_harness import BIN_TICKS, Lab, Node, make_node, pair
from tests.unit.kernel_programs import (
    create_epr,
    encode,
    init_app,
    keep,
    measure_directly,
    open_socket,
    prepare,
    recv_epr,
    register,
    stop_app,
    submit,
)

LOCAL = "qalloc Q0\ninit Q0\nh Q0\nmeas Q0 M0\nqfree Q0\nret_reg M0\n"
TWICE = LOCAL.replace("ret_reg M0\n", "") + LOCAL
LOOP = encode(
    ("add", register("R0"), register("R0"), register("R1")),
    ("jmp", 0),
)
COUNT = "set R0 0\nset R1 60\nset R2 1\nLOOP:\nadd R0 R0 R2\nblt R0 R1 LOOP\nret_reg R0\n"

# --- one kernel, and a world that does as it likes ------------------------------------

PROGRAMS = [
    "set R0 1\nret_reg R0\n",
    LOCAL,
    TWICE,
    COUNT,
    LOOP,
    "qalloc Q0\ninit Q0\n",
    "qfree Q0\n",
    "set Q0 1\nqalloc Q0\nset Q1 2\nqalloc Q1\ncnot Q0 Q1\n",
    "set Q0 1\nqfree Q0\nset Q1 2\nqfree Q1\n",
    "div R0 R1 R2\n",
    create_epr(),
    create_epr(wait=False),
    create_epr(pairs=2, arguments=measure_directly()),
    create_epr(pairs=2, arguments=prepare(priority=1)),
    create_epr(pairs=2, arguments=measure_directly(consecutive=1), base=50),
    create_epr(pairs=2, virtuals=[1, 1], arguments=keep(priority=2), socket=1, base=60),
    recv_epr(remote=2, pairs=2, measured=True, base=70),
    recv_epr(remote=2, pairs=2, virtuals=[0, 0], base=80, wait=False),
    create_epr(pairs=2, virtuals=[1, 2], socket=1, base=10),
    create_epr(arguments=measure_directly(max_time=2_000), base=20, wait=False),
    recv_epr(remote=2),
    recv_epr(remote=2, socket=1, pairs=2, virtuals=[0, 1], base=30),
    recv_epr(remote=2, base=40, wait=False) + "wait_any @40[0:10]\nret_arr @40\n",
    b"\xff" * 7,
    b"\x01" * 3,
]
SMALL = Limits(
    processes=3,
    pending_subroutines=3,
    compiled_subroutines=2,
    instructions_per_activation=500,
    instructions_per_tick=50,
    entanglement_requests=3,
    receive_requests=2,
    er_sockets=2,
    unclaimed_pairs=2,
    qubit_ticks=150,
    offer_timeout_ticks=300,
    announcement_timeout_ticks=120,
)
CLIENTS = st.integers(1, 2)
APPS = st.integers(0, 1)
IDS = st.integers(0, 4)
STATES = st.sampled_from(BellState)
OUTCOMES = st.sampled_from(
    [*Outcome] + [Outcome.SUCCESS_PSI_PLUS, Outcome.SUCCESS_ZERO, Outcome.ENTANGLEMENT_FAILURE] * 4
)


class KernelMachine(RuleBasedStateMachine):
    """Host, peer, device and clock act in any order; the device answers when told to."""

    @initialize(dispatch_ticks=st.sampled_from([0, 0, 3]), policy=st.sampled_from(list(POLICIES)))
    def boot(self, dispatch_ticks: int, policy: str) -> None:
        self.node = make_node(
            1, limits=SMALL, dispatch_ticks=dispatch_ticks, policy=POLICIES[policy]()
        )
        self.tick = 0

    def advance(self, ticks: int, *, every_tick: bool) -> None:
        end = self.tick + ticks
        while self.tick < end:
            due = self.node.due()
            if every_tick or self.node.inbox:
                self.tick += 1
            elif due is None or due > end:
                self.tick = end
                break
            else:
                self.tick = max(due, self.tick + 1)
            self.node.step(self.tick)
            self.node.check_states()
            self.node.kernel.peer_outbox.clear()
            if self.node.device.busy is not None and self.node.device.link is None:
                self.node.device.due_tick = None  # until a rule answers

    @rule(ticks=st.integers(1, BIN_TICKS), every_tick=st.booleans())
    def wait(self, ticks: int, every_tick: bool) -> None:
        self.advance(ticks, every_tick=every_tick)

    @precondition(lambda self: self.node.device.busy is not None)
    @rule(outcome=OUTCOMES, herald=STATES)
    def answer(self, outcome: Outcome, herald: BellState) -> None:
        device = self.node.device
        assert device.busy is not None
        measures = device.busy.opcode is Opcode.ENM and outcome.is_success
        device.answer = Answer(outcome, herald if measures else None)
        device.due_tick = self.tick + 1
        self.advance(1, every_tick=True)

    @rule(client=CLIENTS, app=APPS, max_qubits=st.integers(0, 3))
    def register(self, client: int, app: int, max_qubits: int) -> None:
        self.node.post(init_app(app, max_qubits), client)
        self.node.post(open_socket(app, 0, 2, 0), client)
        self.node.post(open_socket(app, 1, 2, 1), client)
        self.advance(1, every_tick=True)

    @rule(client=CLIENTS, app=APPS, program=st.sampled_from(PROGRAMS))
    def run_program(self, client: int, app: int, program: str | bytes) -> None:
        self.node.post(submit(app, program), client)
        self.advance(1, every_tick=True)

    @rule(client=CLIENTS, app=APPS)
    def stop(self, client: int, app: int) -> None:
        self.node.post(stop_app(app), client)
        self.advance(1, every_tick=True)

    @rule(client=CLIENTS)
    def disconnect(self, client: int) -> None:
        self.node.close(client)
        self.advance(1, every_tick=True)

    @rule(client=CLIENTS, app=APPS, priority=st.integers(0, 2))
    def register_with_priority(self, client: int, app: int, priority: int) -> None:
        self.node.register(app, priority, client)
        self.advance(1, every_tick=True)

    @rule(client=CLIENTS, back=st.integers(1, 4))
    def cancel_subroutine(self, client: int, back: int) -> None:
        self.node.cancel(self.node.sent - back, client)
        self.advance(1, every_tick=True)

    @rule()
    def peer_goes(self) -> None:
        self.node.lose_peers()
        self.advance(1, every_tick=True)
        link = self.node.kernel.link_layer.links[2]
        assert not link.offers
        assert not any(request.accepted for request in link.queue)

    @rule()
    def peer_comes(self) -> None:
        self.node.lose_peers()
        self.node.connect_peers()
        self.advance(1, every_tick=True)

    @rule(pattern=st.sampled_from([(2,), (None, 2)]), length=st.sampled_from([BIN_TICKS, 70]))
    def install(self, pattern: tuple[int | None, ...], length: int) -> None:
        schedule = NetworkSchedule(length, 5, 15, pattern)
        kernel = self.node.kernel

        def install(tick: int) -> None:
            kernel.install_schedule(schedule)

        self.node.inbox.append(install)
        self.advance(1, every_tick=True)

    def from_peer(self, message) -> None:
        kernel = self.node.kernel
        if not kernel.statistics().connected_peers:
            return
        self.node.inbox.append(lambda tick: kernel.peer_message(2, message, tick))
        self.advance(1, every_tick=True)

    @rule(number=IDS)
    def accept(self, number: int) -> None:
        self.from_peer(Accept(number, self.tick // BIN_TICKS + 1))

    @rule(number=IDS)
    def reject(self, number: int) -> None:
        self.from_peer(Reject(number, "no"))

    @rule(
        number=IDS,
        socket=st.integers(0, 2),
        kind=st.sampled_from(EntanglementType),
        pairs=st.integers(0, 2),
        priority=st.sampled_from([0, 0, 1]),
        consecutive=st.booleans(),
    )
    def offer(
        self,
        number: int,
        socket: int,
        kind: EntanglementType,
        pairs: int,
        priority: int,
        consecutive: bool,
    ) -> None:
        start_bin = self.tick // BIN_TICKS + 1
        terms = RequestTerms(
            socket,
            socket,
            kind,
            pairs,
            (),
            0,
            start_bin,
            priority=priority,
            consecutive=consecutive,
        )
        self.from_peer(Offer(number, terms))

    @rule(socket=st.integers(0, 2))
    def socket_opens(self, socket: int) -> None:
        self.from_peer(SocketOpened(socket, socket))

    @rule(socket=st.integers(0, 2))
    def socket_closes(self, socket: int) -> None:
        self.from_peer(SocketClosed(socket, socket))

    @rule(number=IDS)
    def cancel(self, number: int) -> None:
        self.from_peer(Cancel(number))

    @rule(number=IDS, index=st.integers(0, 1), state=STATES)
    def announce(self, number: int, index: int, state: BellState) -> None:
        self.from_peer(Announce(number, index, 7, state, self.tick + 1))

    @rule(number=IDS, index=st.integers(0, 1))
    def lose(self, number: int, index: int) -> None:
        self.from_peer(PairLost(number, index))

    @invariant()
    def owners_are_unique(self) -> None:
        if hasattr(self, "node"):
            self.node.check_owners()

    @invariant()
    def waiting_processes_have_reason_to(self) -> None:
        if not hasattr(self, "node"):
            return
        kernel = self.node.kernel
        for process in kernel.processes.values():
            wakes = kernel.qmmu.free_qubits() and "free physical" in process.execution.waiting_for
            if process.state is ProcessState.WAITING and not wakes:
                code = process.execution.run()
                assert code == -3, process.execution.waiting_for

    def teardown(self) -> None:
        if not hasattr(self, "node"):
            return
        node = self.node
        for client in (1, 2):
            node.close(client)
        self.advance(1, every_tick=True)
        for number in range(5):
            self.from_peer(Cancel(number))
        while node.device.busy is not None:
            node.device.answer = Answer(Outcome.ENTANGLEMENT_FAILURE)
            node.device.due_tick = self.tick + 1
            self.advance(1, every_tick=True)
        self.advance(SMALL.offer_timeout_ticks + BIN_TICKS, every_tick=False)
        node.check_owners()
        node.check_clean()


TestKernelMachine = KernelMachine.TestCase
TestKernelMachine.settings = settings(max_examples=40, stateful_step_count=40)


# --- two kernels ----------------------------------------------------------------------

EIGHT_QUBITS = Capabilities(
    name="fake",
    communication_qubits=tuple(range(8)),
    memory_qubits=(),
    instructions=frozenset(Opcode),
    tick_ns=10_000,
)


ONE_AND_MEMORIES = replace(EIGHT_QUBITS, communication_qubits=(0,), memory_qubits=(1, 2))
"""Where qubits are moved to make room."""


@dataclass(frozen=True)
class Step:
    """What two programs do together: one creates, the other receives."""

    creator: int
    kind: EntanglementType
    pairs: int
    local: bool

    def keeps(self, creates: bool) -> bool:
        """Whether an end keeps its halves."""
        kind = self.kind
        return not (kind.creator_measures if creates else kind.receiver_measures)


STEPS = st.builds(
    Step,
    creator=st.integers(1, 2),
    kind=st.sampled_from(EntanglementType),
    pairs=st.integers(1, 3),
    local=st.booleans(),
)


@dataclass(frozen=True)
class Scenario:
    """Programs on two nodes and the weather.

    Attributes:
        programs: steps of each pair of programs.
        starts: tick at which each program starts, per pair.
        delay_ticks: longest delay of a peer message.
        seed: of delays, heralds and Bell states.
        closes: (tick, node, pair) at which a program's connection is lost.
        faults: probability that a device breaks its promise at an attempt or gate.
        policy: scheduling policy of both nodes.
        capabilities: of both devices.
    """

    programs: list[list[Step]]
    starts: list[tuple[int, int]]
    delay_ticks: int
    seed: int
    device_ticks: int
    closes: list[tuple[int, int, int]]
    faults: float
    policy: str
    capabilities: Capabilities


def scenarios(*, faulty: bool) -> st.SearchStrategy[Scenario]:
    programs = st.lists(st.lists(STEPS, min_size=1, max_size=3), min_size=1, max_size=3)
    ticks = st.integers(0, 3 * BIN_TICKS)
    closes = st.lists(st.tuples(ticks, st.integers(1, 2), st.integers(0, 2)), max_size=2)
    return programs.flatmap(
        lambda given: st.builds(
            Scenario,
            programs=st.just(given),
            starts=st.lists(st.tuples(ticks, ticks), min_size=len(given), max_size=len(given)),
            delay_ticks=st.integers(1, 3 * BIN_TICKS if faulty else BIN_TICKS // 2),
            seed=st.integers(0, 2**16),
            device_ticks=st.sampled_from([1, 2, 7]),
            closes=closes if faulty else st.just([]),
            faults=st.sampled_from([0.0, 0.05, 0.3]) if faulty else st.just(0.0),
            policy=st.sampled_from(list(POLICIES)),
            capabilities=st.sampled_from([EIGHT_QUBITS, ONE_AND_MEMORIES])
            if faulty
            else st.just(EIGHT_QUBITS),
        )
    )


def play(scenario: Scenario, *, every_tick: bool) -> tuple[Lab, list[tuple[Node, int, Step, bool]]]:
    """Run a scenario; returns the requests posted: node, number, step, is creator."""
    chances = Random(scenario.seed)
    states = list(BellState)

    def decide() -> Verdict:
        state = chances.choice(states)
        if chances.random() < scenario.faults:
            first = chances.random() < 0.5
            return Verdict(first, not first, state)
        return Verdict(bell_state=state) if chances.random() < 0.5 else FAILED

    delays = Random(scenario.seed + 1)
    lab, first, second, _ = pair(
        decide,
        seed=scenario.seed,
        delay=lambda: delays.randint(1, scenario.delay_ticks),
        every_tick=every_tick,
        policy=POLICIES[scenario.policy],
        capabilities=scenario.capabilities,
        device_ticks=scenario.device_ticks,
        limits=Limits(announcement_timeout_ticks=4 * BIN_TICKS),
    )
    nodes = {1: first, 2: second}
    for node_id, node in nodes.items():
        breaks = Random(scenario.seed + 1 + node_id)
        healthy = node.device.answers
        node.device.answers = lambda i, breaks=breaks, healthy=healthy: (  # type: ignore[misc]
            Answer(Outcome.HARDWARE_FAILURE)
            if breaks.random() < scenario.faults / 4
            else healthy(i)
        )
    posted: list[tuple[Node, int, Step, bool]] = []

    def launch(node_id: int, number: int) -> None:
        node, remote = nodes[node_id], 3 - node_id
        node.post(init_app(0, 3), number)
        node.post(open_socket(0, number, remote, number), number)
        for place, step in enumerate(scenario.programs[number]):
            virtuals = list(range(step.pairs))
            common = {"remote": remote, "socket": number, "pairs": step.pairs, "base": 4 * place}
            creates = step.creator == node_id
            program = (
                create_epr(virtuals=virtuals, arguments={0: int(step.kind)}, **common)  # type: ignore[arg-type]
                if creates
                else recv_epr(virtuals=virtuals, measured=not step.keeps(False), **common)  # type: ignore[arg-type]
            )
            if step.keeps(creates):
                program += "".join(f"set Q0 {v}\nqfree Q0\n" for v in virtuals)
            if step.local:
                program += TWICE
            posted.append((node, node.post(submit(0, program), number), step, creates))

    for number, starts in enumerate(scenario.starts):
        for node_id in (1, 2):
            lab.at(starts[node_id - 1], partial(launch, node_id, number))
    for tick, node_id, number in scenario.closes:
        lab.at(tick, partial(nodes[node_id].close, number))
    lab.run(60 * BIN_TICKS)
    return lab, posted


@settings(max_examples=40)
@given(scenarios(faulty=False))
def test_programs_that_fit_together_all_end_well(scenario):
    """Whatever the order of starts, messages of less than a bin, heralds and directions."""
    lab, posted = play(scenario, every_tick=False)
    told: dict[int, list[tuple[int, ...]]] = {1: [], 2: []}
    for node, request, step, creates in posted:
        values = [value or 0 for value in node.array(request)]
        for at in range(0, len(values), 10):
            kind, create_id = values[at : at + 2]
            assert kind == (0 if step.keeps(creates) else 1)
            place = at + (4 if kind == 0 else 5)
            assert values[place - 1] == int(not creates)
            goodness, bell_state = values[place + 3], values[at + 9]
            told[1 if creates else 2].append((values[place], create_id, goodness, bell_state))
            assert bell_state == BellState.PHI_PLUS
    assert sorted(told[1]) == sorted(told[2])
    assert sorted(sequence for sequence, *_ in told[1]) == list(range(len(told[1])))
    lab.check_clean()


@settings(max_examples=40)
@given(scenarios(faulty=True))
def test_nothing_leaks_whatever_fails(scenario):
    lab, posted = play(scenario, every_tick=False)
    for node in lab.nodes.values():
        node.check_owners()
    event(f"failed: {sum(n.replies[r].error is not None for n, r, *_ in posted if r in n.replies)}")
    lab.check_clean()


@settings(max_examples=12, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(scenarios(faulty=True))
def test_skipping_idle_ticks_changes_nothing(scenario):
    """`Kernel.next_tick` names every tick at which something happens."""
    told = []
    for every_tick in (False, True):
        lab, _ = play(scenario, every_tick=every_tick)
        told.append(
            [(node.replies, node.device.log, node.trace.records) for node in lab.nodes.values()]
        )
    assert told[0] == told[1]
