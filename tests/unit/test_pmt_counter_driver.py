"""The photon counter's driver on a mocked serial port."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qcodes.instrument import Instrument

from instruments.errors import (
    ConfigurationRefused,
    CounterOverflow,
    DeviceRefused,
    InstrumentError,
    InstrumentNotReady,
)
from instruments.pmt_counter import IDENTITY, VERSION, Flag, PmtCounter


@pytest.fixture(autouse=True)
def close_all(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    yield
    Instrument.close_all()


@pytest.fixture
def answers():
    """What is answered, by line: 300 gates, of which the last 200 had 0, 1, ... 199 counts."""
    blocks = {
        "C 200 128": " ".join(map(str, [300, *range(128)])),
        "C 72 72": " ".join(map(str, [300, *range(128, 200)])),
    }
    registers = {"R 0": f"{IDENTITY << 16 | VERSION}", "R 1": "33", "W 1 33": "OK", "R 3": "300"}
    return registers | blocks


@pytest.fixture
def counter(mocker, answers):
    resource = mocker.Mock(name="serial port", timeout=1_000.0)
    resource.query.side_effect = lambda line: answers.get(line, "ERR unknown command")
    return PmtCounter("pmt", "ASRL1::INSTR", resource=resource)


def test_a_threshold_that_is_not_taken_is_noticed(counter, answers):
    counter.threshold(33)
    answers["R 1"] = "32"
    with pytest.raises(DeviceRefused, match="has the threshold 32 and not 33"):
        counter.threshold(33)
    for wrong in (-1, 65_535, 1.5):
        with pytest.raises((ValueError, TypeError), match="threshold"):
            counter.threshold(wrong)


def test_counts_come_in_blocks_the_oldest_first(counter):
    assert counter.counts(200).tolist() == list(range(200))
    assert counter.histogram(200).tolist() == [1] * 200


def test_a_histogram_says_how_often_each_count_came(counter, answers):
    answers["C 5 5"] = "300 3 0 3 1 3"
    assert counter.histogram(5).tolist() == [1, 1, 0, 3]


@pytest.mark.parametrize("number", [0, -1, 4_097])
def test_the_number_of_gates_has_limits(counter, number):
    with pytest.raises(ConfigurationRefused, match=f"1 to 4096 gates, not of {number}"):
        counter.counts(number)


def test_gates_that_were_not_closed_have_no_counts(counter, answers):
    with pytest.raises(InstrumentNotReady, match="300 gates since its reset, not of 301"):
        counter.counts(301)
    answers["R 3"] = "0"
    with pytest.raises(InstrumentNotReady, match="0 gates"):
        counter.count()


def test_gates_that_close_during_the_read_out_are_noticed(counter, answers):
    answers["C 72 72"] = answers["C 72 72"].replace("300", "302", 1)
    with pytest.raises(InstrumentNotReady, match="counted 2 gates while it was read out; stop"):
        counter.counts(200)


def test_an_overflow_is_never_a_count(counter, answers):
    answers["C 1 1"] = "300 OVF"
    with pytest.raises(CounterOverflow, match="1 of 1 gates counted more than 65535"):
        counter.count()
    answers["C 3 3"] = "300 1 OVF OVF"
    with pytest.raises(CounterOverflow, match="2 of 3 gates"):
        counter.histogram(3)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("300 1 2", "2 counts instead of 3"),
        ("300 1 2 3 4", "4 counts instead of 3"),
        ("300 1  3", "answers '' for C, no number"),
        ("300 1 x 3", "answers 'x' for C, no number"),
        ("300 1 65536 3", "65536 for C, which is 65535 at most"),
        ("300 1 -2 3", "no number"),
        ("", "no number"),
        ("ERR busy", "refuses 'C 3 3': ERR busy"),
    ],
)
def test_garbled_counts_are_refused(counter, answers, answer, message):
    answers["C 3 3"] = answer
    with pytest.raises(DeviceRefused, match=message):
        counter.counts(3)


@given(st.text(st.sampled_from("0123456789 OVFERR-\u0663\n"), max_size=20))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_answer_is_counts_or_a_typed_error(counter, answers, answer):
    answers["C 2 2"] = answer
    try:
        counts = counter.counts(2).tolist()
    except InstrumentError:
        return
    assert answer.split() == ["300", *answer.split()[1:]]
    assert counts == [int(word) for word in answer.split()[1:]]
    assert all(count <= 0xFFFF for count in counts)


@pytest.mark.parametrize(
    ("flags", "outcome"),
    [
        (Flag.ANY_GATE, False),
        (Flag.ANY_GATE | Flag.BRIGHT, True),
        (Flag.ANY_GATE | Flag.BRIGHT | Flag.OVERFLOW, True),
        (0, "no gate was closed"),
        (Flag.ANY_GATE | Flag.GATE_OPEN, "the gate is open"),
        (16, "answers 16 for FLAGS, which is 15 at most"),
    ],
)
def test_the_comparator_is_read_when_the_gate_is_closed(counter, answers, flags, outcome):
    answers["R 2"] = str(int(flags))
    if isinstance(outcome, bool):
        assert counter.is_bright is outcome
    else:
        with pytest.raises(InstrumentError, match=outcome):
            assert counter.is_bright
