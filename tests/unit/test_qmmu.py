"""The quantum memory management unit against a model: one owner per qubit, always."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from qnodeos.errors import ErrorCode, NoQubitError, QubitAccessError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qnpu.process import NETWORK_PID
from qnodeos.qnpu.qmmu import MAX_VIRTUAL, QMMU

CAPABILITIES = Capabilities("fake", (0, 3), (1, 7), frozenset(), 10_000)
QUBITS = CAPABILITIES.qubits
PIDS = st.integers(1, 3)
VIRTUALS = st.sampled_from([-1, 0, 1, 2, MAX_VIRTUAL, MAX_VIRTUAL + 1])
MAXIMA = st.integers(0, 5)
PHYSICALS = st.sampled_from(QUBITS)


class QmmuMachine(RuleBasedStateMachine):
    """The model: physical qubit -> (process, virtual address), None for the network."""

    def __init__(self) -> None:
        super().__init__()
        self.qmmu = QMMU(CAPABILITIES)
        self.model: dict[int, tuple[int, int | None]] = {}

    def refusal(self, pid: int, virtual: int, maximum: int) -> type[Exception] | None:
        """Why a process may not have one more qubit under an address."""
        if not 0 <= virtual <= MAX_VIRTUAL or (pid, virtual) in self.model.values():
            return QubitAccessError
        mine = sum(owner == pid for owner, _ in self.model.values())
        return NoQubitError if mine >= maximum or mine == len(QUBITS) else None

    @rule(pid=PIDS, virtual=VIRTUALS, maximum=MAXIMA)
    def allocate(self, pid: int, virtual: int, maximum: int) -> None:
        refusal = self.refusal(pid, virtual, maximum)
        if refusal is not None:
            with pytest.raises(refusal):
                self.qmmu.allocate(pid, virtual, maximum)
            return
        physical = self.qmmu.allocate(pid, virtual, maximum)
        free = [qubit for qubit in QUBITS if qubit not in self.model]
        assert physical == (free[0] if free else None)
        if physical is not None:
            self.model[physical] = pid, virtual

    @rule(pid=PIDS, virtual=VIRTUALS)
    def free(self, pid: int, virtual: int) -> None:
        physical = next((q for q, name in self.model.items() if name == (pid, virtual)), None)
        if physical is None:
            with pytest.raises(QubitAccessError, match=f"virtual qubit {virtual} is not"):
                self.qmmu.free(pid, virtual)
            return
        assert self.qmmu.free(pid, virtual) == physical
        del self.model[physical]

    @rule(pid=PIDS)
    def free_all(self, pid: int) -> None:
        mine = [physical for physical, (owner, _) in self.model.items() if owner == pid]
        assert sorted(self.qmmu.free_all(pid)) == sorted(mine)
        for physical in mine:
            del self.model[physical]

    @rule(physical=PHYSICALS)
    def reserve(self, physical: int) -> None:
        if physical in self.model:
            with pytest.raises(NoQubitError, match=f"belongs to process {self.model[physical][0]}"):
                self.qmmu.reserve(physical)
            return
        self.qmmu.reserve(physical)
        self.model[physical] = NETWORK_PID, None

    @rule(physical=PHYSICALS)
    def release(self, physical: int) -> None:
        if self.model.get(physical) != (NETWORK_PID, None):
            with pytest.raises(QubitAccessError, match="does not belong to the network"):
                self.qmmu.release(physical)
            return
        self.qmmu.release(physical)
        del self.model[physical]

    @rule(physical=PHYSICALS, pid=PIDS, virtual=VIRTUALS, maximum=MAXIMA)
    def transfer(self, physical: int, pid: int, virtual: int, maximum: int) -> None:
        refusal = self.refusal(pid, virtual, maximum)
        if self.model.get(physical) != (NETWORK_PID, None):
            refusal = QubitAccessError
        if refusal is not None:
            with pytest.raises(refusal):
                self.qmmu.transfer(physical, pid, virtual, maximum)
            return
        self.qmmu.transfer(physical, pid, virtual, maximum)
        self.model[physical] = pid, virtual

    @rule(old=PHYSICALS, new=PHYSICALS)
    def move(self, old: int, new: int) -> None:
        if old == new:
            return
        if self.model.get(new) != (NETWORK_PID, None):
            with pytest.raises(QubitAccessError, match="does not belong to the network"):
                self.qmmu.move(old, new)
            return
        name = self.model.pop(old, None)
        assert self.qmmu.move(old, new) == (None if name is None else name[0])
        del self.model[new]
        if name is not None:
            self.model[new] = name

    @invariant()
    def it_is_as_the_model_says(self) -> None:
        for physical in QUBITS:
            owner = self.model.get(physical)
            assert self.qmmu.owner(physical) == (None if owner is None else owner[0])
        for pid in range(4):
            mine = [q for q, (owner, _) in self.model.items() if owner == pid]
            assert sorted(self.qmmu.owned(pid)) == sorted(mine)
            for virtual in (0, 1, 2, MAX_VIRTUAL):
                held = [q for q, name in self.model.items() if name == (pid, virtual)]
                assert self.qmmu.physical(pid, virtual) == (held[0] if held else None)
        assert self.qmmu.free_qubits() == [q for q in QUBITS if q not in self.model]
        assert self.qmmu.free_qubits((3,)) == ([] if 3 in self.model else [3])


TestQmmu = QmmuMachine.TestCase
TestQmmu.settings = settings(max_examples=30, stateful_step_count=30)


def test_the_errors_say_who_has_what():
    qmmu = QMMU(CAPABILITIES)
    qmmu.allocate(1, 0, 4)
    with pytest.raises(QubitAccessError, match="virtual qubit 0 is already allocated"):
        qmmu.allocate(1, 0, 4)
    with pytest.raises(NoQubitError, match=r"for 1 qubit and .* has 4 qubits") as info:
        qmmu.allocate(1, 1, 1)
    assert info.value.code is ErrorCode.NO_QUBIT
    for virtual in (1, 2, 3):
        qmmu.allocate(1, virtual, 9)
    with pytest.raises(
        NoQubitError, match="the device has 4 qubits, and this program holds them all"
    ):
        qmmu.allocate(1, 4, 9)
