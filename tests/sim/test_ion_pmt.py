"""The photon counter's driver on the simulated counter."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from qcodes.utils import NumpyJSONEncoder

from instruments.errors import CounterOverflow, DeviceRefused, InstrumentNotReady
from instruments.pmt_counter import KEPT_GATES, PmtCounter, Register
from sim.ion.pmt import PmtCounterFault, SimulatedPmtCounter
from sim.serial_line import SerialLine

ADDRESS = "ASRL/dev/ttyUSB0::INSTR"


@pytest.fixture(autouse=True)
def private_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def chip():
    return SimulatedPmtCounter(threshold=33)


@pytest.fixture
def counter(chip):
    instrument = PmtCounter("pmt", ADDRESS, resource=SerialLine(chip, ADDRESS))
    yield instrument
    instrument.close()


def gate(chip: SimulatedPmtCounter, *photons: int) -> None:
    """One gate, in which photons come in some portions."""
    chip.set_gate(True)
    for number in photons:
        chip.count(number)
    chip.set_gate(False)


def test_photons_count_within_the_gate_only(chip, counter):
    chip.count(1_000)
    gate(chip, 10, 20)
    chip.count(70_000)
    assert counter.count() == 30
    assert (chip.bright, chip.overflowed) == (False, False)


def test_the_comparator_tells_more_than_the_threshold(chip, counter):
    levels = []
    for photons in (33, 34):
        gate(chip, photons)
        levels.append((chip.bright, counter.is_bright))
    assert levels == [(False, False), (True, True)]
    counter.threshold(34)
    gate(chip, 34)
    assert not counter.is_bright
    assert (counter.gates(), counter.bright_gates(), counter.overflows()) == (3, 1, 0)


def test_the_comparator_is_low_while_a_gate_is_open(chip, counter):
    gate(chip, 100)
    chip.set_gate(True)
    chip.count(100)
    assert chip.is_open
    assert not chip.bright
    with pytest.raises(InstrumentNotReady, match="the gate is open"):
        assert counter.is_bright
    # The gate before it still has its count, and not that of the open one.
    chip.count(1)
    assert counter.count() == 100


def test_levels_that_do_not_change_are_no_edges(chip, counter):
    chip.set_gate(False)
    chip.set_gate(True)
    chip.count(5)
    chip.set_gate(True)
    chip.set_gate(False)
    chip.set_gate(False)
    assert (counter.gates(), counter.count()) == (1, 5)


def test_an_overflow_stops_the_count_and_is_bright(chip, counter):
    counter.threshold(65_534)
    gate(chip, 65_535)
    assert (counter.count(), counter.is_bright, chip.overflowed) == (65_535, True, False)
    gate(chip, 65_535, 1)
    assert (counter.is_bright, chip.overflowed, counter.overflows()) == (True, True, 1)
    with pytest.raises(CounterOverflow):
        counter.count()
    with pytest.raises(CounterOverflow):
        counter.histogram(2)
    chip.set_gate(True)
    assert not chip.overflowed
    chip.set_gate(False)
    assert counter.count() == 0


@given(st.lists(st.integers(0, 300), min_size=1, max_size=400), st.integers(1, 400))
def test_the_last_counts_come_back(photons, number):
    chip = SimulatedPmtCounter()
    counter = PmtCounter("pmt_any", "ASRL9::INSTR", resource=SerialLine(chip))
    try:
        for photon in photons:
            gate(chip, photon)
        if number > len(photons):
            with pytest.raises(InstrumentNotReady):
                counter.counts(number)
            return
        assert counter.counts(number).tolist() == photons[-number:]
        assert counter.histogram(number).tolist() == np.bincount(photons[-number:]).tolist()
    finally:
        counter.close()


def test_as_many_counts_are_kept_as_can_be_asked_for(chip, counter):
    for number in range(KEPT_GATES + 100):
        gate(chip, number)
    assert counter.counts(KEPT_GATES).tolist() == list(range(100, KEPT_GATES + 100))


def test_a_reset_forgets_all_but_the_threshold(chip, counter):
    gate(chip, 70_000)
    counter.reset()
    assert (counter.gates(), counter.bright_gates(), counter.overflows()) == (0, 0, 0)
    assert (chip.bright, chip.overflowed, counter.threshold()) == (False, False, 33)
    with pytest.raises(InstrumentNotReady, match="0 gates"):
        counter.count()
    with pytest.raises(InstrumentNotReady, match="no gate was closed"):
        assert counter.is_bright


@given(st.text(st.sampled_from("RWC 0123456789x"), max_size=14))
def test_any_line_is_answered(line):
    answer = SimulatedPmtCounter().answer(line)
    assert answer == "OK" or answer.isdigit() or answer.startswith("ERR ")


@pytest.mark.parametrize(
    "line",
    ["W 1 65535", "W 3 0", "R 6", "R 7", "C 0 0", "C 1 2", "C 200 129", "C 1", "", "R", "R -1"],
)
def test_what_the_counter_does_not_know_it_refuses(chip, counter, line):
    gate(chip, 1)
    with pytest.raises(DeviceRefused, match="ERR"):
        counter._exchange(line)
    assert counter.count() == 1


@pytest.mark.parametrize("gates", [0, 1])
def test_the_snapshot_can_be_read_and_stored(chip, counter, gates):
    for _ in range(gates):
        gate(chip, 50)
    snapshot = json.loads(json.dumps(counter.snapshot(update=True), cls=NumpyJSONEncoder))
    values = {name: entry["value"] for name, entry in snapshot["parameters"].items()}
    assert (values["threshold"], values["gates"]) == (33, gates)


def test_wrong_uses_of_the_simulation(chip):
    with pytest.raises(PmtCounterFault, match="-1 photons"):
        chip.count(-1)
    with pytest.raises(ValueError, match="threshold of 65535"):
        SimulatedPmtCounter(65_535)
    assert Register.RESET not in chip._readable()
