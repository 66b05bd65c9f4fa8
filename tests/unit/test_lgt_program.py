"""The LGT program on backends that are scripted: its circuits, and how it waits."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from qnodeos.cnpu.external import install
from qnodeos.experiments.lgt_analysis import BASES, STATES, bloch_vector

install()

from qnodeos.experiments.programs import lgt  # noqa: E402 (what it imports is made above)

PAULI = {"X": np.array([[0, 1], [1, 0]]), "Y": np.array([[0, -1j], [1j, 0]])}


def rotation(axis: str, n: int, d: int) -> np.ndarray:
    angle = n * math.pi / 2**d
    unitary: np.ndarray = math.cos(angle / 2) * np.eye(2) - 1j * math.sin(angle / 2) * PAULI[axis]
    return unitary


class ScriptedQubit:
    """A qubit whose measurement result is whether its circuit comes from a list of ones."""

    def __init__(self, connection: BlockingBackend) -> None:
        self.connection = connection
        self.state = np.array([1, 0], dtype=complex)

    def rot_X(self, n: int, d: int) -> None:
        self.state = rotation("X", n, d) @ self.state

    def rot_Y(self, n: int, d: int) -> None:
        self.state = rotation("Y", n, d) @ self.state

    def measure(self, store_array: bool) -> ScriptedResult:
        assert not store_array
        self.connection.probabilities.append(abs(self.state[0]) ** 2)
        self.connection.pending.append(ScriptedResult(self.connection))
        return self.connection.pending[-1]


class ScriptedResult:
    """Known once its subroutine is done; all subroutines share the registers."""

    def __init__(self, connection: BlockingBackend) -> None:
        self.connection = connection
        self.register = len(connection.pending)

    def __int__(self) -> int:
        return self.connection.registers[self.register]


class BlockingBackend:
    """What any backend of the SDK has."""

    made: list[BlockingBackend]

    def __init__(self, node: str, max_qubits: int) -> None:
        assert (node, max_qubits) == ("here", 1)
        self.made.append(self)
        self.probabilities: list[float] = []
        self.pending: list[ScriptedResult] = []
        self.registers: list[int] = []
        self.log: list[str] = []
        self.flushed = 0
        self.done = 0

    def __enter__(self) -> BlockingBackend:
        return self

    def __exit__(self, *exception: object) -> None:
        self.log.append("closed")

    def finish(self) -> None:
        """The next subroutine's results arrive: its number in binary, lowest bit first."""
        self.registers = [self.done >> bit & 1 for bit in range(len(BASES))]
        self.done += 1

    def flush(self) -> None:
        assert len(self.pending) == len(BASES)
        self.pending = []
        self.flushed += 1
        self.finish()

    def block(self) -> None:
        raise AssertionError("this backend cannot do that")


class QueueingBackend(BlockingBackend):
    """A backend that can flush without blocking, and wait for everything."""

    def __init__(self, node: str, max_qubits: int) -> None:
        super().__init__(node, max_qubits)
        self.callbacks: list[Callable[[], None]] = []
        self.most = 0

    def flush(self, block: bool = True, callback: Callable[[], None] | None = None) -> None:
        assert not block
        assert callback is not None
        self.pending = []
        self.flushed += 1
        self.callbacks.append(callback)
        self.most = max(self.most, len(self.callbacks))

    def block(self) -> None:
        self.log.append("all")
        while self.callbacks:
            self._answer()

    def _answer(self) -> None:
        self.finish()
        self.callbacks.pop(0)()


class OurBackend(QueueingBackend):
    """One that can wait for the oldest too."""

    def block_oldest(self) -> None:
        self.log.append("oldest")
        self._answer()


@pytest.fixture
def run(monkeypatch):
    """Runs the program on a backend; returns the backend and what the program returned."""

    def start(backend: type[BlockingBackend], **inputs: Any) -> tuple[Any, list[list[int]]]:
        monkeypatch.setattr(backend, "made", [], raising=False)
        monkeypatch.setattr(lgt, "NetQASMConnection", backend)
        monkeypatch.setattr(lgt, "Qubit", ScriptedQubit)
        zeros = lgt.main("here", **inputs)
        (connection,) = backend.made
        return connection, zeros

    return start


def numbers(results: list[tuple[int, list[int]]]) -> list[int]:
    """Which subroutine each result belongs to, from its outcomes."""
    return [sum(bit << place for place, bit in enumerate(bits)) for _, bits in results]


def test_the_analysis_has_the_program_s_order():
    assert tuple(lgt.STATES) == STATES
    assert tuple(lgt.BASES) == BASES


def test_every_circuit_measures_its_state_in_its_basis(run):
    connection, _ = run(BlockingBackend, repetitions=2)
    expected = [
        (1 + bloch_vector(state) @ bloch_vector(basis)) / 2 for state in STATES for basis in BASES
    ]
    assert connection.probabilities == pytest.approx(2 * expected, abs=1e-12)
    assert connection.log == ["closed"]


@pytest.mark.parametrize(
    ("backend", "queue_ahead", "most"),
    [
        (BlockingBackend, 0, 0),
        (QueueingBackend, 2, 3),
        (OurBackend, 1, 2),
        (OurBackend, 5, 6),
        (OurBackend, 100, 18),
    ],
)
def test_results_come_once_in_order_and_no_more_than_wanted_are_queued(
    run, backend, queue_ahead, most
):
    results: list[tuple[int, list[int]]] = []
    connection, zeros = run(
        backend,
        repetitions=3,
        queue_ahead=queue_ahead,
        on_result=lambda state, bits: results.append((state, bits)),
    )
    assert numbers(results) == list(range(18))
    assert [state for state, _ in results] == 3 * list(range(6))
    assert getattr(connection, "most", 0) == most
    for state in range(6):
        bits = np.array([each for number, each in results if number == state])
        assert zeros[state] == (bits == 0).sum(axis=0).tolist()


def test_only_the_oldest_result_is_waited_for_where_that_can_be(run):
    waits: list[int] = []
    connection, _ = run(
        OurBackend, repetitions=1, queue_ahead=2, on_result=lambda *_: waits.append(1)
    )
    assert connection.log == ["oldest"] * 6 + ["closed"]
    connection, _ = run(QueueingBackend, repetitions=1, queue_ahead=2)
    assert connection.log == ["all"] * 2 + ["closed"]


def test_without_a_number_of_repetitions_it_runs_until_it_is_stopped(run):
    seen = 0

    def stop(state: int, bits: list[int]) -> None:
        nonlocal seen
        seen += 1
        if seen == 50:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        run(BlockingBackend, repetitions=None, on_result=stop)
    assert seen == 50
