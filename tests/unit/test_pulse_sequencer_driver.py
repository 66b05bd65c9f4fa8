"""The pulse sequencer's driver on a mocked VISA resource."""

from __future__ import annotations

import zlib

import pytest
import pyvisa
from pyvisa.constants import StatusCode
from pyvisa.resources import TCPIPSocket

from instruments import pulse_sequencer
from instruments.errors import (
    ConfigurationRefused,
    DeviceRefused,
    IncompatibleInstrument,
    InstrumentInUse,
    InstrumentNotReady,
)
from instruments.pulse_sequencer import PulseSequencer
from sequences.sequencer_assembler import SequencerProgram, assemble

ADDRESS = "TCPIP::10.0.0.9::7000::SOCKET"
PROGRAM = assemble("p 0, 1\n" * 40 + "halt")


@pytest.fixture
def answers():
    """What the sequencer answers; a list is used up, one after the other."""
    return {
        "ID?": "QSEQ 1 1000",
        "SIZE?": "46",
        "STATE?": "RUNNING 3",
        "OUT?": "0000000000000000",
        "ROSE?": "0000000000000000",
        "DUMP 0 32": " ".join(["c0000001"] * 32),
        "DUMP 32 14": " ".join(["C0000001"] * 8 + ["80000000"] + ["00000000"] * 5),
    }


@pytest.fixture
def resource(mocker, monkeypatch, tmp_path, answers):
    """A mock with the shape of pyvisa's socket."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    mock = mocker.create_autospec(TCPIPSocket, instance=True)
    mock.resource_name, mock.visalib, mock.timeout = ADDRESS, mocker.Mock(), 5_000.0

    def query(line):
        answer = answers.get(line, "OK")
        if isinstance(answer, list):
            answer = answer.pop(0)
        if answer is None:
            raise pyvisa.VisaIOError(StatusCode.error_timeout)
        return answer

    mock.query.side_effect = query
    return mock


@pytest.fixture
def clock():
    """Seconds, one more at every look."""
    return iter(range(1_000))


@pytest.fixture
def sequencer(resource, clock):
    instrument = PulseSequencer(
        "sequencer", ADDRESS, resource=resource, monotonic=lambda: float(next(clock))
    )
    resource.query.reset_mock()
    yield instrument
    instrument.close()


def lines(resource):
    return [call.args[0] for call in resource.query.call_args_list]


def test_a_program_is_sent_in_lines_and_read_back(sequencer, resource):
    sequencer.load(PROGRAM)
    sent = lines(resource)
    assert sent[:2] == ["STOP", "ERASE"]
    assert sent[2] == "LOAD 0 " + " ".join(["c0000001"] * 32)
    assert sent[3].startswith("LOAD 32 c0000001 ")
    assert sent[3].endswith(" 80000000 00000000 00000000 00000000 00000000 00000000")
    assert sent[4:] == ["SIZE?", "DUMP 0 32", "DUMP 32 14"]
    image = bytes.fromhex("c0000001" * 40 + "80000000" + "00000000" * 5)
    assert sequencer.program_checksum() == f"{zlib.crc32(image):08x}"
    sequencer.start()
    assert lines(resource)[-2:] == ["RUN", "STATE?"]


@pytest.mark.parametrize(
    ("line", "answer", "message"),
    [
        ("SIZE?", "45", "has 45 words after 46 were loaded"),
        ("SIZE?", "many", "answers 'many' to 'SIZE\\?', no number"),
        ("DUMP 0 32", " ".join(["c0000001"] * 31), "not 32 words"),
        ("DUMP 0 32", " ".join(["c0000001"] * 31 + ["z"]), "where hexadecimal is due"),
        (
            "DUMP 32 14",
            " ".join(["c0000001"] * 7 + ["c0000003", "80000000"] + ["0"] * 5),
            "has c0000003 at address 39, where c0000001 was loaded",
        ),
        ("ERASE", "ERR busy", "refuses 'ERASE': ERR busy"),
        ("STOP", "what", "answers 'what' to 'STOP', not OK"),
        ("STOP", None, "does not answer 'STOP'.*check its power"),
    ],
)
def test_a_program_that_did_not_arrive_is_not_started(sequencer, answers, line, answer, message):
    sequencer.load(PROGRAM)
    answers[line] = answer
    with pytest.raises(DeviceRefused, match=message):
        sequencer.load(PROGRAM)
    if line == "STOP":
        return  # the old program is still there
    assert sequencer.program_checksum() == ""
    with pytest.raises(InstrumentNotReady, match="no verified program"):
        sequencer.start()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "a program of 0 words; it must have 1 to 1000"),
        ((0,) * 1_001, "a program of 1001 words"),
        ((0, 0x10000000), "word 1: word 0x10000000 has an unknown opcode"),
        ((0xC0000001 | 1 << 32,), "word 0: "),
    ],
)
def test_what_cannot_run_is_not_sent(sequencer, resource, words, message):
    with pytest.raises(ConfigurationRefused, match=message):
        sequencer.load(SequencerProgram(words, {}, ""))
    assert lines(resource) == []


def test_a_start_that_fails_is_told(sequencer, answers):
    sequencer.load(PROGRAM)
    answers["STATE?"] = "FAULT 7 it broke"
    with pytest.raises(DeviceRefused, match="is FAULT at address 7 after its start: it broke"):
        sequencer.start()
    answers["STATE?"] = "HALTED 46"
    sequencer.start()


@pytest.mark.parametrize("answer", ["RUNNING", "RUNNING x", "ASLEEP 3", ""])
def test_nonsense_for_a_state_is_refused(sequencer, answers, answer):
    answers["STATE?"] = answer
    with pytest.raises(DeviceRefused, match=f"answers '{answer}' for its state"):
        sequencer.status()


def test_a_code_is_held_until_it_is_done(sequencer, resource, answers):
    answers["ROSE?"] = ["0", "400", "0", "800"]
    answers["OUT?"] = ["0", "400", "0"]
    sequencer.trigger(5, timeout_s=100)
    assert [line for line in lines(resource) if line.startswith("INPUT")] == [
        "INPUT 5",
        "INPUT d",
        "INPUT 0",
    ]


def test_a_code_without_subroutine_is_refused(sequencer, resource, answers):
    answers["ROSE?"] = ["0", "1400"]
    with pytest.raises(DeviceRefused, match="no subroutine for code 0"):
        sequencer.trigger(0)
    assert lines(resource)[-1] == "INPUT 0"


def test_a_code_that_does_not_end_is_given_up(sequencer, resource, answers):
    with pytest.raises(DeviceRefused, match=r"not execute code 7 within 3 s: it is RUNNING at ad"):
        sequencer.trigger(7, timeout_s=3)
    assert lines(resource)[-1] == "INPUT 0"
    answers["ROSE?"] = ["0", "800"]
    answers["OUT?"] = ["0"] + ["400"] * 9
    with pytest.raises(DeviceRefused, match="does not end code 7 within 3 s"):
        sequencer.trigger(7, timeout_s=3)


def test_a_clock_that_stands_still_ends_a_wait_too(resource, monkeypatch):
    monkeypatch.setattr(pulse_sequencer, "MAX_POLLS", 10)
    instrument = PulseSequencer("still", ADDRESS, resource=resource, monotonic=lambda: 0.0)
    with pytest.raises(DeviceRefused, match="does not execute code 7"):
        instrument.trigger(7)
    instrument.close()


def test_codes_are_refused_at_the_wrong_time(sequencer, answers):
    with pytest.raises(ConfigurationRefused, match="no code 8"):
        sequencer.trigger(8)
    answers["OUT?"] = "400"
    with pytest.raises(InstrumentNotReady, match="RUNNING, outputs 0x400"):
        sequencer.trigger(1)
    answers["OUT?"], answers["STATE?"] = "0", "STOPPED 0"
    with pytest.raises(InstrumentNotReady, match="it is STOPPED"):
        sequencer.trigger(1)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("QSEQ 2 1000", "has version 2, this driver knows version 1"),
        ("Rohde&Schwarz,SGS100A", "is no pulse sequencer"),
        ("ERR unknown command", "refuses"),
        (None, "does not answer 'ID\\?'"),
    ],
)
def test_something_else_is_refused(resource, answers, answer, message):
    answers["ID?"] = answer
    with pytest.raises((IncompatibleInstrument, DeviceRefused), match=message):
        PulseSequencer("other", ADDRESS, resource=resource)
    resource.close.assert_called()
    answers["ID?"] = "QSEQ 1 1000"
    PulseSequencer("other", ADDRESS, resource=resource).close()


def test_one_owner(sequencer, resource):
    with pytest.raises(InstrumentInUse, match="already"):
        PulseSequencer("sequencer", ADDRESS, resource=resource)
    with pytest.raises(InstrumentInUse, match="open already"):
        PulseSequencer("another", ADDRESS, resource=resource)


def test_lines_end_with_newlines(resource):
    PulseSequencer("terminated", ADDRESS, resource=resource).close()
    assert (resource.read_termination, resource.write_termination) == ("\n", "\n")


def test_identity(sequencer):
    assert sequencer.get_idn()["firmware"] == "1"
