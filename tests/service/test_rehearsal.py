"""Rehearsals keep code warm; they must change nothing and hold nothing."""

from __future__ import annotations

from typing import Any

import pytest

from drivers.nv import NVDriver
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qnpu.memory import ProcessMemory
from qnodeos.service.rehearsal import Rehearsal
from tests.service.service_bench import MEASURE_ONE, Bench, benches, nv

CAPABILITIES = Capabilities("test", (0,), (), frozenset(Opcode), 10_000)
HOLD_ONE = "set Q0 0\nqalloc Q0\ninit Q0"
TAKE_ONE = "set Q0 0\nqalloc Q0\nqfree Q0"


class CountingDriver(NVDriver):
    """Notes what is asked of it."""

    def __init__(self) -> None:
        super().__init__(CAPABILITIES)
        self.asked: list[str] = []

    def rotate(self, *arguments: Any) -> Any:
        self.asked.append("rotate")
        return super().rotate(*arguments)

    def measure(self, qubit: int) -> Any:
        self.asked.append("measure")
        return super().measure(qubit)

    def correct(self, *arguments: Any) -> Any:
        self.asked.append("correct")
        return super().correct(*arguments)

    def entangle(self, link: int, qubit: int) -> PhysicalInstruction:
        self.asked.append("entangle")
        return super().entangle(link, qubit)


@pytest.fixture
def make():
    yield from benches()


def test_both_parts_of_a_delegated_computation_are_rehearsed():
    driver = CountingDriver()
    rehearsal = Rehearsal(driver, 10_000)
    rehearsal.delegate()
    assert "entangle" in driver.asked
    assert "correct" not in driver.asked
    driver.asked.clear()
    rehearsal.compute()
    assert {"entangle", "correct"} <= set(driver.asked)


def test_rehearsals_hold_nothing():
    rehearsal = Rehearsal(NVDriver(CAPABILITIES), 10_000)
    for _ in range(5):
        rehearsal.delegate()
        rehearsal.compute()
    kernel = rehearsal._kernel
    (process,) = kernel.processes.values()

    def held() -> tuple[Any, ...]:
        memory: ProcessMemory = process.memory
        return (
            kernel.qmmu.free_qubits(),
            len(memory.arrays),
            len(process.compiled),
            len(process.pending),
            len(kernel.link_layer.links[1].queue),
            len(kernel.link_layer.links[1].delivered) <= 64,
            kernel.host_outbox,
            kernel.peer_outbox,
        )

    before = held()
    for _ in range(250):
        rehearsal.delegate()
        rehearsal.compute()
    assert held() == before
    assert before[0] == [0]


def test_a_kernel_that_does_something_else_is_noticed(monkeypatch):
    rehearsal = Rehearsal(NVDriver(CAPABILITIES), 10_000)
    monkeypatch.setattr(rehearsal._kernel, "tick", lambda *arguments: None)
    with pytest.raises(RuntimeError, match="does not attempt"):
        rehearsal.compute()


def waiting_program(bench: Bench) -> tuple[Any, Any, int]:
    """Two programs, of which the second waits for the qubit of the first."""
    first, second = bench.client(), bench.client()
    for client in (first, second):
        client.register()
    assert first.run(HOLD_ONE).error is None
    number = second.request(nv(0, TAKE_ONE))
    bench.until(lambda: bench.kernel.is_waiting)
    return first, second, number


def test_a_service_rehearses_while_a_program_waits_and_only_then(make, mocker):
    bench = make()
    rehearsal = bench.service._rehearsal = mocker.Mock()
    client = bench.client()
    client.register()
    assert client.run(MEASURE_ONE).error is None
    bench.pass_ms(20)
    assert rehearsal.compute.call_count == 0
    client.close()
    bench.turns(3)
    first, second, number = waiting_program(bench)
    trace, counted = bench.service.trace.recorded, bench.kernel.statistics()
    submitted = len(bench.engine.submitted)
    for _ in range(10):
        bench.pass_ms(2)
    assert 9 <= rehearsal.compute.call_count <= 11
    assert bench.service.trace.recorded == trace
    assert bench.kernel.statistics() == counted
    assert len(bench.engine.submitted) == submitted
    first.close()
    assert second.reply(number).error is None
    rehearsal.compute.reset_mock()
    for _ in range(5):
        bench.pass_ms(2)
    assert rehearsal.compute.call_count == 0


def test_a_rehearsal_that_fails_is_told_and_was_the_last(make, mocker):
    bench = make()
    rehearsal = bench.service._rehearsal = mocker.Mock()
    rehearsal.compute.side_effect = RuntimeError("out of step")
    first, second, number = waiting_program(bench)
    for _ in range(5):
        bench.pass_ms(2)
    assert rehearsal.compute.call_count == 1
    assert "no more rehearsals: RuntimeError: out of step" in bench.said
    first.close()
    assert second.reply(number).error is None
