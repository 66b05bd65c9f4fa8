"""The pulse sequencer's driver on the simulated sequencer."""

from __future__ import annotations

import json

import pytest
from qcodes.utils import NumpyJSONEncoder

from instruments.errors import DeviceRefused, InstrumentInUse, InstrumentNotReady
from instruments.pulse_sequencer import PulseSequencer, SequencerState
from sequences.ion import IonOperation, IonSequenceSettings, TtlLine, ion_program
from sequences.sequencer_assembler import SequencerProgram, assemble
from sim.ion.sequencer import SequencerCore
from sim.ion.sequencer_line import EXCHANGE_NS, SequencerLine

ADDRESS = "TCPIP::192.168.0.220::7000::SOCKET"
SETTINGS = IonSequenceSettings()


@pytest.fixture(autouse=True)
def private_locks(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def core():
    return SequencerCore()


@pytest.fixture
def line(core):
    return SequencerLine(core, ADDRESS)


@pytest.fixture
def sequencer(line, core):
    """Its clock is the simulated one."""
    instrument = PulseSequencer(
        "sequencer", ADDRESS, resource=line, monotonic=lambda: core.time_ns * 1e-9
    )
    yield instrument
    instrument.close()


def test_the_ion_program_runs_and_executes_every_code(sequencer, core):
    assert sequencer.state() == "EMPTY"
    program = ion_program(SETTINGS)
    sequencer.load(program)
    assert (sequencer.program_size(), sequencer.state()) == (len(program.words), "STOPPED")
    sequencer.start()
    assert (sequencer.state(), core.words) == ("RUNNING", program.words)
    risen: list[TtlLine] = []
    core.on_ttl(
        lambda _, before, after: risen.extend(
            line for line in TtlLine if after & ~before & line.mask
        )
    )
    for operation in IonOperation:
        sequencer.trigger(operation)
    assert risen.count(TtlLine.DONE) == len(IonOperation)
    assert risen.count(TtlLine.RF_729) == 5 + SETTINGS.sideband_cycles
    with pytest.raises(DeviceRefused, match="no subroutine for code 0"):
        sequencer.trigger(0)
    assert risen.count(TtlLine.ERROR) == 1
    sequencer.trigger(IonOperation.MEASURE)
    assert sequencer.inputs() == 0


def test_a_code_that_takes_too_long_is_given_up(sequencer, core):
    sequencer.load(ion_program(SETTINGS))
    sequencer.start()
    with pytest.raises(DeviceRefused, match=r"not execute code 1 within 0\.005 s: it is RUN"):
        sequencer.trigger(IonOperation.INITIALISE, timeout_s=0.005)
    with pytest.raises(InstrumentNotReady, match="takes no code"):
        sequencer.trigger(IonOperation.MEASURE)
    core.run_to(core.time_ns + 10_000_000)
    sequencer.trigger(IonOperation.MEASURE)


def test_stop_takes_the_light_off(sequencer, core):
    sequencer.load(ion_program(SETTINGS))
    sequencer.start()
    sequencer.inputs(IonOperation.INITIALISE)
    sequencer.inputs(IonOperation.INITIALISE | 8)
    core.run_to(core.time_ns + 1_000)
    assert sequencer.outputs() & TtlLine.DOPPLER_397.mask
    sequencer.stop()
    assert (sequencer.outputs(), sequencer.state()) == (0, "STOPPED")
    sequencer.inputs(0)
    sequencer.start()
    sequencer.trigger(IonOperation.X_PI)


def test_a_fault_is_shown_with_its_reason(sequencer, core):
    sequencer.load(SequencerProgram((0xC0000001, 0x60000000), {}, ""))
    with pytest.raises(DeviceRefused, match=r"FAULT at address 1 after its start: .*ret without a"):
        sequencer.start()
    status = sequencer.status()
    assert (status.state, status.address) == (SequencerState.FAULT, 1)
    assert "ret without a call" in status.reason
    sequencer.load(assemble("p 0, 3\nhalt"))
    sequencer.start()
    assert (sequencer.state(), sequencer.outputs()) == ("HALTED", 3)
    sequencer.stop()


def test_a_program_is_replaced_as_a_whole(sequencer, line, core):
    sequencer.load(ion_program(SETTINGS))
    sequencer.start()
    assert line.query("ERASE").startswith("ERR a program runs")
    assert line.query("LOAD 401 00000000").startswith("ERR a program runs")
    sequencer.load(assemble("p 0, 7\nhalt"))
    sequencer.start()
    assert (core.ttl, sequencer.program_size()) == (7, 7)
    before = sequencer.program_checksum()
    sequencer.load(assemble("p 0, 6\nhalt"))
    assert len(before) == 8
    assert sequencer.program_checksum() not in ("", before)


def test_a_flipped_bit_in_the_memory_is_found(sequencer, line, mocker):
    dump = line.query
    mocker.patch.object(
        line,
        "query",
        side_effect=lambda message: (
            dump(message).replace("c0000007", "c0000006")
            if message.startswith("DUMP")
            else dump(message)
        ),
    )
    with pytest.raises(DeviceRefused, match="has c0000006 at address 0, where c0000007 was loaded"):
        sequencer.load(assemble("p 0, 7\nhalt"))
    with pytest.raises(InstrumentNotReady):
        sequencer.start()


@pytest.mark.parametrize(
    ("message", "answer"),
    [
        ("HELLO", "ERR unknown command"),
        ("", "ERR unknown command"),
        ("RUN", "ERR there is no program"),
        ("LOAD 1 00000000", "ERR the next address is 0"),
        ("LOAD 0", "ERR a line holds 1 to 32 words"),
        ("LOAD 0" + " 0" * 33, "ERR a line holds 1 to 32 words"),
        ("LOAD 0 100000000", "ERR a word has 32 bits"),
        ("LOAD x 0", "ERR no decimal number"),
        ("LOAD 0 x", "ERR no hexadecimal number"),
        ("DUMP 0 1", "ERR there are 0 words, and 32 in a line"),
        ("INPUT 200", "ERR there are 9 inputs"),
        ("x" * 401, "ERR the line is too long"),
    ],
)
def test_wrong_lines_are_refused(line, message, answer):
    assert line.query(message) == answer


def test_the_memory_has_an_end(line, monkeypatch):
    monkeypatch.setattr("sim.ion.sequencer_line.MAX_WORDS", 3)
    assert line.query("LOAD 0 0 0") == "OK"
    assert line.query("LOAD 2 0 0") == "ERR there is room for 3 words"


def test_inputs_are_bounded(sequencer, core):
    with pytest.raises(ValueError, match="inputs"):
        sequencer.inputs(512)
    assert core.inputs == 0


def test_time_passes_with_the_exchanges_or_as_the_laboratory_says(core):
    passed: list[int] = []
    SequencerLine(core).query("STATE?")
    assert core.time_ns == EXCHANGE_NS
    SequencerLine(core, pass_time=passed.append).query("STATE?")
    assert (core.time_ns, passed) == (EXCHANGE_NS, [EXCHANGE_NS])


def test_a_closed_line_does_not_answer(sequencer, line):
    line.close()
    with pytest.raises(DeviceRefused, match=r"does not answer 'STATE\?'.*is closed"):
        sequencer.status()


def test_one_owner_until_it_is_closed(sequencer, core):
    with pytest.raises(InstrumentInUse):
        PulseSequencer("second", ADDRESS, resource=SequencerLine(core, ADDRESS))
    sequencer.close()
    sequencer.close()
    PulseSequencer("second", ADDRESS, resource=SequencerLine(core, ADDRESS)).close()


def test_the_snapshot_tells_which_program_runs(sequencer):
    sequencer.load(assemble("p 0, 7\nhalt"))
    snapshot = sequencer.snapshot(update=True)
    text = json.dumps(snapshot, cls=NumpyJSONEncoder)
    assert (
        json.loads(text)["parameters"]["program_checksum"]["value"] == sequencer.program_checksum()
    )
