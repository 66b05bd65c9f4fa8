"""ER sockets and the pairs they keep, against a search of all sockets."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.api.peer import EntanglementType
from qnodeos.errors import EntanglementRequestError, LimitError
from qnodeos.limits import Limits
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.er_sockets import ErSocket, Pair
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.qmmu import QMMU

LIMITS = Limits(er_sockets=2, unclaimed_pairs=3)
DEVICE = Capabilities(
    name="fake",
    communication_qubits=tuple(range(4)),
    memory_qubits=(),
    instructions=frozenset(Opcode),
    tick_ns=10_000,
)
PIDS, NUMBERS = st.integers(1, 3), st.integers(0, 3)


PAIRS = 2
"""Of every request."""


def pair(create_id: int, physical: int | None) -> Pair:
    outcome = None if physical is not None else 0
    return Pair(create_id, 0, physical, outcome, 0, BellState.PHI_PLUS, 0, True)


@dataclass
class Model:
    """What a socket was promised: the pairs that are kept, by request, oldest first."""

    socket: ErSocket
    kept: dict[int, list[int | None]] = field(default_factory=dict)
    left: dict[int, int] = field(default_factory=dict)  # still to be made
    kinds: dict[int, EntanglementType] = field(default_factory=dict)

    @property
    def unclaimed(self) -> int:
        return sum(map(len, self.kept.values()))


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("open"), PIDS, NUMBERS),
            st.tuples(st.just("promise"), NUMBERS, st.sampled_from(EntanglementType)),
            st.tuples(st.just("deliver"), NUMBERS),
            st.tuples(st.just("receive"), NUMBERS, st.booleans()),
            st.tuples(st.just("break"), NUMBERS),
            st.tuples(st.just("close"), PIDS),
        ),
        max_size=30,
    )
)
def test_sockets_and_keepers_are_as_a_search_would_find_them(operations):
    """Pairs come before anybody asks; a receive request takes those of the oldest promise."""
    qmmu = QMMU(DEVICE)
    manager = EntanglementManager(qmmu, LIMITS, 10_000, {2: 0}, lambda process, pair: None)
    processes = {pid: UserProcess(pid, (1, pid), 4, LIMITS) for pid in range(1, 4)}
    models: list[Model] = []
    refused: list[str] = []

    def find(number: int) -> Model | None:
        return next((each for each in models if each.socket.socket_id == number), None)

    for serial, (what, *arguments) in enumerate(operations):
        model = find(arguments[0])
        if what == "open":
            process, number = processes[arguments[0]], arguments[1]
            mine = [each for each in models if each.socket.process is process]
            if find(number) is not None:
                with pytest.raises(EntanglementRequestError, match="already open"):
                    manager.open_socket(process, number, 2, 0, 0)
            elif len(mine) >= LIMITS.er_sockets:
                with pytest.raises(LimitError, match="er_sockets=2 open"):
                    manager.open_socket(process, number, 2, 0, 0)
            else:
                models.append(Model(manager.open_socket(process, number, 2, 0, 0)))
        elif what == "promise" and model is not None:
            manager.promised(model.socket, serial, arguments[1], PAIRS, refused.append)
            model.kept[serial], model.left[serial] = [], PAIRS
            model.kinds[serial] = arguments[1]
        elif what == "deliver" and model is not None:
            deliver(manager, qmmu, model)
        elif what == "receive" and model is not None and model.kept:
            receive(manager, qmmu, model, arguments[1], serial)
        elif what == "break" and model is not None and model.kept:
            number = next(iter(model.kept))
            assert manager.break_promise(model.socket, number, LimitError("gone")) is None
            del model.kept[number]
        elif what == "close":
            closed = [each for each in models if each.socket.process.pid == arguments[0]]
            assert manager.close_process(arguments[0]) == [each.socket for each in closed]
            models = [each for each in models if each not in closed]
        kept = {
            physical: each.socket.process.pid
            for each in models
            for waiting in each.kept.values()
            for physical in waiting
            if physical is not None
        }
        for among in (DEVICE.communication_qubits, (0,), (1, 3)):
            assert manager.holders(among) == {kept[q] for q in among if q in kept}
        assert sorted(qmmu.owned(0)) == sorted(kept)
    for pid in processes:
        manager.close_process(pid)
        qmmu.free_all(pid)
    assert qmmu.free_qubits() == list(DEVICE.qubits)
    assert not any((manager._sockets, manager._sockets_of, manager._outstanding))
    assert not any((manager._keepers, manager._blocked))


def deliver(manager: EntanglementManager, qmmu: QMMU, model: Model) -> None:
    """The next pair of the oldest request that has one to come."""
    number = next((n for n in model.kept if model.left[n]), None)
    free = qmmu.free_qubits()
    if number is None or not free:
        return
    model.left[number] -= 1
    kept = None if model.kinds[number].receiver_measures else free[0]
    if kept is not None:
        qmmu.reserve(kept)
    if model.unclaimed < LIMITS.unclaimed_pairs:
        manager.deliver_to_receiver(model.socket, pair(number, kept))
        model.kept[number].append(kept)
    else:
        with pytest.raises(LimitError, match="unclaimed_pairs=3"):
            manager.deliver_to_receiver(model.socket, pair(number, kept))


def receive(
    manager: EntanglementManager, qmmu: QMMU, model: Model, keeps: bool, serial: int
) -> None:
    """A receive request for what was promised first; it is done, or forgotten again."""
    number = next(iter(model.kept))
    socket, process = model.socket, model.socket.process
    process.memory.create_array(0, 10 * PAIRS)
    virtuals = (100 + 2 * serial, 101 + 2 * serial)
    arguments = (process, 2, socket.socket_id, virtuals if keeps else None, 0, 0)
    if keeps is model.kinds[number].receiver_measures:
        with pytest.raises(EntanglementRequestError, match="do not fit"):
            manager.receive(*arguments)
        del model.kept[number]
        manager.forget(process.pid, -1)
        return
    request = manager.receive(*arguments)
    taken = model.kept.pop(number)
    assert request.delivered == len(taken)
    for virtual, physical in zip(virtuals, taken, strict=False):
        assert qmmu.physical(process.pid, virtual) == physical
        if physical is not None:
            qmmu.free(process.pid, virtual)
    assert manager.forget(process.pid, -1) == []
    if not taken:  # the promise is there for the next receive request
        model.kept[number] = []


# --- what does not fit ----------------------------------------------------------------


def bench() -> tuple[EntanglementManager, ErSocket, list[str]]:
    """A manager, an open socket whose program has arrays for two pairs, and refusals."""
    manager = EntanglementManager(QMMU(DEVICE), LIMITS, 10_000, {2: 0}, lambda process, pair: None)
    process = UserProcess(1, (1, 1), 4, LIMITS)
    process.memory.create_array(0, 20)
    return manager, manager.open_socket(process, 4, 2, 9, 0), []


@pytest.mark.parametrize("receives_first", [True, False])
@pytest.mark.parametrize(
    ("kind", "pairs", "virtuals", "words"),
    [
        (EntanglementType.KEEP, 2, None, "names no virtual qubit"),
        (EntanglementType.PREPARE, 2, None, "names no virtual qubit"),
        (EntanglementType.MEASURE, 2, (0, 1), "names virtual qubits"),
        (EntanglementType.KEEP, 1, (0, 1), "one is for 1 pairs, the other for 2"),
        (EntanglementType.MEASURE, 3, None, "one is for 3 pairs, the other for 2"),
    ],
)
def test_requests_that_do_not_fit_are_refused_as_soon_as_they_meet(
    receives_first, kind, pairs, virtuals, words
):
    manager, socket, refused = bench()
    process = socket.process
    if receives_first:
        manager.receive(process, 2, 4, virtuals, 0, 0)
        with pytest.raises(EntanglementRequestError, match=words):
            manager.promised(socket, 7, kind, pairs, refused.append)
        assert not socket.promises
        return
    manager.promised(socket, 7, kind, pairs, refused.append)
    with pytest.raises(EntanglementRequestError, match=words) as info:
        manager.receive(process, 2, 4, virtuals, 0, 0)
    assert refused == [str(info.value)]
    assert "ER socket 9 of node 2" in refused[0]
    assert "ER socket 4 of its partner" in refused[0]
    assert not socket.promises


def test_each_receive_request_takes_the_pairs_of_one_create_request():
    """Also if those of the second come first."""
    manager, socket, refused = bench()
    process = socket.process
    process.memory.create_array(1, 10)
    kind = EntanglementType.MEASURE
    manager.receive(process, 2, 4, None, 0, 0)
    manager.receive(process, 2, 4, None, 1, 0)
    manager.promised(socket, 5, kind, 2, refused.append)
    manager.promised(socket, 6, kind, 1, refused.append)
    for number in (6, 5, 5):
        manager.deliver_to_receiver(socket, pair(number, None))
    assert process.memory.array(0)[1::10] == [5, 5]
    assert process.memory.array(1)[1] == 6
    assert not socket.promises


def test_a_pair_waits_until_its_virtual_qubit_is_free():
    """Sequential requests: one virtual qubit for all pairs."""
    manager, socket, refused = bench()
    process, qmmu = socket.process, manager._qmmu
    manager.receive(process, 2, 4, (0, 0), 0, 0)
    manager.promised(socket, 5, EntanglementType.KEEP, 2, refused.append)
    assert manager.is_ready_for(socket, 5)
    for physical in (2, 3):
        qmmu.reserve(physical)
        manager.deliver_to_receiver(socket, pair(5, physical))
        assert not manager.is_ready_for(socket, 5)
        assert qmmu.physical(1, 0) == 2
    assert manager.holders((3,)) == {1}
    qmmu.free(1, 0)
    manager.freed(process)
    assert qmmu.physical(1, 0) == 3
    assert not manager.holders((3,))
    assert not socket.promises


@pytest.mark.parametrize("delivered", [0, 1])
def test_a_receive_request_that_is_cancelled(delivered):
    """Its promise is there for the next, unless that would get some of the pairs only."""
    manager, socket, refused = bench()
    process = socket.process
    manager.promised(socket, 5, EntanglementType.MEASURE, 2, refused.append)
    manager.receive(process, 2, 4, None, 0, 0)
    for _ in range(delivered):
        manager.deliver_to_receiver(socket, pair(5, None))
    assert manager.forget(1, -1) == []
    if delivered:
        [reason] = refused
        assert "cancelled its receive request after 1 of 2 pairs" in reason
        assert not socket.promises
    else:
        assert refused == []
        assert manager.receive(process, 2, 4, None, 0, 0).promise is socket.promises[5]
