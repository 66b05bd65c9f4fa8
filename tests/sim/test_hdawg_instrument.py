"""Our QCoDeS driver on the simulated HDAWG."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from qcodes.utils import NumpyJSONEncoder

from instruments import hdawg
from instruments.errors import (
    CompilationRefused,
    ConfigurationRefused,
    DeviceRefused,
    InstrumentError,
    InstrumentInUse,
    InstrumentUnavailable,
)
from instruments.hdawg import HDAWG, compile_program
from sim.hdawg import SimulatedDataServer, SimulatedHdawg
from tests.sim.hdawg_setup import SERIAL, open_instrument, small_program


@pytest.fixture
def opened(tmp_path):
    instrument, device = open_instrument(tmp_path)
    yield instrument, device
    instrument.close()


def test_a_loaded_program_plays_what_the_lines_command(opened):
    instrument, device = opened
    program = small_program()
    compiled = instrument.load(0, program)
    assert compiled.warnings == ()
    instrument.dio.mode("awg_sequencer_commands")
    core = instrument.cores[0]
    core.strobe_line(31)
    core.strobe_slope("rising_edge")
    for output in instrument.outputs[:2]:
        output.on(1)
    instrument.start(0)
    assert core.running()
    for number, entry in enumerate([1, 0, 1]):
        device.write_dio(20_000 * (number + 1), 1 << 31 | entry)
        device.write_dio(20_000 * (number + 1) + 1000, 0)
    device.run_until(100_000)
    plays = list(device.cores[0].player.timeline.plays())
    assert [play.entry for play in plays] == [1, 0, 1]
    for play in plays:
        shown = device.output(0, play.start_sample, play.stop_sample)
        assert np.max(np.abs(shown - program.waveforms[play.entry])) <= 0.5001 / 32767
    assert len(device.cores[0].trigger_edges) == 6
    instrument.stop(0)
    assert not core.running()


def test_loading_again_replaces_everything(opened):
    instrument, device = opened
    instrument.load(1, small_program((32, 48, 64)))
    instrument.load(1, small_program((80,)))
    assert set(device.cores[1].words) == {0}
    assert (
        instrument.cores[1].program_sha256() == compile_program(small_program((80,))).source_sha256
    )


def test_the_snapshot_can_be_read_and_stored(opened):
    instrument, _ = opened
    instrument.load(2, small_program())
    instrument.cores[2].strobe_slope("both_edges")
    instrument.outputs[3].range_v(0.6)
    instrument.marks[4].source("output1_marker0")
    instrument.lock_reference("external")
    snapshot = json.loads(json.dumps(instrument.snapshot(update=True), cls=NumpyJSONEncoder))
    cores = snapshot["submodules"]["cores"]["channels"]
    values = {name: entry["value"] for name, entry in cores["awg_core2"]["parameters"].items()}
    assert values == {
        "running": False,
        "strobe_line": 0,
        "strobe_slope": "both_edges",
        "valid_line": 0,
        "valid_polarity": "none",
        "program_sha256": instrument.cores[2].loaded.source_sha256,
        "wave_memory_fraction": pytest.approx(2 * (32 + 48) / 2**19),
    }
    outputs = snapshot["submodules"]["outputs"]["channels"]
    assert outputs["awg_output3"]["parameters"]["range_v"]["value"] == 0.6
    assert outputs["awg_output3"]["parameters"]["range_v"]["unit"] == "V"
    dio = snapshot["submodules"]["dio"]["parameters"]
    assert {name: dio[name]["value"] for name in dio} == {
        "mode": "manual",
        "interface": 0,
        "drive": 0,
    }
    marks = snapshot["submodules"]["marks"]["channels"]
    assert len(marks) == 8
    assert marks["awg_mark4"]["parameters"]["source"]["value"] == "output1_marker0"
    reference = snapshot["submodules"]["reference"]["parameters"]
    assert {name: reference[name]["value"] for name in reference} == {
        "source": "external",
        "status": "locked",
    }


def test_a_program_for_several_cores_is_compiled_once_and_the_same_for_each(opened, mocker):
    instrument, device = opened
    compiler = mocker.spy(hdawg, "compile_seqc")
    program = small_program()
    compiled = instrument.load_all((0, 1, 3), program)
    assert compiler.call_count == 1
    for core in (0, 1, 3):
        assert instrument.cores[core].loaded is compiled
        assert set(device.cores[core].words) == {0, 1}
        assert compile_program(program, core=core).elf == compiled.elf
    assert device.cores[2].program is None


def test_one_core_that_runs_keeps_a_program_from_all(opened):
    instrument, device = opened
    instrument.load(1, small_program())
    instrument.start(1)
    with pytest.raises(ConfigurationRefused, match="core 1 is running; stop it first"):
        instrument.load_all((0, 1), small_program())
    assert device.cores[0].program is None
    with pytest.raises(ConfigurationRefused, match="a program needs a core"):
        instrument.load_all((), small_program())


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        (lambda h: h.cores[0].strobe_line, 32),
        (lambda h: h.cores[0].strobe_line, 1.5),
        (lambda h: h.cores[0].valid_line, -1),
        (lambda h: h.cores[0].strobe_slope, "upwards"),
        (lambda h: h.cores[0].valid_polarity, 2),
        (lambda h: h.outputs[0].on, 2),
        (lambda h: h.outputs[0].range_v, 0.7),
        (lambda h: h.outputs[0].offset_v, 1.3),
        (lambda h: h.dio.mode, "automatic"),
        (lambda h: h.dio.interface, 2),
        (lambda h: h.dio.drive, 16),
        (lambda h: h.marks[7].source, "output2_marker0"),
        (lambda h: h.marks[0].source, "trigin0"),
        (lambda h: h.reference.source, "atomic"),
    ],
)
def test_parameters_have_limits(opened, setting, value):
    parameter = setting(opened[0])
    before = parameter()
    with pytest.raises((ValueError, TypeError)):
        parameter(value)
    assert parameter() == before


# --- programs that are wrong ----------------------------------------------------------------


def with_source(**changes: str):
    program = small_program()
    source = program.source
    for old, new in changes.items():
        source = source.replace({"wave": "placeholder(48)", "end": "setTrigger(0);"}[old], new)
    return replace(program, source=source)


def with_table(*entries: dict[str, object]):
    program = small_program()
    return replace(
        program, command_table={"header": {"version": "1.2"}, "table": [{"index": 9}, *entries]}
    )


WRONG = [
    (with_source(end="fly(3);"), CompilationRefused, "calling unknown function 'fly'"),
    (with_source(end="setTrigger(0"), CompilationRefused, "refuses the program"),
    (with_source(end="executeTableEntry(5000);"), CompilationRefused, "Invalid table index"),
    (with_source(end="playZero(33);"), CompilationRefused, "extended to 48 samples"),
    (with_source(end="playZero(16);"), CompilationRefused, "below minimum of 32 samples"),
    (with_source(wave="placeholder(41)"), CompilationRefused, "zero-extended to 48 samples"),
    (with_source(wave="placeholder(16)"), CompilationRefused, "zero-extended to 32 samples"),
    (small_program((4096,) * 130), CompilationRefused, "take 1.016 of the waveform cache"),
    (with_source(wave="placeholder(64)"), ConfigurationRefused, "do not fit"),
    (replace(small_program(), markers={}), ConfigurationRefused, "markers"),
    (
        replace(small_program(), markers={0: np.zeros(32, np.uint8), 1: np.zeros(48, np.uint8)}),
        ConfigurationRefused,
        "markers",
    ),
    (
        replace(small_program(), waveforms=small_program().waveforms[:1]),
        ConfigurationRefused,
        "missing",
    ),
    (
        replace(small_program(), waveforms=(*small_program().waveforms, np.zeros((32, 2)))),
        ConfigurationRefused,
        "index 2",
    ),
    (with_table({"index": 1024}), ConfigurationRefused, "breaks its schema: 1024"),
    (with_table({"index": 1, "amplitude0": {"value": 2}}), ConfigurationRefused, "schema: 2 is"),
    (with_table({"index": 9}), ConfigurationRefused, "entry 9 is given twice"),
    (
        with_table({"index": 1, "waveform": {"index": 2}}),
        ConfigurationRefused,
        "entry 1 plays waveform 2; there are 2",
    ),
    (
        with_table({"index": 1, "waveform": {"index": 0, "length": 48}}),
        ConfigurationRefused,
        "plays 48 samples of waveform 0, which has 32",
    ),
]


@pytest.mark.parametrize(("program", "error", "problem"), WRONG)
def test_a_wrong_program_is_refused_before_the_instrument_sees_it(opened, program, error, problem):
    instrument, device = opened
    with pytest.raises(error, match=problem):
        instrument.load(0, program)
    assert device.cores[0].program is None
    assert instrument.cores[0].loaded is None


def test_a_deprecated_function_is_harmless():
    program = with_source(end="setTrigger(getTrigger(1));")
    assert "is deprecated" in compile_program(program).warnings[0]


def test_what_the_simulator_cannot_do_is_refused_by_the_instrument(opened):
    instrument, _ = opened
    with pytest.raises(DeviceRefused, match=r"dev8001, core 0: .*line \d+.*not simulated"):
        instrument.load(0, with_source(end="resetOscPhase();"))
    assert instrument.cores[0].loaded is None


# --- calls that are wrong -------------------------------------------------------------------


def test_a_running_core_is_left_alone(opened):
    instrument, _ = opened
    instrument.load(0, small_program())
    instrument.start(0)
    with pytest.raises(ConfigurationRefused, match="core 0 is running; stop it first"):
        instrument.load(0, small_program())
    instrument.load(1, small_program())


@pytest.mark.parametrize("core", [-1, 4])
def test_there_is_no_such_core(opened, core):
    for call in (opened[0].start, opened[0].stop, lambda n: opened[0].load(n, small_program())):
        with pytest.raises(ConfigurationRefused, match=f"4 cores, there is no core {core}"):
            call(core)


def test_nothing_starts_without_a_program(opened):
    with pytest.raises(ConfigurationRefused, match="load a program first"):
        opened[0].start(0)


# --- opening and closing --------------------------------------------------------------------


def test_an_open_instrument_is_refused_to_a_second_driver(opened, tmp_path):
    with pytest.raises(InstrumentInUse, match="hdawg-dev8001 is open already, in this process"):
        open_instrument(tmp_path, "other")
    with pytest.raises(InstrumentInUse, match="a QCoDeS instrument 'awg' already"):
        open_instrument(tmp_path / "elsewhere", "awg")


def test_a_closed_or_failed_one_can_be_opened_again(tmp_path):
    server = SimulatedDataServer([SimulatedHdawg("dev8002")])
    for _ in range(2):
        with pytest.raises(InstrumentUnavailable, match="does not have dev8001"):
            HDAWG("awg", SERIAL, connection=server, lock_directory=tmp_path)
    for _ in range(2):
        instrument, _ = open_instrument(tmp_path)
        instrument.close()
        instrument.close()


def test_two_instruments_open_and_close_in_any_order(tmp_path):
    server = SimulatedDataServer([SimulatedHdawg("dev1"), SimulatedHdawg("dev2")])
    first = HDAWG("first", "dev1", connection=server, lock_directory=tmp_path)
    second = HDAWG("second", "dev2", connection=server, lock_directory=tmp_path)
    first.close()
    first = HDAWG("first", "dev1", connection=server, lock_directory=tmp_path)
    assert first.cores[0].strobe_line() == second.cores[0].strobe_line() == 0
    second.close()
    first.close()


def test_every_error_is_an_instrument_error():
    assert all(issubclass(error, InstrumentError) for _, error, _ in WRONG)
