"""What ADbasic programs mean once they are Python."""

from __future__ import annotations

import math
import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.adwin.arithmetic import nearest, power_long, single, truncated, wrap
from sim.adwin.hardware import INSTRUCTIONS, InMemoryHardware
from sim.adwin.options import LONG_MAX, LONG_MIN, ProcessorModel, Semantics
from sim.adwin.transpiler import transpile_file
from tests.sim.adbasic_harness import HEADER_LINES, PROGRAMS, run_init, system_with, write_source

longs = st.one_of(
    st.integers(LONG_MIN, LONG_MAX),
    st.integers(-40, 40),
    st.sampled_from([LONG_MIN, LONG_MIN + 1, LONG_MAX, 0xFFFF, 1 << 30]),
)


def par_after(tmp_path, body, index=1, **semantics):
    model = ProcessorModel(semantics=Semantics(**semantics))
    return run_init(tmp_path, body, model).memory.par[index]


# --- integers, against a reference that wraps after every operation -----------------------

OPERATIONS: dict[str, Callable[[int, int], int]] = {
    "+": lambda a, b: wrap(a + b),
    "-": lambda a, b: wrap(a - b),
    "*": lambda a, b: wrap(a * b),
    "/": lambda a, b: wrap(int(math.copysign(1, a) * math.copysign(1, b)) * (abs(a) // abs(b))),
    "AND": lambda a, b: a & b,
    "OR": lambda a, b: a | b,
    "XOR": lambda a, b: a ^ b,
    "SHIFT_RIGHT": lambda a, b: wrap((a & 0xFFFFFFFF) >> (b & 31)),
    "SHIFT_LEFT": lambda a, b: wrap(a << (b & 31)),
    "MOD": lambda a, b: int(math.copysign(abs(a) % abs(b), a)),
    "MIN_LONG": min,
    "MAX_LONG": max,
}


class Sum:
    """An expression as ADbasic, and its value by the reference; None if it divides by zero."""

    def __init__(self, text, value):
        self.text, self.value = text, value

    def __repr__(self):
        return f"{self.text} -> {self.value}"


def combine(operator, left, right):
    value = None
    if left.value is not None and right.value is not None:
        divides = operator in ("/", "MOD")
        value = (
            None if divides and not right.value else OPERATIONS[operator](left.value, right.value)
        )
    if not operator[0].isalpha() or operator in ("AND", "OR", "XOR"):
        return Sum(f"({left.text} {operator} {right.text})", value)
    second = right.text
    if operator.startswith("SHIFT"):
        # A number of bits that is known while translating, or not.
        second = str(right.value & 31) if second.isdecimal() else f"({second}) AND 31"
    return Sum(f"{operator}({left.text}, {second})", value)


def negated(operand):
    return Sum(f"(-{operand.text})", None if operand.value is None else wrap(-operand.value))


def inverted(operand):
    return Sum(f"(NOT {operand.text})", None if operand.value is None else ~operand.value)


VARIABLES = "abcd"


@st.composite
def sums(draw):
    values = draw(st.lists(longs, min_size=4, max_size=4))
    leaves = st.one_of(
        st.sampled_from([Sum(n, v) for n, v in zip(VARIABLES, values, strict=True)]),
        # A literal has no sign: the least LONG is written as its negation.
        st.integers(0, LONG_MAX).map(lambda value: Sum(str(value), value)),
        st.integers(0, 0xFFFFFFFF).map(lambda value: Sum(f"0{value:X}h", wrap(value))),
    )
    tree = st.recursive(
        leaves,
        lambda inner: st.one_of(
            st.builds(combine, st.sampled_from(sorted(OPERATIONS)), inner, inner),
            st.builds(negated, inner),
            st.builds(inverted, inner),
        ),
        max_leaves=12,
    )
    return values, draw(tree), draw(tree)


@given(sums())
def test_integers_are_those_of_32_bits(tmp_path_factory, case):
    values, first, second = case
    body = (
        "DIM a, b, c, d, x AS LONG\nINIT:\n"
        + "\n".join(f"  {n} = PAR_{i}" for i, n in enumerate(VARIABLES, 11))
        + f"\n  x = {first.text}\n  PAR_1 = {first.text}\n  PAR_2 = x\n"
        + f"  IF ({first.text} < {second.text}) THEN PAR_3 = 1\n"
    )
    folder = tmp_path_factory.mktemp("sums")
    system = system_with(write_source(folder, body))
    for index, value in enumerate(values, 11):
        system.memory.par[index] = value
    if first.value is None or second.value is None:
        with pytest.raises(Exception, match="zero"):
            system.start(1)
        return
    system.start(1)
    assert system.memory.par[1:3] == [first.value, first.value]
    assert system.memory.par[3] == int(first.value < second.value)


@pytest.mark.parametrize("name", ["SHIFT_LEFT", "SHIFT_RIGHT"])
@pytest.mark.parametrize("value", [LONG_MIN, -77, -1, 0, 77, 0x40000001, LONG_MAX])
def test_shifts_by_a_known_number_of_bits(tmp_path, name, value):
    numbers = (0, 1, 5, 31)
    body = "INIT:\n" + "".join(
        # As it is, and as part of an expression and of a comparison.
        f"  PAR_{place} = {name}(PAR_80, {bits})\n"
        f"  PAR_{place + 10} = {name}(PAR_80, {bits}) / 3\n"
        f"  IF ({name}(PAR_80, {bits}) < {name}(1, {bits})) THEN PAR_{place + 20} = 1\n"
        for place, bits in enumerate(numbers, 1)
    )
    system = system_with(write_source(tmp_path, body))
    system.memory.par[80] = value
    system.start(1)
    for place, bits in enumerate(numbers, 1):
        expected, one = OPERATIONS[name](value, bits), OPERATIONS[name](1, bits)
        assert system.memory.par[place] == expected
        assert system.memory.par[place + 10] == OPERATIONS["/"](expected, 3)
        assert system.memory.par[place + 20] == int(expected < one)


@given(longs, st.integers(0, 40))
def test_powers_wrap(base, exponent):
    value = 1
    for _ in range(exponent):
        value = wrap(value * base)
    assert power_long(base, exponent) == value


def test_constant_powers_of_two_are_masks(tmp_path):
    assert par_after(tmp_path, "INIT:\n  PAR_1 = 2 ^ 9 + 2^31\n") == wrap((1 << 31) + 512)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1011b", 11),
        ("00001000b", 8),
        ("0FFh", 255),
        ("0FFFFFFFFh", -1),
        ("10h", 16),
        ("1e3", 1000),
        ("2.5E+2", 250),
        ("-7 / 2", -3),
        ("7 - 2 - 1", 4),
        ("-2 ^ 2", -4),
        ("1 + 2 * 3", 7),
        ("6 AND 3 OR 8", 10),
        ("MOD(-7, 3)", -1),
        ("ABS(-5)", 5),
        ("MAX_LONG(3, MIN_LONG(9, 4))", 4),
        ("2 ^ (-1)", 0),
    ],
)
def test_literals_and_precedence(tmp_path, text, value):
    assert par_after(tmp_path, f"INIT:\n  PAR_1 = {text}\n") == value


# --- the options ---------------------------------------------------------------------------


@given(st.floats(-1e9, 1e9))
def test_conversion_to_long(value):
    assert truncated(value) == math.trunc(value)
    assert abs(nearest(value) - value) <= 0.5


def test_conversion_saturates():
    assert [truncated(value) for value in (1e20, -1e20, math.inf, math.nan)] == [
        LONG_MAX,
        LONG_MIN,
        LONG_MAX,
        0,
    ]


@pytest.mark.parametrize(("option", "value"), [("truncate", -2), ("nearest", -3)])
def test_float_to_long_is_an_option(tmp_path, option, value):
    body = "INIT:\n  FPAR_1 = -2.75\n  PAR_1 = FPAR_1\n"
    assert par_after(tmp_path, body, float_to_long=option) == value


@pytest.mark.parametrize(("option", "value"), [("truncate", 6), ("float", 7)])
def test_long_division_is_an_option(tmp_path, option, value):
    body = "INIT:\n  PAR_1 = (7 / 2) * 2\n"
    assert par_after(tmp_path, body, long_division=option) == value


@pytest.mark.parametrize("bits", [32, 64])
def test_float_width_is_an_option(tmp_path, bits):
    body = "INIT:\n  FPAR_2 = 0.1\n  FPAR_1 = FPAR_2 * 3 + 1 / 3.0\n"
    model = ProcessorModel(semantics=Semantics(float_bits=bits))
    value = run_init(tmp_path, body, model).memory.fpar[1]
    narrow = single(single(single(0.1) * 3) + single(1 / 3))
    assert narrow != 0.1 * 3 + 1 / 3
    assert value == (narrow if bits == 32 else 0.1 * 3 + 1 / 3)


@pytest.mark.parametrize(("option", "calls"), [("by name", 2), ("once", 1)])
def test_expressions_go_to_macros_by_name_or_once(tmp_path, option, calls):
    body = (
        "INIT:\n  double(counted())\n"
        "SUB double(x)\n  PAR_2 = x + x\nENDSUB\n"
        "FUNCTION counted() AS LONG\n  INC(PAR_1)\n  counted = 4\nENDFUNCTION\n"
    )
    assert par_after(tmp_path, body, macro_arguments=option) == calls
    assert par_after(tmp_path, body, index=2, macro_arguments=option) == 8


def test_floats_divide_as_ieee_754(tmp_path):
    body = "INIT:\n  FPAR_1 = 1.0 / 0\n  FPAR_2 = -1.0 / 0\n  FPAR_3 = 0.0 / 0\n"
    fpar = run_init(tmp_path, body).memory.fpar
    assert fpar[1:3] == [math.inf, -math.inf]
    assert math.isnan(fpar[3])


def test_mathematics(tmp_path):
    body = "INIT:\n  FPAR_1 = SQRT(2) * SIN(1) + EXP(1) - LN(3) + LOG(100) + ARCTAN(1)\n"
    value = run_init(tmp_path, body, ProcessorModel.t12()).memory.fpar[1]
    expected = math.sqrt(2) * math.sin(1) + math.e - math.log(3) + 2 + math.pi / 4
    assert value == pytest.approx(expected, rel=1e-12)


# --- statements ----------------------------------------------------------------------------


def test_for_loops(tmp_path):
    body = (
        "DIM i, s AS LONG\nINIT:\n"
        "  FOR i = 1 TO 10 STEP 3\n    PAR_1 = PAR_1 + i\n  NEXT i\n  PAR_2 = i\n"
        "  FOR i = 3 TO 1 STEP -1\n    PAR_3 = 10 * PAR_3 + i\n  NEXT\n"
        "  FOR i = 1 TO 0\n    PAR_4 = 1\n  NEXT i\n"
        "  s = -2\n  FOR PAR_5 = 4 TO 0 STEP s\n    s = 1\n    INC PAR_6\n  NEXT PAR_5\n"
    )
    par = run_init(tmp_path, body).memory.par
    assert par[1:7] == [1 + 4 + 7 + 10, 13, 321, 0, -2, 3]


def test_do_runs_at_least_once(tmp_path):
    body = "INIT:\n  DO\n    INC(PAR_1)\n  UNTIL ((PAR_1 > 5) OR (PAR_2 = 0))\n"
    assert par_after(tmp_path, body) == 1


def test_select_and_if(tmp_path):
    body = (
        "#DEFINE second 2\n"
        "DIM i AS LONG\nINIT:\n  FOR i = 0 TO 5\n    SELECTCASE i\n"
        "      CASE 0 : PAR_1 = PAR_1 + 1\n"
        "      CASE 1, second\n        PAR_2 = PAR_2 + 1\n"
        "      CASE 3\n      CASEELSE PAR_3 = PAR_3 + 1\n    ENDSELECT\n"
        "    IF (i < 1) THEN\n      INC(PAR_4)\n"
        "    ELSEIF ((i = 2) OR (P2_DIGIN_LONG(1) <> 0)) THEN\n      INC(PAR_5)\n"
        "    ELSEIF (NOT(i <> 3)) THEN\n      INC(PAR_6)\n"
        "    ELSE\n      INC(PAR_7)\n    END IF\n  NEXT i\n"
    )
    assert run_init(tmp_path, body).memory.par[1:8] == [1, 2, 2, 1, 1, 1, 3]


def test_macros_have_variables_of_their_own(tmp_path):
    body = (
        "DIM t, u AS LONG\nDIM list[4] AS LONG\nINIT:\n  t = 5\n  u = 7\n  swap(t, u)\n"
        "  PAR_1 = t\n  PAR_2 = u\n  list[2] = 40\n  PAR_3 = add(list[], 2, add(list[], 2, 1))\n"
        "SUB swap(a, b)\n  DIM t AS LONG\n  t = a\n  a = b\n  b = t\nENDSUB\n"
        "FUNCTION add(array[], n, x) AS LONG\n  array[n] = array[n] + 1\n  add = array[n] + x\n"
        "ENDFUNCTION\n"
    )
    par = run_init(tmp_path, body).memory.par
    # The inner call is an argument by name: it runs where the body uses x, after the first INC.
    assert par[1:4] == [7, 5, 42 + 42 + 1]


def test_two_dimensions(tmp_path):
    body = (
        "DIM DATA_3[2][3] AS LONG\nDIM r, c AS LONG\nINIT:\n  FOR r = 1 TO 2\n    FOR c = 1 TO 3\n"
        "      DATA_3[r][c] = 10 * r + c\n    NEXT c\n  NEXT r\n  PAR_1 = DATA_3[2][1]\n"
    )
    system = run_init(tmp_path, body)
    assert system.memory.elements(3)[1:] == [11, 12, 13, 21, 22, 23]
    assert system.memory.par[1] == 21


def test_fifos(tmp_path):
    body = (
        "DIM DATA_7[3] AS LONG AS FIFO\nINIT:\n  PAR_1 = DATA_7\n  DATA_7 = 4\n  DATA_7 = 5\n"
        "  DATA_7 = 6\n  DATA_7 = 7\n  PAR_2 = FIFO_FULL(7)\n  PAR_3 = DATA_7\n"
        "  PAR_4 = FIFO_EMPTY(7)\n  FIFO_CLEAR(7)\n  PAR_5 = FIFO_EMPTY(7)\n"
    )
    assert run_init(tmp_path, body).memory.par[1:6] == [0, 3, 5, 1, 3]


def test_exit_leaves_the_section_and_end_the_process(tmp_path):
    body = (
        "DIM i AS LONG\nEVENT:\n  INC(PAR_1)\n  IF (PAR_1 < 3) THEN EXIT\n  INC(PAR_2)\n"
        "  FOR i = 1 TO 9\n    IF (PAR_2 = 4) THEN END\n  NEXT i\n  PAR_3 = PAR_2\n"
        "FINISH:\n  PAR_4 = PAR_4 + 1\n"
    )
    system = system_with(write_source(tmp_path, body))
    system.start(1)
    system.run_for_ns(1e6)
    assert system.memory.par[1:5] == [6, 4, 3, 1]
    assert not system.processes[1].running


def test_conditions_evaluate_instructions_on_both_sides(tmp_path):
    asked = []

    class Watching(InMemoryHardware):
        def p2_digin_long(self, cycle, module):
            asked.append(module)
            return 0

    body = "INIT:\n  IF ((P2_DIGIN_LONG(1) = 1) AND (P2_DIGIN_LONG(2) = 1)) THEN PAR_1 = 1\n"
    system = system_with(write_source(tmp_path, body), hardware=Watching())
    system.start(1)
    assert asked == [1, 2]


# --- the first pass ------------------------------------------------------------------------


def test_directives(tmp_path):
    (tmp_path / "Sub").mkdir()
    (tmp_path / "Sub" / "Values.INC").write_text("#DEFINE A B\n#DEFINE B 5\nREM nothing\n")
    body = (
        "#INCLUDE .\\sub\\values.inc\n#INCLUDE ADwinPro_All.inc\n"
        "#IF PROCESSOR = T11 THEN\n#DEFINE C 1\n#ELSE\n#DEFINE C 2\n"
        "#IF PROCESSOR = T12 THEN\n#DEFINE D 3\n#ENDIF\n#ENDIF\n"
        "#IF ADWIN_SYSTEM <> ADWIN_PROII THEN\n  syntax error here\n#ENDIF\n"
        "INIT:\n  PAR_1 = A ' a comment with \"quotes\n  PAR_2 = C\n"
    )
    assert run_init(tmp_path, body).memory.par[1:3] == [5, 1]
    assert run_init(tmp_path, body, ProcessorModel.t12()).memory.par[1:3] == [5, 2]


@pytest.mark.parametrize("path", sorted(PROGRAMS.glob("*.bas")), ids=lambda path: path.stem)
@pytest.mark.parametrize("model", [ProcessorModel.t11(), ProcessorModel.t12()], ids=["T11", "T12"])
def test_the_generated_module_says_where_it_comes_from(path, model):
    program = transpile_file(path, model)
    program.code()
    python = program.python.splitlines()
    assert len(program.lines) == len(python)
    # Every call of an instruction has its place, and the place has that instruction.
    for text, location in zip(python, program.lines, strict=True):
        for name in re.findall(r"\b(p2_\w+)\(", text):
            assert name in INSTRUCTIONS
            assert location is not None
            folder = PROGRAMS if location.file.endswith(".inc") else path.parent
            named = next(
                f
                for f in folder.iterdir()
                if f.name.lower() == location.file.lower().rsplit("/", 1)[-1]
            )
            line = named.read_text().splitlines()[location.line - 1]
            assert line == location.text


def test_names_of_the_source_cannot_reach_python(tmp_path):
    body = (
        "DIM process, horizon, cycle, par, __import__, eval AS LONG\nINIT:\n"
        "  process = 1\n  cycle = 2\n  __import__ = 3\n  eval = 4\n"
        "  PAR_1 = process + cycle + __import__ + eval\n"
    )
    assert par_after(tmp_path, body) == 10
    assert HEADER_LINES == 6
