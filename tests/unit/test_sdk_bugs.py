"""What the NetQASM SDK (2.3.0) does wrong, each bug next to what is right here.

A test that fails on its first half says that the SDK has mended something: then what we do
about it can go. docs/netqasm-sdk.md lists them all.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netqasm.backend.messages import ReturnArrayMessage, deserialize_return_msg
from netqasm.lang.encoding import RegisterName
from netqasm.lang.instr import nv
from netqasm.lang.instr.flavour import Flavour as SdkFlavour
from netqasm.lang.instr.flavour import NVFlavour, VanillaFlavour
from netqasm.lang.ir import GenericInstr, ICmd
from netqasm.lang.operand import Immediate, Register
from netqasm.lang.parsing.binary import deserialize
from netqasm.lang.subroutine import Subroutine
from netqasm.runtime.settings import set_is_using_hardware
from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.builder import LabelManager
from netqasm.sdk.connection import DebugConnection
from netqasm.sdk.toolbox import get_angle_spec_from_float
from netqasm.sdk.transpile import NVSubroutineTranspiler

from qnodeos.api.host import ArrayResult, HostReply
from qnodeos.api.netqasm import INSTRUCTION_BYTES, Flavour
from qnodeos.cnpu.backend import QNodeOSConnection
from qnodeos.cnpu.building import ANGLE_TOLERANCE, angle_terms, fraction_terms
from qnodeos.cnpu.nv_compiler import NVCompiler
from qnodeos.errors import CallerError, UnsupportedInstructionError
from tests.unit.netqasm_machine import Machine, UnallocatedError, are_equal, assemble
from tests.unit.spin_half import X, Y, rotation_matrix
from tests.unit.test_prepared import HEADER, SilentHost, sent_by


def compiled(compiler, text: str) -> Subroutine:
    return compiler(assemble(text)).transpile()


def unitary_of(subroutine: Subroutine, qubits: int = 1, allocated=None):
    return Machine(qubits, allocated).run(subroutine).unitary


def is_right(compiler, text: str, qubits: int, allocated=None) -> bool:
    """Whether a compiler's result does what the subroutine says."""
    expected = unitary_of(assemble(text), qubits, allocated)
    return are_equal(unitary_of(compiled(compiler, text), qubits, allocated), expected)


def sent_by_sdk(program, **options) -> list[bytes]:
    """The subroutines a program sends through the SDK's own connection, for vanilla."""
    DebugConnection.node_ids = {"client": 0, "server": 1}
    socket = EPRSocket("client")
    with DebugConnection("server", epr_sockets=[socket], **options) as connection:
        program(connection, socket)
    return [raw for raw in connection.storage if raw[0] == 2]


# --- the NV compiler ------------------------------------------------------------------


@pytest.mark.parametrize(("gate", "angle"), [("s", math.pi / 2), ("t", math.pi / 4)])
def test_s_and_t_turn_the_wrong_way(gate, angle):
    text = f"set Q0 0\n{gate} Q0"
    backwards = np.diag([1, np.exp(-1j * angle)])
    assert are_equal(unitary_of(compiled(NVSubroutineTranspiler, text)), backwards)
    assert is_right(NVCompiler, text, 1)
    # Four of them hide it.
    assert is_right(NVSubroutineTranspiler, text + f"\n{gate} Q0" * 3, 1)


LOADED = """
    array 2 @0
    store 1 @0[0]
    set Q1 0
    set Q0 2
    load Q0 @0[0]
    cnot Q1 Q0
    set Q0 0
    load Q0 @0[0]
    cnot Q0 Q1
"""
BRANCHED = """
    set Q0 0
    set Q1 1
    set R0 1
    bnz R0 SKIP
    set Q0 1
    set Q1 0
    SKIP:
    cnot Q0 Q1
"""


@pytest.mark.parametrize("text", [LOADED, BRANCHED], ids=["load", "branch"])
def test_a_q_register_is_taken_for_what_was_last_set_in_the_text(text):
    # `load` is not noticed, and a `set` that was skipped is taken for done.
    with pytest.raises((AssertionError, WrongControlError)):
        with_electron(compiled(NVSubroutineTranspiler, text))
    assert is_right(NVCompiler, text, 2)


class WrongControlError(Exception):
    """A controlled rotation whose control is not the electron, as NV has none."""


def with_electron(subroutine: Subroutine) -> None:
    """Check that every controlled rotation is controlled by virtual qubit 0."""

    class ElectronMachine(Machine):
        def _quantum(self, name, operands):
            if name.startswith("crot_") and self.registers[operands[0]] != 0:
                raise WrongControlError(name)
            super()._quantum(name, operands)

    ElectronMachine(2).run(subroutine)


def test_a_register_never_set_in_the_text_is_not_compiled():
    text = "array 2 @0\nstore 1 @0[0]\nset Q1 0\nload Q0 @0[0]\ncnot Q1 Q0"
    with pytest.raises(AssertionError, match="unknown at transpile-time"):
        compiled(NVSubroutineTranspiler, text)
    assert is_right(NVCompiler, text, 2)


@pytest.mark.parametrize("gate", ["cnot", "cphase"])
def test_a_gate_on_two_carbons_needs_an_electron_that_is_not_there(gate):
    text = f"set Q0 1\nset Q1 2\n{gate} Q0 Q1"
    with pytest.raises(UnallocatedError, match=r"no \{0\}"):
        unitary_of(compiled(NVSubroutineTranspiler, text), 3, allocated=(1, 2))
    assert is_right(NVCompiler, text, 3, allocated=(1, 2))


def test_a_gate_on_two_carbons_takes_a_register_that_a_loop_brings_a_value_in():
    # The second time round, Q0 is 2; the swap with the electron makes it 0.
    text = """
        set Q1 1
        set Q2 2
        set R0 1
        AGAIN:
        cnot Q1 Q2
        bez R0 END
        set R0 0
        set Q0 2
        jmp AGAIN
        END:
        x Q0
    """
    assert not is_right(NVSubroutineTranspiler, text, 3)
    assert is_right(NVCompiler, text, 3)


def test_a_branch_to_the_end_writes_a_register_of_the_program():
    text = "set C15 5\nset R0 0\nbez R0 END\nEND:"
    c15 = Register(RegisterName.C, 15)
    theirs = Machine(1).run(compiled(NVSubroutineTranspiler, text))
    ours = Machine(1).run(compiled(NVCompiler, text))
    assert (theirs.registers[c15], ours.registers[c15]) == (1337, 5)


def test_hardware_mode_refuses_fine_angles():
    text = "set Q0 0\nrot_x Q0 1 7"
    set_is_using_hardware(True)
    try:
        with pytest.raises(ValueError, match="angle_denom is 7"):
            compiled(NVSubroutineTranspiler, text)
        assert is_right(NVCompiler, text, 1)
    finally:
        set_is_using_hardware(False)


def test_crot_y_has_the_matrix_of_crot_x():
    registers = {"reg0": Register(RegisterName.Q, 0), "reg1": Register(RegisterName.Q, 1)}
    gate = nv.ControlledRotYInstruction(**registers, imm0=Immediate(8), imm1=Immediate(4))
    angle = math.pi / 2

    def block(axis):
        zero, one = rotation_matrix(angle, axis), rotation_matrix(-angle, axis)
        return np.kron(np.diag([1, 0]), zero) + np.kron(np.diag([0, 1]), one)

    assert np.allclose(gate.to_matrix(), block(X))
    assert not np.allclose(gate.to_matrix(), block(Y))
    setting = assemble("set Q0 0\nset Q1 1").instructions
    assert np.allclose(unitary_of(Subroutine([*setting, gate]), 2), block(Y))


# --- what the SDK's builder makes for NV ----------------------------------------------


def measured_in_a_branch(connection, socket):
    """X on a memory qubit that is 1 already, unless another was measured on the way."""
    first, second = Qubit(connection), Qubit(connection)
    first.X()
    never = connection.new_array(1, init_values=[0]).get_future_index(0)
    with never.if_eq(1):
        second.measure()
    first.measure()
    connection.flush()


def test_measuring_a_storage_qubit_moves_another_even_if_the_branch_is_not_taken():
    """The SDK moves virtual qubit 0 away when it writes the branch, not when it is taken."""
    [theirs] = sent_by(
        measured_in_a_branch, Flavour.NV, False, max_qubits=3, compiler=NVSubroutineTranspiler
    )
    [ours] = sent_by(measured_in_a_branch, Flavour.NV, False, max_qubits=3)
    with pytest.raises(UnallocatedError, match="meas"):
        run_bytes(theirs)
    assert run_bytes(ours).outcomes == {0: 1}


def run_bytes(raw: bytes, flavour: SdkFlavour | None = None) -> Machine:
    """Run a message with a subroutine, NV's by default, on three qubits, none allocated."""
    return Machine(3, ()).run(deserialize(raw[1:], flavour=flavour or NVFlavour()))


def psi_plus(connection, socket):
    """Two pairs for a program that expects Psi+."""
    for qubit in socket.recv_keep(number=2, expect_psi_plus=True, expect_phi_plus=False):
        qubit.measure(store_array=False)
    connection.flush()


def test_corrections_of_several_pairs_are_all_on_qubit_0():
    # Each pair is Phi+, so each needs an X; two on the same qubit are none.
    [theirs] = sent_by_sdk(psi_plus, max_qubits=2)
    [ours] = sent_by(psi_plus, Flavour.VANILLA, False, max_qubits=2)
    assert run_bytes(theirs, VanillaFlavour()).outcomes == {0: 0, 1: 0}
    assert run_bytes(ours, VanillaFlavour()).outcomes == {0: 1, 1: 1}


def test_a_connection_of_one_qubit_gets_no_correction():
    def program(connection, socket):
        [qubit] = socket.recv_keep(expect_psi_plus=True, expect_phi_plus=False)
        qubit.measure(store_array=False)
        connection.flush()

    [theirs] = sent_by_sdk(program, max_qubits=1)
    [ours] = sent_by(program, Flavour.NV, False, max_qubits=1)
    assert run_bytes(theirs, VanillaFlavour()).outcomes == {0: 0}
    assert run_bytes(ours).outcomes == {0: 1}


@pytest.mark.parametrize("max_qubits", [1, 3])
def test_a_routine_for_every_pair_gets_them_corrected(max_qubits):
    def program(connection, socket):
        others = [Qubit(connection) for _ in range(max_qubits - 1)]

        def routine(connection, qubit, pair):
            qubit.measure(future=outcomes.get_future_index(pair), inplace=True)

        outcomes = connection.new_array(2)
        socket.recv_keep(
            number=2,
            sequential=True,
            post_routine=routine,
            expect_psi_plus=True,
            expect_phi_plus=False,
        )
        connection.flush()
        del others

    [theirs] = sent_by_sdk(program, max_qubits=max_qubits)
    [ours] = sent_by(program, Flavour.VANILLA, False, max_qubits=max_qubits)
    address = max_qubits - 1
    # The machine keeps one qubit for both pairs: after two X it is where it was.
    outcome_of = {raw: run_bytes(raw, VanillaFlavour()).arrays[0] for raw in (theirs, ours)}
    assert outcome_of[ours] == {0: 1, 1: 0}
    assert outcome_of[theirs] == ({0: 1, 1: 0} if address == 0 else {0: 0, 1: 0})


# --- what the SDK's builder loses -----------------------------------------------------


@pytest.mark.parametrize("kind", ["if_ez", "if_nz"])
def test_the_seventeenth_condition_on_a_future_finds_no_register(kind):
    def conditions(number: int):
        def program(connection, socket):
            values = connection.new_array(1, init_values=[1])
            qubit = Qubit(connection)
            for _ in range(number):
                with getattr(values.get_future_index(0), kind)():
                    qubit.X()
            qubit.measure(store_array=False)
            connection.flush()

        return program

    assert sent_by_sdk(conditions(12))
    with pytest.raises(RuntimeError, match="no registers left"):  # for a constant
        sent_by_sdk(conditions(16))
    with pytest.raises(RuntimeError, match="could not find an available"):
        sent_by_sdk(conditions(17))
    [raw] = sent_by(conditions(101), Flavour.VANILLA, False)
    assert run_bytes(raw, VanillaFlavour()).outcomes == {0: int(kind == "if_nz")}


def test_the_seventeenth_condition_fails_after_a_flush_too():
    def program(connection, socket):
        for _ in range(20):
            value = connection.new_array(1, init_values=[1]).get_future_index(0)
            qubit = Qubit(connection)
            with value.if_nz():
                qubit.X()
            qubit.measure(store_array=False)
            connection.flush()

    with pytest.raises(RuntimeError, match="could not find an available"):
        sent_by_sdk(program)
    assert len(sent_by(program, Flavour.VANILLA, False)) == 20


def test_labels_are_never_forgotten():
    def program(connection, socket):
        for _ in range(30):
            with connection.loop(2):
                Qubit(connection).measure(store_array=False)
            connection.flush()
            known.append(len(connection.builder._label_mgr._labels))

    known: list[int] = []
    sent_by_sdk(program)
    assert known == list(range(2, 62, 2))
    known.clear()
    sent_by(program, Flavour.VANILLA, False)
    assert known == [0] * 30
    # Each new label looks through all of them.
    labels = LabelManager()
    assert [labels.new_label("LOOP") for _ in range(3)] == ["LOOP", "LOOP1", "LOOP2"]


def test_addresses_of_arrays_are_never_forgotten():
    def program(connection, socket):
        for _ in range(30):
            addresses.append(connection.new_array(1).address)
            connection.flush()
            known.append(len(connection.builder._mem_mgr._used_array_addresses))

    addresses: list[int] = []
    known: list[int] = []
    sent_by_sdk(program)
    assert known == list(range(1, 31))
    known.clear()
    sent_by(program, Flavour.VANILLA, False)
    assert known == [1] * 30
    # Nor used again: the kernel keeps the arrays made last.
    assert addresses == [*range(30), *range(30)]


def test_undefined_entries_of_a_returned_array_become_0():
    message = deserialize_return_msg(bytes(ReturnArrayMessage(address=3, values=[5, None])))
    assert message.values == [5, 0]

    class Host(SilentHost):
        def await_reply(self, request: int) -> HostReply:
            return HostReply(0, request, (ArrayResult(3, (5, None)),))

    with QNodeOSConnection("server", host=Host(Flavour.VANILLA)) as connection:
        assert connection.shared_memory.get_array_part(3, slice(0, 2)) == [5, None]


# --- numbers that are cut off ---------------------------------------------------------


def on_qubit(act):
    """A program that does something to a qubit and sends it."""

    def program(connection, socket):
        qubit = Qubit(connection)
        act(connection, qubit)
        connection.flush()

    return program


def first(raw: bytes, opcode: int) -> bytes:
    """The first instruction with an opcode."""
    body = raw[HEADER:]
    words = (body[at : at + INSTRUCTION_BYTES] for at in range(0, len(body), INSTRUCTION_BYTES))
    return next(word for word in words if word[0] == opcode)


def test_numerators_of_angles_are_cut_to_a_byte():
    program = on_qubit(lambda connection, qubit: qubit.rot_X(n=300, d=9))
    [theirs] = sent_by_sdk(program)
    assert first(theirs, 27)[2:4] == bytes((300 - 256, 9))
    [ours] = sent_by(program, Flavour.VANILLA, False)
    machine = run_bytes(ours, VanillaFlavour())
    exact = np.kron(rotation_matrix(300 * math.pi / 2**9, X), np.eye(4)).astype(np.complex128)
    assert are_equal(machine.unitary, exact)


def test_exponents_of_angles_are_cut_to_a_byte():
    program = on_qubit(lambda connection, qubit: qubit.rot_X(n=1, d=257))
    [theirs] = sent_by_sdk(program)
    assert first(theirs, 27)[2:4] == bytes((1, 1))
    with pytest.raises(CallerError, match=r"exponent must lie in 0\.\.255"):
        sent_by(program, Flavour.VANILLA, False)


@pytest.mark.parametrize("flavour", list(Flavour))
@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize(
    ("act", "message"),
    [
        (
            lambda connection, _: connection.new_array(1, init_values=[2**32 + 1]),
            r"4294967297|32-bit",
        ),
        (
            lambda connection, _: connection.builder.subrt_add_pending_command(
                ICmd(GenericInstr.SET, operands=[Register(RegisterName.R, 20), 1])
            ),
            r"no register R20; banks have registers 0\.\.15",
        ),
        (
            lambda connection, _: connection.builder.subrt_add_pending_command(
                ICmd(GenericInstr.ROT_X, operands=[Register(RegisterName.Q, 0), 300, 9])
            ),
            r"rot_x Q0 300 9.*300 is outside 0\.\.255",
        ),
        (
            lambda _, qubit: qubit.measure(basis_rotations=(300, 0, 0)),
            r"meas_basis.*300 is outside 0\.\.255",
        ),
    ],
    ids=["constant", "register", "numerator", "basis"],
)
def test_what_does_not_fit_is_refused(flavour, prepared, act, message):
    program = on_qubit(act)
    assert len(sent_by_sdk(program)) == 1
    with pytest.raises(CallerError, match=message):
        sent_by(program, flavour, prepared)


def test_what_the_sdk_makes_of_what_does_not_fit():
    def act(connection, _):
        for name, index, number in ((RegisterName.R, 20, 1), (RegisterName.R, 0, 2**32 + 1)):
            operands = [Register(name, index), number]
            connection.builder.subrt_add_pending_command(ICmd(GenericInstr.SET, operands=operands))

    socket = EPRSocket("client", epr_socket_id=(1 << 32) + 7)
    DebugConnection.node_ids = {"client": 0, "server": 1}
    with DebugConnection("server", max_qubits=257, epr_sockets=[socket]) as connection:
        act(connection, None)
    registration, opening, subroutine, *_ = connection.storage
    assert registration[8] == 1
    assert int.from_bytes(opening[8:12], "little") == 7
    body = subroutine[HEADER:]
    assert body[:2] == bytes((4, 4 << 2))  # set R4
    assert body[INSTRUCTION_BYTES + 2 :][:4] == bytes((1, 0, 0, 0))


def test_a_subroutine_made_by_hand_is_looked_at_too():
    def program(connection, socket):
        subroutine = assemble("set R0 1")
        subroutine.instructions[0].imm = Immediate(1 << 40)
        connection.commit_subroutine(subroutine)

    assert int.from_bytes(sent_by_sdk(program)[0][HEADER + 2 : HEADER + 6], "little") == 0
    with pytest.raises(CallerError, match=r"instruction 0 \(set R0 1099511627776\)"):
        sent_by(program, Flavour.VANILLA, True)


def test_applications_qubits_and_sockets_have_bounds():
    [theirs] = sent_by_sdk(on_qubit(lambda *_: None), app_id=0x10005)
    assert theirs[3:5] == bytes((5, 0))
    for options in ({"app_id": 0x10005}, {"max_qubits": 256}, {"max_qubits": 0}):
        with pytest.raises(CallerError, match=r"0\.\.65535|1\.\.255"):
            sent_by(on_qubit(lambda *_: None), Flavour.NV, False, **options)
    socket = EPRSocket("client", epr_socket_id=1 << 32)
    with pytest.raises(CallerError, match="EPR socket id 4294967296"):
        QNodeOSConnection("server", host=SilentHost(Flavour.NV), epr_sockets=[socket])


# --- angles in radians ----------------------------------------------------------------


def value(terms: list[tuple[int, int]]) -> float:
    return math.fsum(n * math.pi / 2**d for n, d in terms)


def distance(first_angle: float, second_angle: float) -> float:
    """Of two angles, modulo whole turns."""
    return abs((first_angle - second_angle + math.pi) % (2 * math.pi) - math.pi)


def test_a_multiple_of_pi_over_16_becomes_a_sum_of_fine_fractions():
    angle = 11 * math.pi / 16
    assert len(get_angle_spec_from_float(angle)) > 1
    assert angle_terms(angle, 0) == [(11, 4)]
    wrong = [n for n in range(96) if len(get_angle_spec_from_float(n * math.pi / 16)) > 1]
    assert len(wrong) > 20
    for n in range(96):
        assert angle_terms(n * math.pi / 16, 0) == ([(n % 32, 4)] if n % 32 else [])


@pytest.mark.parametrize("halvings", [0, 3, 9, 15])
@settings(max_examples=100)
@given(angle=st.floats(-50, 50))
def test_an_angle_is_the_nearest_of_the_device_or_refused(halvings, angle):
    unit = math.pi / 16 / 2**halvings
    off = abs(angle - round(angle / unit) * unit)
    if off > ANGLE_TOLERANCE:
        with pytest.raises(UnsupportedInstructionError, match="nearest"):
            angle_terms(angle, halvings)
        return
    terms = angle_terms(angle, halvings)
    assert all(0 < n <= 255 and 0 <= d <= 4 + halvings for n, d in terms)
    assert distance(value(terms), angle) <= off + 1e-9


@settings(max_examples=100)
@given(numerator=st.integers(0, 1 << 70), exponent=st.integers(0, 255))
def test_any_fraction_is_a_sum_of_such_that_fit(numerator, exponent):
    terms = fraction_terms(numerator, exponent)
    assert all(0 < n <= 255 and 0 <= d <= 255 for n, d in terms)
    total = sum(Fraction(n, 1 << d) for n, d in terms)
    assert (total - Fraction(numerator, 1 << exponent)) % 2 == 0


def test_the_error_names_the_nearest_angles():
    with pytest.raises(UnsupportedInstructionError, match=r"5 \* pi/16 and 6 \* pi/16"):
        angle_terms(1.0, 0)
    with pytest.raises(UnsupportedInstructionError, match=r"20 \* pi/64 and 21 \* pi/64"):
        angle_terms(1.0, 2)
    for angle in (math.nan, math.inf):
        with pytest.raises(CallerError, match="finite"):
            angle_terms(angle, 15)


def test_a_program_hears_of_an_impossible_angle_where_it_asks_for_it():
    program = on_qubit(lambda connection, qubit: qubit.rot_Y(angle=1.0))
    with pytest.raises(UnsupportedInstructionError, match=r"rotation by 1\.0 radians"):
        sent_by(program, Flavour.NV, True)
    assert sent_by_sdk(program)
