"""The device made of simulated instruments keeps the contract of a QDevice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from qnodeos.qdevice import conformance
from qnodeos.qdevice.conformance import CHECKS, ConformanceError, Expectations, check_qdevice
from qnodeos.qdevice.instructions import Opcode
from sim.lab.build import NodeSpec, SimulatedLaboratory
from sim.lab.device import InstrumentNVDevice
from sim.nv.physics import NVPhysics
from tests.conformance import FOR_REGISTERS
from tests.sim.lab_harness import (
    NOISELESS,
    Lockstep,
    PlainDevice,
    altered_program,
    node_settings,
    use_program,
)

NOISY = Expectations(fidelity=0.9, shots=100)
"""|0> is prepared with 0.99 and read with 0.95; four pulses cost less than 1 %."""

EXACT = Expectations(fidelity=0.99, shots=40)

Maker = Callable[..., Callable[[], InstrumentNVDevice]]


@pytest.fixture
def devices() -> Iterator[Maker]:
    """Makes makers of devices, each in a laboratory of its own and with the next seed."""
    with ExitStack() as last:

        def maker(physics: NVPhysics, links: int = 1) -> Callable[[], InstrumentNVDevice]:
            seeds = iter(range(1_000))

            def make() -> InstrumentNVDevice:
                last.close()
                spec = NodeSpec("client", physics, node_settings(links=links))
                lab = last.enter_context(SimulatedLaboratory([spec], seed=next(seeds)))
                return lab.nodes["client"].device

            return make

        yield maker


def test_a_node_conforms(devices):
    report = check_qdevice(devices(NVPhysics()), NOISY)
    assert set(report.skipped) == FOR_REGISTERS
    assert set(report.checks) == {check.rule for check in CHECKS} - FOR_REGISTERS
    shortest = {opcode: ticks[0] for opcode, ticks in report.ticks.items()}
    assert shortest[Opcode.SQG] == shortest[Opcode.PMG] == 1
    assert report.ticks[Opcode.PMG] == (1, 1)
    # A charge check of some 10 us and the spin pump; a readout of some 200 us.
    assert shortest[Opcode.INI] == 2
    assert 15 < shortest[Opcode.MSR] < 30


def only(monkeypatch: pytest.MonkeyPatch, *rules: str) -> None:
    monkeypatch.setattr(conformance, "CHECKS", [each for each in CHECKS if each.rule in rules])
    assert len(conformance.CHECKS) == len(rules)


def test_a_node_without_a_link_refuses_entanglement(devices, monkeypatch):
    only(
        monkeypatch,
        "opcodes that are unknown or not supported are refused",
        "axes and links that do not exist are refused",
        "qubits that do not exist are refused",
    )
    report = check_qdevice(devices(NOISELESS, links=0))
    assert report.skipped == ()
    assert not report.ticks


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (
            "detail = DETAIL_BOOT",
            "detail = 0",
            "a device that has just started executes nothing before a session",
        ),
        (
            "(ticks + 1)",
            "(ticks XOR 1)",
            "an idle device sends valid frames and its tick counter advances",
        ),
        (
            "  answered = accepted",
            "  answered = 0",
            "every supported instruction is answered exactly once, a tick later or more",
        ),
        (
            "(FIRST_ROTATION + argument) OR AWG_KEEP",
            "(FIRST_ROTATION + (argument AND 31)) OR AWG_KEEP",
            "states that are prepared are measured",
        ),
        (
            "IF (qubit <> 0) THEN",
            "IF (qubit > 3) THEN",
            "qubits that do not exist are refused",
        ),
        (
            "<> (command AND CRC_MASK)",
            "- (command AND CRC_MASK) > 1023",
            "a damaged command is ignored",
        ),
        (
            "((word AND 0Fh) <> NOP) AND ",
            "",
            "a NOP is no instruction",
        ),
        (
            " AND (sequence <> accepted) AND (acknowledge = accepted)",
            "",
            "a repeated command is not answered again",
        ),
        (
            "        answered = 0",
            "        answered = 1",
            "a new session drops old outcomes",
        ),
    ],
)
def test_a_fault_of_one_line_breaks_a_rule(devices, monkeypatch, tmp_path, old, new, rule):
    use_program(monkeypatch, altered_program(tmp_path, old, new))
    only(monkeypatch, rule)
    with pytest.raises(ConformanceError, match=rule):
        check_qdevice(devices(NOISELESS), EXACT)


def test_an_instruction_begun_while_another_is_executed_breaks_a_rule(monkeypatch, tmp_path):
    # The device runs ahead and keeps such frames from the program; here it gets every one.
    rule = "a second instruction waits until the first is answered"
    only(monkeypatch, rule)

    def check() -> None:
        spec = NodeSpec("client", NOISELESS)
        with SimulatedLaboratory([spec], skipping=False) as lab:
            check_qdevice(lambda: PlainDevice(Lockstep(lab), lab.nodes["client"]))

    check()
    use_program(monkeypatch, altered_program(tmp_path, "IF (was_idle = 1) THEN", "IF (1 = 1) THEN"))
    with pytest.raises(ConformanceError, match=rule):
        check()
