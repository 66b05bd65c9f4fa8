"""Our NV compiler: whatever a vanilla subroutine does, the NV subroutine does the same.

Both are run on `Machine`, which knows nothing of compilers, and their unitaries are compared
up to a phase. What the SDK's compiler makes of the same is in test_sdk_bugs.py.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netqasm.lang.encoding import RegisterName
from netqasm.lang.instr import trapped_ion
from netqasm.lang.instr.flavour import NVFlavour
from netqasm.lang.operand import Immediate, Register
from netqasm.lang.parsing.binary import deserialize
from netqasm.lang.subroutine import Subroutine
from netqasm.runtime.settings import set_is_using_hardware
from netqasm.sdk import Qubit
from netqasm.sdk.transpile import NVSubroutineTranspiler

from qnodeos.api.netqasm import Flavour
from qnodeos.cnpu.nv_compiler import NVCompiler
from qnodeos.errors import MalformedSubroutineError, UnsupportedInstructionError
from qnodeos.qnpu.isa import FLAVOURS
from tests.unit.netqasm_machine import Machine, are_equal, assemble
from tests.unit.test_prepared import sent_by

QUBITS = 3
ONE_QUBIT = ("x", "y", "z", "h", "k", "s", "t")
TWO_QUBIT = ("cnot", "cphase", "swp")


def compiled(subroutine: Subroutine) -> Subroutine:
    """A copy for NV."""
    return NVCompiler(deepcopy(subroutine)).transpile()


def assert_same_unitary(text: str, allocated=range(QUBITS)) -> Subroutine:
    """A subroutine does the same before and after; returns it as compiled."""
    original = assemble(text)
    ours = compiled(original)
    before = Machine(QUBITS, allocated).run(original)
    after = Machine(QUBITS, allocated).run(ours)
    assert are_equal(before.unitary, after.unitary)
    assert before.registers == after.registers
    assert before.arrays == after.arrays
    return ours


# --- gate by gate ---------------------------------------------------------------------


@pytest.mark.parametrize("gate", ONE_QUBIT)
def test_a_gate_on_one_qubit_is_exact_up_to_a_phase(gate):
    assert_same_unitary(f"set Q0 1\n{gate} Q0")


@pytest.mark.parametrize("gate", TWO_QUBIT)
@pytest.mark.parametrize("qubits", [(0, 1), (1, 0), (1, 2), (2, 1)])
def test_a_gate_on_two_qubits_is_exact_up_to_a_phase(gate, qubits):
    first, second = qubits
    assert_same_unitary(f"set Q0 {first}\nset Q1 {second}\n{gate} Q0 Q1")


@pytest.mark.parametrize("gate", TWO_QUBIT)
def test_two_carbons_need_no_qubit_0(gate):
    assert_same_unitary(f"set Q0 1\nset Q1 2\n{gate} Q0 Q1", allocated=(1, 2))


@pytest.mark.parametrize("is_hardware", [False, True])
@pytest.mark.parametrize("axis", "xyz")
@pytest.mark.parametrize(("numerator", "exponent"), [(5, 4), (3, 0), (255, 7), (1, 12), (7, 19)])
def test_rotations_keep_their_angle_however_fine(axis, numerator, exponent, is_hardware):
    set_is_using_hardware(is_hardware)
    try:
        ours = assert_same_unitary(f"set Q0 0\nrot_{axis} Q0 {numerator} {exponent}")
    finally:
        set_is_using_hardware(False)
    assert [i.mnemonic for i in ours.instructions] == ["set", f"rot_{axis}"]


def test_only_instructions_of_the_nv_flavour_come_out():
    text = "set Q0 0\nset Q1 1\n" + "\n".join(
        [f"{gate} Q0" for gate in ONE_QUBIT]
        + [f"{gate} Q0 Q1" for gate in (*TWO_QUBIT, "mov")]
        + ["rot_x Q0 1 4", "meas Q0 M0", "meas_basis Q1 M1 8 0 0 4", "qfree Q0", "ret_reg M0"]
    )
    for instruction in compiled(assemble(text)).instructions:
        if 20 <= instruction.id < 32 or instruction.id > 50:
            assert instruction.id in FLAVOURS[Flavour.NV]
            assert instruction.mnemonic == FLAVOURS[Flavour.NV][instruction.id][0]
            assert type(instruction).__module__ == "netqasm.lang.instr.nv"


# --- whole subroutines ----------------------------------------------------------------

qubit_registers = st.sampled_from(["Q0", "Q1", "Q2"])
gates = st.one_of(
    st.builds("{} {}".format, st.sampled_from(ONE_QUBIT), qubit_registers),
    st.builds(
        "rot_{} {} {} {}".format,
        st.sampled_from("xyz"),
        qubit_registers,
        st.integers(0, 255),
        st.integers(0, 9),
    ),
    st.permutations(["Q0", "Q1", "Q2"]).flatmap(
        lambda registers: st.sampled_from(TWO_QUBIT).map(
            lambda gate: f"{gate} {registers[0]} {registers[1]}"
        )
    ),
)
permutations = st.permutations(range(QUBITS))
"""Which qubit each of Q0, Q1, Q2 is."""
pieces = st.one_of(
    st.tuples(st.just("gates"), st.lists(gates, min_size=1, max_size=4)),
    st.tuples(st.sampled_from(["set", "load"]), permutations),
    st.tuples(
        st.just("if"),
        st.sampled_from(["bez R8", "bnz R8", "beq R8 R9", "bne R8 R9", "blt R8 R9", "bge R8 R9"]),
        permutations,
        st.lists(gates, max_size=2),
    ),
    st.tuples(st.just("loop"), st.integers(0, 3), permutations, st.lists(gates, max_size=3)),
)


def addresses(how: str, permutation: list[int]) -> list[str]:
    """Instructions that put a permutation of the qubits into Q0, Q1 and Q2."""
    if how == "set":
        return [f"set Q{place} {qubit}" for place, qubit in enumerate(permutation)]
    lines = []
    for place, qubit in enumerate(permutation):
        lines += [f"set R1 {qubit}", f"set R2 {place}", "store R1 @7[R2]"]
    return lines + [f"set R2 {p}\nload Q{p} @7[R2]" for p in range(QUBITS)]


def text_of(program: list[tuple[Any, ...]], flags: tuple[int, int]) -> str:
    """A subroutine with branches and loops, in text."""
    lines = [f"set R8 {flags[0]}", f"set R9 {flags[1]}", *addresses("set", [0, 1, 2])]
    for number, piece in enumerate(program):
        match piece:
            case ("gates", body):
                lines += body
            case ("set" | "load" as how, permutation):
                lines += addresses(how, permutation)
            case ("if", condition, permutation, body):
                lines += [f"{condition} END{number}", *addresses("set", permutation), *body]
                lines.append(f"END{number}:")
            case ("loop", times, permutation, body):
                # The second time round, the first gates meet what the last addresses left.
                lines += ["set R4 0", f"set R5 {times}", "set R6 1", f"TOP{number}:"]
                lines += [f"beq R4 R5 OUT{number}", *body, *addresses("load", permutation)]
                lines += ["add R4 R4 R6", f"jmp TOP{number}", f"OUT{number}:"]
    return "\n".join(lines)


@settings(max_examples=150, deadline=None)
@given(
    program=st.lists(pieces, min_size=1, max_size=6),
    flags=st.tuples(st.integers(0, 1), st.integers(0, 1)),
)
def test_any_subroutine_does_the_same(program, flags):
    assert_same_unitary(text_of(program, flags))


def test_a_branch_to_the_end_stays_one():
    ours = assert_same_unitary("set R0 0\nset Q0 0\nbez R0 END\nh Q0\nEND:")
    assert len(ours.instructions) == 5
    assert ours.instructions[2].line.value == 5


def test_lines_of_the_program_are_kept():
    subroutine = assemble("set Q0 0\nset Q1 1\ncnot Q0 Q1\nh Q0\nmov Q0 Q1\nrot_x Q0 1 4")
    for number, instruction in enumerate(subroutine.instructions):
        instruction.lineno = number
    lines = [instruction.lineno for instruction in compiled(subroutine).instructions]
    assert lines == [0, 1, 2, 2, 2, 3, 3, 4, 5]


# --- what cannot be -------------------------------------------------------------------


@pytest.mark.parametrize("target", [-1, 3])
def test_a_branch_out_of_the_subroutine_is_refused(target):
    subroutine = assemble("set R0 1\njmp 0")
    subroutine.instructions[1].line = Immediate(target)
    with pytest.raises(MalformedSubroutineError, match=f"instruction {target} .* of 2"):
        compiled(subroutine)


def test_a_gate_of_another_flavour_is_refused():
    gate = trapped_ion.RotZInstruction(reg=Register(RegisterName.Q, 0), imm0=Immediate(1))
    with pytest.raises(UnsupportedInstructionError, match="no NV instruction for rot_z Q0 1"):
        compiled(Subroutine([gate]))


# --- as the SDK where that is right ---------------------------------------------------


@pytest.mark.parametrize("prepared", [False, True])
def test_programs_of_one_qubit_are_byte_for_byte_those_of_the_sdk(prepared):
    def program(connection, socket):
        for request in (socket.create_keep, socket.recv_keep):
            for steps in range(32):
                qubit = request()[0]
                for gate in "XYZHK":
                    getattr(qubit, gate)()
                for axis in "XYZ":
                    getattr(qubit, f"rot_{axis}")(n=steps, d=4)
                qubit.measure(store_array=steps % 2 == 0)
                connection.flush()

    ours = sent_by(program, Flavour.NV, prepared, max_qubits=1)
    theirs = sent_by(program, Flavour.NV, prepared, max_qubits=1, compiler=NVSubroutineTranspiler)
    assert len(ours) == 64
    assert ours == theirs


def test_who_asks_for_the_compiler_of_the_sdk_gets_it():
    def program(connection, socket):
        qubit = Qubit(connection)
        qubit.S()
        qubit.measure(store_array=False)
        connection.flush()

    [asked] = sent_by(program, Flavour.NV, True, max_qubits=1, compiler=NVSubroutineTranspiler)
    [default] = sent_by(program, Flavour.NV, True, max_qubits=1)
    subroutines = [deserialize(raw[1:], flavour=NVFlavour()) for raw in (asked, default)]
    unitaries = [Machine(1, ()).run(subroutine).unitary for subroutine in subroutines]
    assert are_equal(unitaries[0], unitaries[1].conj().T)
    assert not are_equal(unitaries[0], unitaries[1])
