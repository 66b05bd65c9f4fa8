"""The ADbasic sources agree with what the rest of the project says about them."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.instrument_bench import LOG_LENGTH
from instruments import nv_controller
from instruments.nv_controller import COUNTERS, STATES, ControllerSettings
from qnodeos.qdevice import frames
from qnodeos.qdevice.frames import encode_command, encode_response, session_word
from qnodeos.qdevice.instructions import Opcode
from qnodeos.qdevice.outcomes import Outcome
from sequences import nv_seqc, waveform_table
from sim.adwin.hardware import InMemoryHardware
from sim.adwin.options import ProcessorModel
from sim.adwin.system import AdwinSystem
from sim.adwin.transpiler import transpile_file
from tests.sim.adbasic_harness import HEADER

FOLDER = Path(nv_controller.__file__).parent / "adbasic"
PROGRAMS = sorted(FOLDER.parent.rglob("*.bas"))
MODELS = {"T11": ProcessorModel.t11(), "T12": ProcessorModel.t12()}


def text_of(name: str) -> str:
    return (FOLDER / name).read_text("latin-1")


def defines(name: str) -> dict[str, str]:
    """What the #DEFINEs of a file stand for, by name."""
    return dict(re.findall(r"^#DEFINE\s+(\w+)\s+(.*?)\s*$", text_of(name), re.MULTILINE))


def number(literal: str) -> int:
    """The value of an ADbasic literal."""
    if literal[-1] in "hH":
        return int(literal[:-1], 16)
    return int(literal[:-1], 2) if literal[-1] in "bB" else int(literal)


PROGRAM = defines("qdevice_nv.bas")
STATION = {name: number(value) for name, value in defines("qd_station.inc").items()}
FRAMES = {name: number(value) for name, value in defines("qd_frames.inc").items()}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_every_program_is_understood_on_both_processors(path, model):
    program = transpile_file(path, MODELS[model])
    assert program.number == 1
    assert program.external


def test_there_is_a_program_and_every_include_is_used():
    assert [path.name for path in PROGRAMS] == ["qdevice_nv.bas"]
    used = set(re.findall(r"^#INCLUDE\s+(\S+)", text_of("qdevice_nv.bas"), re.MULTILINE))
    assert used - {"ADwinPro_All.inc"} == {path.name for path in FOLDER.glob("*.inc")}


# --- wiring -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "DIO_MODULE",
        "DAC_MODULE",
        "COUNTER_MODULE",
        "SPI_MODULE",
        "REPUMP_DAC",
        "E_DAC",
        "A_DAC",
        "GATED_A_DAC",
        "PHOTON_COUNTER",
        "CPLD_RESET_LINE",
        "READY_LINE",
        "SUCCESS_LINE",
    ],
)
def test_modules_channels_and_outputs_are_those_of_the_driver(name):
    assert STATION[name] == getattr(nv_controller, name)


INPUTS = {
    "AWG_ACKNOWLEDGE": "ACKNOWLEDGE_LINE",
    "AWG_PLAYED": "PLAYED_LINE",
    "HERALD": "HERALD_LINE",
    "WHICH_DETECTOR": "DETECTOR_LINE",
    "PEER_READY": "PEER_READY_LINE",
    "PEER_SUCCESS": "PEER_SUCCESS_LINE",
}
"""Masks of the program, and the lines of the driver."""


@pytest.mark.parametrize(("mask", "line"), INPUTS.items())
def test_inputs_are_those_of_the_driver(mask, line):
    assert STATION[mask] == 1 << getattr(nv_controller, line)


def test_the_lines_to_the_awg_are_those_its_program_reads():
    assert STATION["AWG_KEEP"] == nv_seqc.KEEP
    assert STATION["AWG_ATTEMPT"] == nv_seqc.ATTEMPT
    assert STATION["AWG_TOGGLE_LINE"] == nv_seqc.TOGGLE_LINE
    assert STATION["AWG_LINES"] == nv_seqc.ENTRY_MASK | nv_seqc.KEEP | nv_seqc.ATTEMPT
    assert STATION["PHOTON_BIT"] == 1 << STATION["PHOTON_COUNTER"] - 1


def test_every_line_has_the_direction_it_is_programmed_for():
    groups = STATION["OUTPUT_GROUPS"]
    outputs = {line for line in range(32) if groups >> line // 8 & 1}
    driven = {STATION[name] for name in STATION if name.endswith("_LINE")}
    driven |= {line for line in range(32) if STATION["AWG_LINES"] >> line & 1}
    read = {STATION[mask].bit_length() - 1 for mask in INPUTS}
    assert driven <= outputs
    assert not read & outputs
    assert len(read) == len(INPUTS)


# --- codes --------------------------------------------------------------------------------------


def test_opcodes():
    for name in ("NOP", "INI", "SQG", "MSR", "ENT", "ENM", "PMG"):
        assert number(PROGRAM[name]) == Opcode[name]
    # One job that no word of an instruction can be.
    assert number(PROGRAM["CHECK"]) > 15


def test_outcomes():
    named = {name: number(PROGRAM[name]) for name in Outcome.__members__ if name in PROGRAM}
    assert named == {name: Outcome[name].value for name in named}
    heralds = {"SUCCESS_PHI_MINUS", "SUCCESS_PSI_PLUS", "SUCCESS_PSI_MINUS"}
    # The heralds come from the host.
    assert set(named) == set(Outcome.__members__) - heralds


def test_entries_of_the_waveform_table():
    assert number(PROGRAM["FIRST_ROTATION"]) == waveform_table.FIRST_ROTATION
    assert number(PROGRAM["INI_ENTRY"]) == waveform_table.INITIALISATION
    assert number(PROGRAM["READOUT_ENTRY"]) == waveform_table.READOUT
    assert nv_controller.LIMITS["alpha_entry"] == (
        waveform_table.FIRST_ATTEMPT,
        waveform_table.FIRST_ATTEMPT + waveform_table.MAX_ALPHAS - 1,
    )


def test_states_parameters_and_counters():
    assert [number(PROGRAM[name.upper()]) for name in STATES] == list(range(len(STATES)))
    for index, field in enumerate(fields(ControllerSettings), start=1):
        assert PROGRAM[field.name] == f"DATA_20[{index}]"
    names = {"corrupted_frames": "corrupted", "state_number": "state"} | {
        "herald_mismatches": "mismatches",
        "charge_checks": "checks",
        "failed_charge_checks": "failed_checks",
    }
    for name, par in COUNTERS.items():
        assert PROGRAM[names.get(name, name)] == f"PAR_{par}"
    assert PROGRAM["request"] == f"PAR_{nv_controller.REQUEST_PAR}"
    assert number(PROGRAM["VERSION"]) == nv_controller.VERSION
    assert number(PROGRAM["TICK_US"]) == nv_controller.TICK_EVENTS
    for name in ("photon_log", "check_log", "charge_log"):
        assert PROGRAM[name] == f"DATA_{getattr(nv_controller, name.upper())}"


# --- frames -------------------------------------------------------------------------------------


def test_the_logs_are_as_long_as_the_bench_believes():
    assert number(PROGRAM["LOG_LENGTH"]) == LOG_LENGTH


def test_constants_of_the_frames():
    assert FRAMES["CRC_GENERATOR"] == frames.GENERATOR
    assert FRAMES["COMMAND_CONSTANT"] == frames.COMMAND_CONSTANT
    assert FRAMES["RESPONSE_CONSTANT"] == frames.RESPONSE_CONSTANT
    assert FRAMES["DETAIL_BOOT"] == frames.DETAIL_BOOT
    assert FRAMES["DETAIL_SESSION"] == frames.DETAIL_SESSION
    for session in range(frames.MAX_SESSION + 1):
        assert session_word(session) & FRAMES["SESSION_MASK"] == FRAMES["SESSION_BITS"]


@pytest.fixture(scope="module")
def check_of(tmp_path_factory):
    """The check field that the program's own function finds for 22 bits."""
    folder = tmp_path_factory.mktemp("checks")
    (folder / "qd_frames.inc").write_text(text_of("qd_frames.inc"), "latin-1")
    path = folder / "checks.bas"
    path.write_text(
        HEADER.format(number=1, delay=1000, source="External", priority="High")
        + "#INCLUDE qd_frames.inc\nDIM word AS LONG\n"
        + "INIT:\n  frames_prepare()\nEVENT:\n  word = PAR_1\n  PAR_2 = frame_check(word)\n",
        "latin-1",
    )
    system = AdwinSystem(InMemoryHardware(), MODELS["T12"])
    system.load(transpile_file(path, system.model))
    system.start(1)
    # INIT takes its time.
    system.run_for_ns(1e6)

    def check(upper: int) -> int:
        system.memory.par[1] = upper
        system.trigger(1, system.now_cycle + 1_000)
        system.run_until_cycle(system.now_cycle + 2_000)
        return system.memory.par[2]

    return check


@given(word=st.integers(0, 2**20 - 1), sequence=st.integers(0, 1), acknowledge=st.integers(0, 1))
def test_the_check_of_a_command_is_that_of_the_master(check_of, word, sequence, acknowledge):
    frame = encode_command(word, sequence, acknowledge)
    assert check_of(frame >> 10) ^ FRAMES["COMMAND_CONSTANT"] == frame & FRAMES["CRC_MASK"]


@given(
    outcome=st.integers(0, 15),
    detail=st.integers(0, 7),
    tick=st.integers(0, 0xFFF),
    bits=st.integers(0, 7),
)
def test_the_check_of_a_response_is_what_the_master_expects(check_of, outcome, detail, tick, bits):
    frame = encode_response(outcome, detail, tick, bits >> 2, bits >> 1 & 1, bits & 1)
    assert check_of(frame >> 10) ^ FRAMES["RESPONSE_CONSTANT"] == frame & FRAMES["CRC_MASK"]
