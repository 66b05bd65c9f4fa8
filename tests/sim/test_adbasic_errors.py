"""Every wrong program is refused, with the file and the line."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.adwin.errors import AdbasicError, ProcessFault
from sim.adwin.hardware import InMemoryHardware
from sim.adwin.options import Costs, ProcessorModel
from sim.adwin.transpiler import transpile_file
from tests.sim.adbasic_harness import HEADER_LINES, PROGRAMS, system_with, write_source

# (what the message says, line of the body from 1, body)
WRONG = [
    ("character '§'", 2, "INIT:\n  PAR_1 = §\n"),
    ("did not expect the end of the line", 2, "INIT:\n  PAR_1 =\n"),
    ("did not expect", 2, "INIT:\n  IF (PAR_1 = 1) THEN PAR_2 = 1 : PAR_3 = 1\n"),
    ("did not expect 'DATA_1'", 1, "DATA_1[1] = 1\nINIT:\n"),
    ("ends inside a block", 3, "INIT:\n  IF (PAR_1 = 1) THEN\n  PAR_1 = 2\n"),
    ("NEXT j closes a loop over i", 4, "DIM i, j AS LONG\nINIT:\n  FOR i = 1 TO 2\n  NEXT j\n"),
    ("two INIT sections", 3, "INIT:\n  PAR_1 = 1\nINIT:\n  PAR_1 = 1\n"),
    ("is not a type", 1, "DIM x AS QUBIT\nINIT:\n  PAR_1 = 1\n"),
    ("x is declared twice", 2, "DIM x AS LONG\nDIM X AS FLOAT\nINIT:\n  PAR_1 = 1\n"),
    ("x is not declared", 2, "INIT:\n  x = 1\n"),
    ("x is not an array", 3, "DIM x AS LONG\nINIT:\n  x[1] = 1\n"),
    ("needs more than 32 bits", 2, "INIT:\n  PAR_1 = 4294967296\n"),
    ("par_81 does not exist", 2, "INIT:\n  PAR_81 = 1\n"),
    ("data_201: DATA goes from 1 to 200", 1, "DIM DATA_201[2] AS LONG\nINIT:\n  PAR_1 = 1\n"),
    ("must be a constant", 2, "DIM n AS LONG\nDIM a[PAR_1] AS LONG\nINIT:\n  PAR_1 = 1\n"),
    ("must be a constant of 1 to", 1, "DIM a[0] AS LONG\nINIT:\n  PAR_1 = 1\n"),
    ("array with 2 dimension", 3, "DIM a[2][2] AS LONG\nINIT:\n  a[1] = 1\n"),
    ("is an array; use an element", 3, "DIM a[2] AS LONG\nINIT:\n  a = 1\n"),
    ("is a FIFO", 3, "DIM DATA_1[2] AS LONG AS FIFO\nINIT:\n  DATA_1[1] = 1\n"),
    ("is not a FIFO", 3, "DIM DATA_1[2] AS LONG\nINIT:\n  FIFO_CLEAR(1)\n"),
    ("is a STRING", 3, "DIM DATA_1[2] AS STRING\nINIT:\n  PAR_1 = DATA_1[1]\n"),
    ("a condition must compare", 2, "INIT:\n  IF (PAR_1) THEN PAR_2 = 1\n"),
    ("a comparison is not a number", 2, "INIT:\n  PAR_1 = (PAR_2 > 1)\n"),
    (
        "x is not declared",
        4,
        "INIT:\n  IF (1 = 1) THEN\n  PAR_1 = 1\n  ELSEIF (x = 1) THEN\n  ENDIF\n",
    ),
    ("cannot mix", 2, "INIT:\n  IF ((PAR_1 = 1) AND 3) THEN PAR_2 = 1\n"),
    ("P2_MAGIC is not a SUB", 2, "INIT:\n  P2_MAGIC(1)\n"),
    ("FROB is not a FUNCTION", 2, "INIT:\n  PAR_1 = frob(1)\n"),
    ("P2_DAC takes 3 argument(s), not 2", 2, "INIT:\n  P2_DAC(1, 2)\n"),
    ("P2_DAC has no value", 2, "INIT:\n  PAR_1 = P2_DAC(1, 2, 3)\n"),
    ("a CASE must be a constant", 3, "INIT:\n  SELECTCASE PAR_1\n  CASE PAR_2\n  ENDSELECT\n"),
    ("f calls itself", 4, "INIT:\n  f()\nSUB f()\n  f()\nENDSUB\n"),
    ("f calls itself", 7, "INIT:\n  f()\nSUB f()\n  g()\nENDSUB\nSUB g()\n  f()\nENDSUB\n"),
    ("f takes 1 argument(s), not 0", 2, "INIT:\n  f()\nSUB f(x)\n  x = 1\nENDSUB\n"),
    ("stands for a value", 4, "INIT:\n  f(1 + 1)\nSUB f(x)\n  x = 1\nENDSUB\n"),
    ("f is a SUB", 2, "INIT:\n  PAR_1 = f()\nSUB f()\n  PAR_1 = 1\nENDSUB\n"),
    ("is built in", 3, "INIT:\n  PAR_1 = 1\nSUB p2_dac(x)\n  x = 1\nENDSUB\n"),
    ("#FROB is not a directive", 1, "#FROB\nINIT:\n  PAR_1 = 1\n"),
    ("is defined already", 2, "#DEFINE A 1\n#DEFINE a 2\nINIT:\n  PAR_1 = 1\n"),
    ("include file 'none.inc'", 1, "#INCLUDE none.inc\nINIT:\n  PAR_1 = 1\n"),
    ("has no #ENDIF", 1, "#IF PROCESSOR = T11 THEN\nINIT:\n  PAR_1 = 1\n"),
    ("#ELSE without #IF", 1, "#ELSE\nINIT:\n  PAR_1 = 1\n"),
    ("operators deep", 2, f"INIT:\n  PAR_1 = {'-(' * 70}1{')' * 70}\n"),
    ("longer than", 3, "#DEFINE A 1+1+1+1+1+1+1\n#DEFINE B " + "A+" * 300 + "A\nPAR_1 = B+B\n"),
    ("loops are nested", 17, "INIT:\n" + "  DO\n" * 20 + "  UNTIL (1 = 1)\n" * 20),
    ("nested more than", None, "INIT:\n" + "IF (1 = 1) THEN\n" * 70 + "ENDIF\n" * 70),
]


@pytest.mark.parametrize(("message", "line", "body"), WRONG, ids=lambda value: str(value)[:30])
def test_refused_with_its_line(tmp_path, message, line, body):
    path = write_source(tmp_path, body)
    with pytest.raises(AdbasicError) as caught:
        transpile_file(path, ProcessorModel.t11())
    assert message in str(caught.value)
    if line is not None:
        assert str(caught.value).startswith(f"{path}:{HEADER_LINES + line}: ")
        assert caught.value.line == HEADER_LINES + line


def test_an_error_in_an_include_names_the_include(tmp_path):
    (tmp_path / "wrong.inc").write_text("\nSUB f()\n  PAR_1 =\nENDSUB\n")
    path = write_source(tmp_path, "#INCLUDE wrong.inc\nINIT:\n  f()\n")
    with pytest.raises(AdbasicError, match=r"^wrong\.inc:3: did not expect"):
        transpile_file(path, ProcessorModel.t11())


def test_includes_cannot_go_round(tmp_path):
    (tmp_path / "a.inc").write_text('#INCLUDE "b.inc"\n#DEFINE A 1\n')
    (tmp_path / "b.inc").write_text('#INCLUDE "a.inc"\n')
    path = write_source(tmp_path, "#INCLUDE a.inc\nINIT:\n  PAR_1 = A\n")
    system = system_with(path)
    system.start(1)
    assert system.memory.par[1] == 1


def test_macros_cannot_grow_without_bound(tmp_path):
    calls = "".join(f"SUB f{n}()\n" + f"  f{n + 1}()\n" * 10 + "ENDSUB\n" for n in range(6))
    path = write_source(tmp_path, f"INIT:\n  f0()\n{calls}SUB f6()\n  PAR_1 = 1\nENDSUB\n")
    with pytest.raises(AdbasicError, match="grow to more than"):
        transpile_file(path, ProcessorModel.t11())


@pytest.mark.parametrize(
    ("setting", "value"),
    [("number", 11), ("number", "x"), ("delay", 0), ("source", "Moon"), ("priority", "Urgent")],
)
def test_the_header_is_checked(tmp_path, setting, value):
    path = write_source(tmp_path, "INIT:\n  PAR_1 = 1\n", **{setting: value})
    with pytest.raises(AdbasicError, match="the header's"):
        transpile_file(path, ProcessorModel.t11())


def test_a_program_without_statements_is_refused(tmp_path):
    with pytest.raises(AdbasicError, match="no statements"):
        transpile_file(write_source(tmp_path, ""), ProcessorModel.t11())


SOURCES = [path.read_text() for path in sorted(PROGRAMS.glob("*.bas"))]
PIECES = ["\n", *sorted({word for text in SOURCES for word in re.findall(r"\w+|\S", text)})]


@given(st.data())
def test_whatever_is_wrong_is_an_error_with_a_place(tmp_path_factory, data):
    """A damaged program is refused, or still a program."""
    tokens = re.findall(r"\w+|\s+|\S", data.draw(st.sampled_from(SOURCES)))
    start = 6 * 8  # behind the header, whose damage is another test's
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(start, len(tokens) - 1))
        length = data.draw(st.integers(0, 3))
        tokens[place : place + length] = data.draw(st.lists(st.sampled_from(PIECES), max_size=3))
    folder = tmp_path_factory.mktemp("damaged")
    for include in PROGRAMS.glob("*.inc"):
        (folder / include.name).write_text(include.read_text())
    path = folder / "damaged.bas"
    path.write_text("".join(tokens))
    try:
        program = transpile_file(path, ProcessorModel.t11())
    except AdbasicError as error:
        assert error.line is not None or "header" in str(error)
    else:
        program.code()


# (what the message says, line of the body from 1, body)
FAULTS = [
    ("beyond the last element", 3, "DIM a[4] AS LONG\nINIT:\n  a[PAR_1 + 5] = 1\n"),
    ("array index 0; the first element is 1", 3, "DIM a[4] AS LONG\nINIT:\n  PAR_2 = a[PAR_1]\n"),
    ("array index -3", 3, "DIM a[4] AS LONG\nINIT:\n  a[PAR_1 - 3] = 1\n"),
    ("array index -7", 3, "DIM a[9] AS LONG\nINIT:\n  PAR_2 = a[((PAR_1 - 8) AND -4) + 1]\n"),
    ("array index [1][4]", 3, "DIM a[2][3] AS LONG\nINIT:\n  a[1][PAR_1 + 4] = 1\n"),
    ("division of a LONG by zero", 2, "INIT:\n  PAR_2 = 1 / PAR_1\n"),
    ("a shift by 32 bits", 2, "INIT:\n  PAR_2 = SHIFT_LEFT(1, PAR_1 + 32)\n"),
    ("PROCESSDELAY = 0", 2, "INIT:\n  PROCESSDELAY = PAR_1\n"),
    ("CPU_SLEEP(-1)", 2, "INIT:\n  CPU_SLEEP(PAR_1 - 1)\n"),
    ("math domain error", 2, "INIT:\n  FPAR_1 = SQRT(PAR_1 - 1)\n"),
    ("a runaway loop", 3, "INIT:\n  INC(PAR_2)\n  DO\n    PAR_1 = 1\n  UNTIL (PAR_1 = 0)\n"),
    ("lines that are inputs", 2, "INIT:\n  P2_DIGOUT(1, 3, 1)\n"),
    ("code 70000 of 16 bits", 2, "INIT:\n  P2_DAC(1, 3, 70000)\n"),
    ("counter 5 of module 1", 2, "INIT:\n  PAR_1 = P2_CNT_READ(1, 5)\n"),
    ("is not a slave", 2, "INIT:\n  PAR_1 = P2_SPI_SLAVE_INFIFO_READ(1)\n"),
]


@pytest.mark.parametrize(("message", "line", "body"), FAULTS, ids=lambda value: str(value)[:30])
@pytest.mark.parametrize("costs", [Costs(), Costs(operation=0, memory=0, branch=0)])
def test_a_fault_at_run_time_names_its_line(tmp_path, message, line, body, costs):
    model = ProcessorModel(costs=costs, max_section_ms=0.1)
    system = system_with(write_source(tmp_path, body), model=model)
    with pytest.raises(ProcessFault) as caught:
        system.start(1)
    assert message in str(caught.value)
    assert f"program.bas:{HEADER_LINES + line}: process 1 stopped" in str(caught.value)
    assert not system.processes[1].running


def test_a_fault_in_a_macro_names_the_macro(tmp_path):
    (tmp_path / "f.inc").write_text("FUNCTION f(x) AS LONG\n  f = 1 / x\nENDFUNCTION\n")
    body = "#INCLUDE f.inc\nEVENT:\n  PAR_2 = f(PAR_1)\n"
    system = system_with(write_source(tmp_path, body))
    system.start(1)
    with pytest.raises(ProcessFault, match=r"^f\.inc:2: "):
        system.run_for_ns(5_000)
    assert not system.processes[1].running


def test_errors_of_the_simulation_itself_get_a_note(tmp_path):
    class Broken(InMemoryHardware):
        def p2_digprog(self, cycle, module, outputs):
            raise KeyError("wire")

    system = system_with(write_source(tmp_path, "INIT:\n  P2_DIGPROG(1, 1)\n"), hardware=Broken())
    with pytest.raises(KeyError) as caught:
        system.start(1)
    assert "program.bas:8" in caught.value.__notes__[0]
