"""ER sockets and the pairs they keep, against a search of all sockets."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.errors import EntanglementRequestError, LimitError
from qnodeos.limits import Limits
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from qnodeos.qdevice.outcomes import BellState
from qnodeos.qnpu.entanglement import EntanglementManager, ErSocket, Pair
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


def pair(physical: int | None) -> Pair:
    outcome = None if physical is not None else 0
    return Pair(0, 0, physical, outcome, 0, BellState.PHI_PLUS, 0, True)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("open"), PIDS, NUMBERS),
            st.tuples(st.just("deliver"), NUMBERS, st.booleans()),
            st.tuples(st.just("receive"), NUMBERS),
            st.tuples(st.just("close"), PIDS),
        ),
        max_size=30,
    )
)
def test_sockets_and_keepers_are_as_a_search_would_find_them(operations):
    qmmu = QMMU(DEVICE)
    manager = EntanglementManager(qmmu, LIMITS, 10_000, {2: 0}, lambda process, pair: None)
    processes = {pid: UserProcess(pid, (1, pid), 4, LIMITS) for pid in range(1, 4)}
    sockets: list[ErSocket] = []

    def open_socket(number: int) -> ErSocket | None:
        return next((socket for socket in sockets if socket.socket_id == number), None)

    for serial, (what, *arguments) in enumerate(operations):
        if what == "open":
            process, number = processes[arguments[0]], arguments[1]
            mine = [socket for socket in sockets if socket.process is process]
            if open_socket(number) is not None:
                with pytest.raises(EntanglementRequestError, match="already open"):
                    manager.open_socket(process, number, 2, 0, 0)
            elif len(mine) >= LIMITS.er_sockets:
                with pytest.raises(LimitError, match="er_sockets=2 open"):
                    manager.open_socket(process, number, 2, 0, 0)
            else:
                sockets.append(manager.open_socket(process, number, 2, 0, 0))
        elif what == "deliver":
            socket, free = open_socket(arguments[0]), qmmu.free_qubits()
            if socket is not None and free:
                kept = free[0] if arguments[1] else None
                if kept is not None:
                    qmmu.reserve(kept)
                if len(socket.unclaimed) < LIMITS.unclaimed_pairs:
                    manager.deliver_to_receiver(socket, pair(kept))
                else:
                    with pytest.raises(LimitError, match="unclaimed_pairs=3"):
                        manager.deliver_to_receiver(socket, pair(kept))
        elif what == "receive":
            socket = open_socket(arguments[0])
            if socket is not None and socket.unclaimed:
                process = socket.process
                process.memory.create_array(0, 10)
                taken = socket.unclaimed[0].physical
                virtual = serial
                manager.receive(process, 2, socket.socket_id, (virtual,), 0, 0)
                if taken is not None:
                    assert qmmu.free(process.pid, virtual) == taken
        else:
            closed = [socket for socket in sockets if socket.process.pid == arguments[0]]
            assert manager.close_process(arguments[0]) == closed
            sockets = [socket for socket in sockets if socket not in closed]
        for among in (DEVICE.communication_qubits, (0,), (1, 3)):
            assert manager.holders(among) == {
                socket.process.pid
                for socket in sockets
                if any(each.physical in among for each in socket.unclaimed)
            }
    for pid in processes:
        manager.close_process(pid)
    assert qmmu.free_qubits() == list(DEVICE.qubits)
    assert not any((manager._sockets, manager._sockets_of, manager._keepers, manager._outstanding))
