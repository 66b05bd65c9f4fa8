"""The benchmarks run, and measure what they say. Nothing here depends on a real time."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from threading import BrokenBarrierError

import numpy as np
import pytest
from greenlet import greenlet
from rich.console import Console
from typer.testing import CliRunner

pytest.importorskip("benchmarks", reason="needs the source tree")

from benchmarks import __main__ as command
from benchmarks.breakdown import CNPU, REST, SDK, Stopwatch
from benchmarks.classical import (
    PASSES,
    CountingExecutor,
    loop_program,
    new_executor,
    new_kernel,
    run_kernel,
    run_reference,
)
from benchmarks.decode import client_subroutine
from benchmarks.frames import divided
from benchmarks.lab import breaking, results
from benchmarks.measure import Effort, Figure, Outcome, Timing, Work, compare
from benchmarks.physics import kraus_operators, run_density_matrix, run_pauli
from benchmarks.report import as_document, print_report
from benchmarks.suite import BENCHMARKS, LONG
from qnodeos.api.netqasm import Flavour
from qnodeos.qdevice.frames import COMMAND_CONSTANT, encode_command
from qnodeos.qdevice.instructions import Axis
from qnodeos.qnpu.decoder import decode_subroutine

TINY = Effort(rounds=2, fraction=0.002)


@pytest.mark.parametrize("name", BENCHMARKS)
def test_each_benchmark_runs_at_a_tiny_size(name):
    outcome = BENCHMARKS[name](TINY)
    assert outcome.figures
    for figure in outcome.figures:
        assert len(figure.ratios) == (1 if name in LONG else TINY.rounds)
        assert all(0 < ratio < math.inf for ratio in figure.ratios)
    if outcome.shares is not None:
        assert sum(outcome.shares.values()) == pytest.approx(1)
        assert min(outcome.shares.values()) > 0


class Machine:
    """A clock that only work moves, and a record of the work."""

    def __init__(self):
        self.now_ns = 0
        self.done: list[str] = []

    def clock(self) -> int:
        return self.now_ns

    def work(self, name: str, count: int, durations_ns: list[int]) -> Work:
        left = iter(durations_ns)

        def prepare() -> Callable[[], None]:
            self.now_ns += 5_000  # preparing must not count
            duration_ns = next(left)

            def run() -> None:
                self.done.append(name)
                self.now_ns += duration_ns

            return run

        return Work(name, "piece", count, prepare)


def test_work_is_done_in_turn_and_the_warm_up_is_left_out():
    machine = Machine()
    ours = machine.work("ours", 2, [900, 10, 20, 40])
    reference = machine.work("reference", 10, [900, 100, 400, 100])
    samples = compare(ours, reference, Effort(rounds=3), clock=machine.clock)
    assert machine.done == ["ours", "reference"] * 4
    speed, cost = samples.speed("speed"), samples.cost("cost")
    assert speed.ratios == (2.0, 4.0, 0.5)
    assert speed.ratio == 2.0
    assert cost.ratios == (0.5, 0.25, 2.0)
    assert speed.ours == Timing("ours", "piece", 10.0)
    assert speed.reference == Timing("reference", "piece", 10.0)


def figure(ratio: float, wanted: tuple[float, float] | None) -> Figure:
    timing = Timing("work", "piece", 1.0)
    return Figure("a figure", "times as fast as", timing, timing, (ratio,), wanted)


@pytest.mark.parametrize(
    ("ratio", "wanted", "is_missed"),
    [
        (9.9, (10, math.inf), True),
        (10.0, (10, math.inf), False),
        (1.16, (0.85, 1.15), True),
        (0.84, (0.85, 1.15), True),
        (1.0, (0.85, 1.15), False),
        (1e-9, None, False),
    ],
)
def test_a_wanted_ratio_is_missed_outside_its_bounds(ratio, wanted, is_missed):
    assert figure(ratio, wanted).is_missed is is_missed


def test_report_and_document_hold_every_figure():
    outcomes = {"one": Outcome([figure(2.0, (10, math.inf))], "off", {"a part": 1.0}, ["a note"])}
    stream = io.StringIO()
    print_report(Console(file=stream, width=120), outcomes)
    text = stream.getvalue()
    assert all(words in text for words in ("a figure", "MISSED", "a part", "100.0%", "a note"))
    document = json.loads(json.dumps(as_document(outcomes), allow_nan=False))
    (written,) = document["benchmarks"]["one"]["figures"]
    assert (written["median"], written["wanted_min"], written["wanted_max"]) == (2.0, 10, None)
    assert written["missed"] is True
    assert document["machine"]["netqasm"]


@pytest.fixture
def invoke(monkeypatch):
    fakes = {
        "slow": lambda effort: Outcome([figure(1.0, (10, math.inf))], "off"),
        "quick": lambda effort: Outcome([figure(11.0, (10, math.inf))], "off"),
        "experiment": lambda effort: pytest.fail("long benchmarks need --long"),
    }
    monkeypatch.setattr(command, "BENCHMARKS", fakes)
    return lambda *arguments: CliRunner().invoke(command.app, arguments)


@pytest.mark.parametrize(
    ("arguments", "exit_code"),
    [
        ([], 0),
        (["--check"], 1),
        (["--check", "slow"], 1),
        (["--check", "quick"], 0),
        (["nonsense"], 2),
        (["experiment"], 2),
    ],
)
def test_exit_codes(invoke, arguments, exit_code):
    assert invoke(*arguments).exit_code == exit_code


def test_the_command_writes_the_figures_it_was_asked_for(invoke, tmp_path):
    file = tmp_path / "figures.json"
    assert invoke("quick", "--json", str(file)).exit_code == 0
    assert list(json.loads(file.read_text())["benchmarks"]) == ["quick"]


def test_the_stopwatch_follows_control_through_greenlets():
    machine = Machine()
    stopwatch = Stopwatch(REST, machine.clock)

    def passes(duration_ns: int) -> None:
        machine.now_ns += duration_ns

    def wait() -> None:
        passes(100)
        program.parent.switch()
        passes(1_000)

    def run_program() -> None:
        passes(1)
        stopwatch.timed(CNPU, wait)()
        passes(10)

    program = greenlet(stopwatch.timed(SDK, run_program))
    resume = stopwatch.timed(CNPU, program.switch)
    passes(10_000)
    resume()
    passes(20_000)
    resume()
    passes(40_000)
    stopwatch.enter(REST)
    assert stopwatch.spent_ns == {SDK: 11, CNPU: 1_100, REST: 70_000}


def executed_instructions(passes: int) -> int:
    executor = new_executor(CountingExecutor)
    run_reference(loop_program(passes), executor)
    return int(executor.executed)


def test_the_classical_loop_runs_more_than_100_000_instructions():
    # Its values repeat with a period that divides 776 = 8 * 97 passes.
    first, second, third = (executed_instructions(passes) for passes in (776, 1552, 2328))
    assert third - second == second - first
    assert first + (PASSES - 776) // 776 * (second - first) > 100_000


def test_kernel_and_reference_executor_return_the_same_array():
    raw = loop_program(500)
    result = run_kernel(raw, new_kernel())
    assert result == run_reference(raw, new_executor(CountingExecutor))
    assert len(set(result)) > 1


def test_the_subroutine_decoded_is_that_of_the_dqc_client():
    version, body = client_subroutine()[:2], client_subroutine()[4:]
    assert version == bytes([0, 10])
    mnemonics = [mnemonic for mnemonic, _ in decode_subroutine(body, Flavour.NV)]
    assert {"create_epr", "rot_y", "rot_x", "meas", "ret_reg"} <= set(mnemonics)


def test_kraus_operators_are_complete_and_give_the_same_state():
    operators, adjoints = kraus_operators(Axis.Y, 3, 0.9, 0.2)
    assert np.abs((adjoints @ operators).sum(axis=0) - np.eye(4)).max() < 1e-12
    assert np.abs(run_pauli(20).density_matrix() - run_density_matrix(20)).max() < 1e-12


@pytest.mark.parametrize("word", [0, 1, 0x12345, 0xFFFFF])
def test_bitwise_check_is_that_of_the_codec(word):
    assert divided(word << 2 | 1, COMMAND_CONSTANT) == encode_command(word, 0, 1)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_worker_that_fails_is_the_one_that_is_reported(failing):
    barrier = get_context("spawn").Barrier(2, timeout=60)

    def work(number: int) -> None:
        with breaking(barrier):
            if number == failing:
                raise LookupError("the cause")
            barrier.wait()

    with ThreadPoolExecutor(2) as pool, pytest.raises(LookupError, match="the cause"):
        results([pool.submit(work, number) for number in range(2)])


def test_workers_that_only_lost_each_other_say_so():
    barrier = get_context("spawn").Barrier(2)
    barrier.abort()
    with ThreadPoolExecutor(2) as pool:
        with pytest.raises(BrokenBarrierError):
            results([pool.submit(barrier.wait) for _ in range(2)])
        assert results([pool.submit(int, text) for text in ("1", "2")]) == [1, 2]
