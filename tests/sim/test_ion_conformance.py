"""The trapped-ion node made of simulated instruments keeps the contract of a QDevice."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from drivers.ion_setup import IonSettings
from drivers.trapped_ion import ION_CAPABILITIES, PULSES
from instruments.ion_board import Register
from qnodeos.qdevice import conformance
from qnodeos.qdevice.conformance import CHECKS, ConformanceError, Expectations, check_qdevice
from qnodeos.qdevice.instructions import Opcode
from sim.ion.board import SimulatedBoard
from sim.ion.build import SimulatedIonNode
from sim.ion.node import InstrumentIonDevice
from sim.ion.physics import IonPhysics
from sim.ion_timing import IonTiming
from tests.conformance import FOR_REGISTERS
from tests.conformance.test_ion import NEEDS_A_LINK
from tests.sim.ion_harness import SHORT

EXACT = Expectations(rotations=frozenset(PULSES), fidelity=0.99, shots=40)
NOISY = Expectations(rotations=frozenset(PULSES), fidelity=0.95, shots=60)
"""Three pulses cost 1 % each."""

Maker = Callable[..., Callable[[], InstrumentIonDevice]]


@pytest.fixture(autouse=True)
def private_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def devices() -> Iterator[Maker]:
    """Makes makers of devices, each with instruments of its own and the next seed."""
    with ExitStack() as last:

        def maker(
            physics: IonPhysics, settings: IonSettings | None = None
        ) -> Callable[[], InstrumentIonDevice]:
            seeds = iter(range(1_000))

            def make() -> InstrumentIonDevice:
                last.close()
                node = SimulatedIonNode(physics, settings, seed=next(seeds))
                return last.enter_context(node).device

            return make

        yield maker


def quick() -> IonSettings:
    """A node whose sequences take a few ticks, for an ion that is bright and cold anyway."""
    return IonSettings(sequences=SHORT, threshold=3)


def test_the_instrument_level_conforms(devices):
    report = check_qdevice(devices(IonPhysics()), NOISY)
    assert set(report.skipped) == NEEDS_A_LINK | FOR_REGISTERS
    assert set(report.checks) == {check.rule for check in CHECKS} - set(report.skipped)
    timing = IonTiming()
    assert report.ticks == {
        Opcode.INI: (timing.initialise_ticks,) * 2,
        Opcode.SQG: (timing.half_pi_ticks, timing.pi_ticks),
        Opcode.MSR: (timing.measure_ticks,) * 2,
    }


def test_short_sequences_conform(devices):
    check_qdevice(devices(IonPhysics.noiseless(), quick()), EXACT)


def test_the_device_is_what_the_driver_drives(devices):
    capabilities = devices(IonPhysics())().capabilities
    for name in ("qubits", "instructions", "tick_ns", "links"):
        assert getattr(capabilities, name) == getattr(ION_CAPABILITIES, name)


# --- the suite notices what is broken ------------------------------------------------------------


def only(monkeypatch: pytest.MonkeyPatch, rule: str) -> None:
    monkeypatch.setattr(
        conformance, "CHECKS", tuple(check for check in CHECKS if check.rule == rule)
    )


STATES = "states that are prepared are measured"


def test_a_laser_off_resonance_does_not_conform(devices, monkeypatch):
    only(monkeypatch, STATES)
    detuned = IonSettings(sequences=SHORT, threshold=3, carrier_hz=80.1e6)
    with pytest.raises(ConformanceError, match=STATES):
        check_qdevice(devices(IonPhysics.noiseless(), detuned), EXACT)


def test_swapped_codes_do_not_conform(devices, monkeypatch):
    only(monkeypatch, STATES)
    make = devices(IonPhysics.noiseless(), quick())

    def swapped() -> InstrumentIonDevice:
        device: InstrumentIonDevice = make()
        for register, code in ((Register.CODE_X_HALF, 5), (Register.CODE_Y_HALF, 4)):
            assert device.node.board.answer(f"W {register.value} {code}") == "OK"
        return device

    with pytest.raises(ConformanceError, match=STATES):
        check_qdevice(swapped, EXACT)


def test_a_wrong_threshold_does_not_conform(devices, monkeypatch):
    only(monkeypatch, STATES)
    with pytest.raises(ConformanceError, match=STATES):
        check_qdevice(
            devices(IonPhysics.noiseless(), IonSettings(sequences=SHORT, threshold=60)), EXACT
        )


def test_an_answer_before_its_time_does_not_conform(devices, monkeypatch):
    rule = "next_tick keeps its word"
    only(monkeypatch, rule)
    exchange = SimulatedBoard.exchange

    def early(self: SimulatedBoard, tick: int, time_ns: int, frame: int) -> int:
        return exchange(self, tick, max(time_ns, self.completed_ns), frame)

    monkeypatch.setattr(SimulatedBoard, "exchange", early)
    with pytest.raises(ConformanceError, match=rule):
        check_qdevice(devices(IonPhysics.noiseless(), quick()), EXACT)
