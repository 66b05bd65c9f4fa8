"""Prepared subroutines and shortcuts of the builder: the bytes are the SDK's, always."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from netqasm.lang.operand import Immediate, Template
from netqasm.lang.parsing.text import parse_text_protosubroutine
from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.config import LogConfig
from netqasm.sdk.connection import BaseNetQASMConnection
from netqasm.sdk.qubit import QubitMeasureBasis
from netqasm.sdk.transpile import NVSubroutineTranspiler

from drivers.nv import NV_CAPABILITIES
from qnodeos.api.host import HostReply
from qnodeos.api.netqasm import INSTRUCTION_BYTES, Flavour
from qnodeos.cnpu import prepared as prepared_module
from qnodeos.cnpu.backend import QNodeOSConnection
from qnodeos.cnpu.host import NetworkDirectory
from qnodeos.cnpu.prepared import PreparedSubroutine, SubroutineCache
from qnodeos.cnpu.warm_up import warm_up
from qnodeos.errors import CallerError

FLAVOURS = list(Flavour)
HEADER = 5


@pytest.fixture(autouse=True)
def nothing_prepared(monkeypatch):
    """Tests do not see what others have prepared in this process."""
    monkeypatch.setattr(prepared_module, "_shared", {})


class SilentHost:
    """A CNPU that keeps what is sent, and answers everything with nothing."""

    node_name = "server"
    directory = NetworkDirectory(
        {"client": 0, "server": 1}, {"client": "client", "server": "server"}
    )

    def __init__(self, flavour: Flavour) -> None:
        self.flavour = flavour
        self.capabilities = NV_CAPABILITIES
        self.sent: list[bytes] = []

    def open_client(self) -> int:
        return 0

    def close_client(self, client: int) -> None:
        pass

    def register(self, client: int, app_id: int, max_qubits: int, priority: int) -> int:
        raise AssertionError

    def submit(self, client: int, raw: bytes) -> int:
        self.sent.append(raw)
        return 0

    def await_reply(self, request: int) -> HostReply:
        return HostReply(0, request)

    def open_socket(self, *_: Any) -> None:
        raise AssertionError

    send: Callable[..., None] = open_socket
    receive: Callable[..., Any] = open_socket


def sent_by(
    program: Callable[[BaseNetQASMConnection, EPRSocket], Any],
    flavour: Flavour,
    prepared: bool,
    **options: Any,
) -> list[bytes]:
    """The subroutines a program sends."""
    host, socket = SilentHost(flavour), EPRSocket("client")
    options.setdefault("max_qubits", 3)
    with QNodeOSConnection(
        "server", epr_sockets=[socket], host=host, prepared=prepared, **options
    ) as connection:
        program(connection, socket)
    return [raw for raw in host.sent if raw[0] == 2]


def assert_same(program: Callable[..., Any], flavour: Flavour, **options: Any) -> list[bytes]:
    """A program sends the same with and without preparation; returns it."""
    ours = sent_by(program, flavour, True, **options)
    theirs = sent_by(program, flavour, False, **options)
    assert [raw.hex() for raw in ours] == [raw.hex() for raw in theirs]
    return ours


@contextmanager
def assemblies(monkeypatch) -> Iterator[list[int]]:
    """Counts how often the SDK assembles."""
    count = [0]
    assemble = SubroutineCache._assemble

    def counted(self, block):
        count[0] += 1
        return assemble(self, block)

    with monkeypatch.context() as patch:
        patch.setattr(SubroutineCache, "_assemble", counted)
        yield count


# --- any program ----------------------------------------------------------------------

numerators = st.integers(0, 255)
exponents = st.integers(0, 4)
angles = st.integers(-64, 64).map(lambda steps: steps * math.pi / 16) | st.floats(-7, 7)
operations = st.one_of(
    st.tuples(st.sampled_from(["X", "Y", "Z", "H", "S", "T", "K"])),
    st.tuples(st.just("rot"), st.sampled_from("XYZ"), numerators, exponents),
    st.tuples(st.just("rot"), st.sampled_from("XYZ"), numerators, st.just(4)),
    st.tuples(st.just("angle"), st.sampled_from("XYZ"), angles),
    st.tuples(st.just("measure"), st.booleans(), st.booleans(), st.sampled_from("XYZ")),
    st.tuples(st.just("array"), st.lists(st.integers(-5, 5) | st.none(), min_size=1, max_size=3)),
    st.tuples(st.just("add"), st.integers(-9, 9), st.sampled_from([None, 2, 32])),
    st.tuples(st.just("if"), st.sampled_from(["eq", "ne", "lt", "ge"]), st.integers(-3, 3)),
    st.tuples(st.just("loop"), st.integers(1, 4)),
    st.tuples(st.just("pair"), st.sampled_from(["create_keep", "recv_keep"])),
    st.tuples(st.just("pair"), st.sampled_from(["create_measure", "recv_measure"])),
    st.tuples(st.just("second"), st.sampled_from(["cnot", "cphase"])),
)


def build(connection: Any, socket: EPRSocket, block: list[Any], shift: int) -> None:
    """Build one block; ``shift`` changes its numbers and nothing else."""
    values = connection.new_array(1, init_values=[shift])
    qubit = Qubit(connection)
    for operation in block:
        if not qubit.active:
            qubit = Qubit(connection)
        match operation:
            case ("rot", axis, n, d):
                getattr(qubit, f"rot_{axis}")(n=(n + shift) % 256, d=d)
            case ("angle", axis, angle):
                getattr(qubit, f"rot_{axis}")(angle=angle + shift * math.pi / 16)
            case ("measure", in_array, stays, basis):
                axis = QubitMeasureBasis("XYZ".index(basis))
                qubit.measure(store_array=in_array, inplace=stays, basis=axis)
            case ("array", content):
                connection.new_array(len(content), init_values=list(content))
            case ("add", number, modulus):
                values.get_future_index(0).add(number + shift, mod=modulus)
            case ("if", kind, number):
                with getattr(values.get_future_index(0), f"if_{kind}")(number + shift):
                    qubit.X()
            case ("loop", times):
                with connection.loop(times):
                    qubit.H()
            case ("pair", "create_measure" | "recv_measure" as kind):
                getattr(socket, kind)(number=1)
            case ("pair", kind):
                if not qubit.active or len(connection.active_qubits) > 1:
                    continue
                other = getattr(socket, kind)(number=1)[0]
                other.measure(store_array=False)
            case ("second", gate):
                other = Qubit(connection)
                getattr(qubit, gate)(other)
                other.measure()
            case (gate,):
                getattr(qubit, gate)()
    if qubit.active:
        qubit.measure(store_array=False)
    connection.flush()


@pytest.mark.parametrize("flavour", FLAVOURS)
@settings(max_examples=60, deadline=None)
@given(blocks=st.lists(st.lists(operations, max_size=6), min_size=1, max_size=2), data=st.data())
def test_any_program_sends_what_the_sdk_would(flavour, blocks, data):
    shifts = data.draw(st.lists(st.integers(0, 40), min_size=2, max_size=3))

    def program(connection, socket):
        for shift in shifts:
            for block in blocks:
                build(connection, socket, block, shift)

    def attempt(prepared: bool) -> list[bytes] | str:
        try:
            return sent_by(program, flavour, prepared)
        except Exception as error:  # the SDK does not compile everything it builds
            return type(error).__name__

    assert attempt(True) == attempt(False)


# --- how often the SDK has to work ----------------------------------------------------


def rotated(steps: int, more: int = 3) -> Callable[[Any, Any], None]:
    def program(connection, socket):
        qubit = Qubit(connection)
        qubit.rot_X(n=steps, d=4)
        qubit.rot_Y(n=more, d=4)
        qubit.measure(store_array=False)
        connection.flush()

    return program


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_blocks_that_differ_in_their_angles_are_assembled_once(flavour, monkeypatch):
    def program(connection, socket):
        for steps in range(40):
            rotated(steps, 255 - steps)(connection, socket)

    with assemblies(monkeypatch) as count:
        sent = sent_by(program, flavour, True)
    assert count == [2]  # the block, and the template
    assert len(set(sent)) == 40
    assert sent == sent_by(program, flavour, False)


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_the_blocks_of_a_server_are_assembled_once(flavour, monkeypatch):
    def program(connection, socket):
        for steps in range(10):
            qubit = socket.recv_keep()[0]
            connection.flush()
            qubit.rot_Y(n=8, d=4)
            qubit.rot_X(n=steps, d=4)
            qubit.measure(store_array=False)
            connection.flush()

    with assemblies(monkeypatch) as count:
        sent = sent_by(program, flavour, True, max_qubits=1)
    assert count == [4]
    assert sent == sent_by(program, flavour, False, max_qubits=1)


def test_connections_share_what_is_prepared(monkeypatch):
    with assemblies(monkeypatch) as count:
        for _ in range(3):
            sent_by(rotated(3), Flavour.NV, True)
        assert count == [2]
        sent_by(rotated(3), Flavour.VANILLA, True)
    assert count == [4]


def test_warming_up_prepares_the_usual_blocks(monkeypatch):
    warm_up(Flavour.NV, NV_CAPABILITIES)
    with assemblies(monkeypatch) as count:

        def program(connection, socket):
            Qubit(connection).measure()
            connection.flush()

        sent_by(program, Flavour.NV, True)
    assert count == [0]
    warm_up(Flavour.VANILLA, NV_CAPABILITIES)
    monkeypatch.setenv("QNODEOS_PREPARED", "0")
    warm_up(Flavour.NV, NV_CAPABILITIES)


def test_preparing_comes_after_sending():
    host = SilentHost(Flavour.NV)
    with QNodeOSConnection("server", host=host) as connection:
        assert connection._cache is not None
        known = connection._cache._shapes.known
        rotated(1)(connection, None)
        assert len(known) == 1
        qubit = Qubit(connection)
        qubit.X()
        submit = host.submit
        at_submit: list[int] = []
        host.submit = lambda *a: (at_submit.append(len(known)), submit(*a))[1]  # type: ignore
        connection.flush()
        assert (at_submit, len(known)) == ([1], 2)
        qubit.measure(store_array=False)


@pytest.mark.parametrize("exponent", [0, 3, 5, 200])
def test_other_angles_belong_to_the_shape(exponent, monkeypatch):
    def program(connection, socket):
        for numerator in (1, 3, 1):
            qubit = Qubit(connection)
            qubit.rot_Z(n=numerator, d=exponent)
            qubit.measure(store_array=False)
            connection.flush()

    with assemblies(monkeypatch) as count:
        assert_same(program, Flavour.NV)
    assert count == [4]


def test_numerators_that_are_no_byte_are_left_to_the_sdk():
    assert_same(rotated(256 + 5), Flavour.NV)
    assert_same(rotated(300), Flavour.VANILLA)


def test_an_unknown_transpiler_may_do_with_angles_what_it_likes():
    class Avoids(NVSubroutineTranspiler):  # type: ignore[misc]
        def transpile(self):
            subroutine = super().transpile()
            for instruction in subroutine.instructions:
                if instruction.mnemonic == "rot_x" and instruction.imm0.value == 4:
                    instruction.imm0 = Immediate(5)
            return subroutine

    def program(connection, socket):
        for steps in (3, 4, 6, 4):
            rotated(steps)(connection, socket)

    assert_same(program, Flavour.NV, compiler=Avoids)


def test_an_unknown_transpiler_that_changes_constants():
    class Counts(NVSubroutineTranspiler):  # type: ignore[misc]
        def transpile(self):
            subroutine = super().transpile()
            for instruction in subroutine.instructions:
                if instruction.mnemonic == "set" and instruction.imm.value < 1000:
                    instruction.imm = Immediate(instruction.imm.value + 1)
            return subroutine

    def program(connection, socket):
        for value in (3, 4, 5):
            connection.new_array(1, init_values=[value])
            connection.flush()

    assert_same(program, Flavour.NV, compiler=Counts)


def test_where_labels_are_belongs_to_the_shape():
    def program(connection, socket):
        connection.new_array(1)
        connection.flush()
        for first, second in (("A", "B"), ("B", "A")):
            text = f"set R0 0\nbez R0 A\nset R1 1\n{first}:\nset R2 2\n{second}:\nret_reg R2"
            block = parse_text_protosubroutine(text)
            block._app_id = connection.app_id
            connection.commit_protosubroutine(block)

    sent = assert_same(program, Flavour.VANILLA)
    assert sent[1] != sent[2]


def test_a_memory_qubit_is_measured_where_the_sdk_would():
    def program(connection, socket):
        for _ in range(2):
            first, second = Qubit(connection), Qubit(connection)
            second.measure(store_array=False)
            first.measure(store_array=False)
            connection.flush()

    assert_same(program, Flavour.NV)


def test_more_angles_than_can_be_filled_in(monkeypatch):
    monkeypatch.setattr(prepared_module, "MAX_ANGLES", 3)

    def program(connection, socket):
        for shift in range(4):
            qubit = Qubit(connection)
            for number in range(6):
                qubit.rot_X(n=130 + number + shift, d=4)
            qubit.measure(store_array=False)
            connection.flush()

    assert_same(program, Flavour.NV)


def test_a_block_of_very_many_angles():
    def program(connection, socket):
        for shift in range(3):
            qubit = Qubit(connection)
            for number in range(200):
                qubit.rot_X(n=(number + shift) % 256, d=4)
            qubit.measure(store_array=False)
            connection.flush()

    assert_same(program, Flavour.VANILLA)


def test_shapes_are_bounded(monkeypatch):
    monkeypatch.setattr(prepared_module, "MAX_SHAPES", 2)
    host = SilentHost(Flavour.NV)
    with QNodeOSConnection("server", host=host) as connection:
        for number in (1, 2, 3, 4, 1):
            for _ in range(number):
                connection.new_array(1)
            connection.flush()
            assert connection._cache is not None
            assert len(connection._cache._shapes.known) <= 2


def test_a_number_of_more_than_32_bits_is_refused():
    def program(connection, socket):
        for value in (1, 2, 1 << 31):
            connection.new_array(1, init_values=[value])
            connection.flush()

    with pytest.raises(CallerError, match="no 32-bit integer"):
        sent_by(program, Flavour.NV, True)


# --- switches -------------------------------------------------------------------------


def test_preparation_can_be_turned_off(monkeypatch):
    def program(connection, socket):
        assert connection._cache is None
        rotated(3)(connection, socket)

    sent_by(program, Flavour.NV, False)
    monkeypatch.setenv("QNODEOS_PREPARED", "0")
    sent_by(program, Flavour.NV, None)  # type: ignore[arg-type]
    monkeypatch.setenv("QNODEOS_PREPARED", "1")
    with pytest.raises(AssertionError):
        sent_by(program, Flavour.NV, None)  # type: ignore[arg-type]


def test_lines_of_the_program_are_noted_if_wanted(tmp_path):
    config = LogConfig(track_lines=True, app_dir="/", log_subroutines_dir=str(tmp_path))
    assert_same(rotated(3), Flavour.NV, log_config=config)


# --- the SDK's templates --------------------------------------------------------------


def templated(connection: Any, reuse: bool = False) -> Any:
    """What the SDK's example of remote state preparation compiles."""
    qubit = Qubit(connection)
    connection.flush()
    qubit.rot_Z(n=Template("delta"), d=4)
    qubit.H()
    qubit.measure(store_array=False)
    return connection.compile()


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_compiled_subroutines_with_templates(flavour):
    def program(connection, socket):
        for delta in (0, 5, 31, -3, 300):
            subroutine = templated(connection)
            subroutine.instantiate(connection.app_id, arguments={"delta": delta})
            connection.commit_subroutine(subroutine)

    assert len(assert_same(program, flavour)) == 10


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_compiled_subroutine_can_be_instantiated_again(flavour, monkeypatch):
    def again(connection, socket):
        subroutine = templated(connection)
        assert isinstance(subroutine, PreparedSubroutine)
        with assemblies(monkeypatch) as count:
            for delta in range(5):
                subroutine.instantiate(connection.app_id, arguments={"delta": delta})
                connection.commit_subroutine(subroutine)
        assert count == [0]

    def anew(connection, socket):
        qubit = Qubit(connection)
        connection.flush()
        for delta in range(5):
            qubit.rot_Z(n=delta, d=4)
            qubit.H()
            qubit.measure(store_array=False)
            connection.flush()
            qubit._active = True

    assert sent_by(again, flavour, True) == sent_by(anew, flavour, False)


def test_blocks_with_and_without_templates_share_what_is_prepared(monkeypatch):
    def program(connection, socket):
        for steps in range(3):
            qubit = Qubit(connection)
            qubit.rot_X(n=steps, d=4)
            qubit.measure(store_array=False)
            connection.flush()
        qubit = Qubit(connection)
        qubit.rot_X(n=Template("n"), d=4)
        qubit.measure(store_array=False)
        subroutine = connection.compile()
        subroutine.instantiate(0, {"n": 7})
        connection.commit_subroutine(subroutine)

    with assemblies(monkeypatch) as count:
        assert_same(program, Flavour.NV)
    assert count == [2]


def test_a_compiled_subroutine_looks_like_the_sdks():
    def program(connection, socket):
        qubit = Qubit(connection)
        qubit.rot_X(n=Template("n"), d=4)
        with connection.loop(2):
            qubit.H()
        qubit.measure(store_array=False)
        subroutine = connection.compile()
        before = str(subroutine)
        subroutine.instantiate(3, {"n": 7})
        seen.append((before, str(subroutine), len(subroutine), bytes(subroutine).hex()))
        seen[-1] += (subroutine.app_id, subroutine.arguments)

    seen: list[Any] = []
    assert_same(program, Flavour.NV)
    ours, theirs = seen
    assert ours == theirs
    assert "{n}" in ours[0]
    assert "{n}" not in ours[1]


@pytest.mark.parametrize("in_place", [True, False])
def test_changed_instructions_are_what_is_sent(in_place):
    def program(connection, socket):
        subroutine = templated(connection)
        instructions = subroutine.instructions if in_place else list(subroutine.instructions)
        del instructions[0]
        subroutine.instructions = instructions
        subroutine.instantiate(connection.app_id, {"delta": 7})
        subroutine.instructions[0].imm0 = Immediate(9)
        connection.commit_subroutine(subroutine)

    sent = assert_same(program, Flavour.NV)
    assert sent[1][HEADER + 2] == 9


def test_looking_at_a_subroutine_changes_nothing():
    def program(connection, socket):
        subroutine = templated(connection)
        for delta in (3, 4):
            assert len(subroutine.instructions) == len(str(subroutine).splitlines()) - 2
            subroutine.instantiate(connection.app_id, {"delta": delta})
            connection.commit_subroutine(subroutine)

    sent = sent_by(program, Flavour.NV, True)
    assert [raw[HEADER + INSTRUCTION_BYTES + 2] for raw in sent[1:3]] == [3, 4]


def test_templates_elsewhere_are_left_to_the_sdk():
    def program(connection, socket):
        qubit = Qubit(connection)
        qubit.rot_X(n=Template("n"), d=3)
        qubit.rot_X(n=Template("n"), d=4)
        qubit.measure(store_array=False)
        subroutine = connection.compile()
        assert not isinstance(subroutine, PreparedSubroutine)
        subroutine.instantiate(connection.app_id, {"n": 3})
        connection.commit_subroutine(subroutine)

    assert_same(program, Flavour.VANILLA)


def test_nothing_to_compile():
    def program(connection, socket):
        assert connection.compile() is None

    assert_same(program, Flavour.NV)


def test_templates_without_values():
    def missing(connection, socket):
        subroutine = templated(connection)
        with pytest.raises(CallerError, match="no value for delta"):
            subroutine.instantiate(0)
        with pytest.raises(CallerError, match="delta"):
            bytes(subroutine)
        subroutine.instantiate(0, {"delta": 1.5})
        with pytest.raises(CallerError, match="whole numbers"):
            bytes(subroutine)

    sent_by(missing, Flavour.NV, True)


@pytest.mark.parametrize("is_known", [False, True])
def test_flushing_a_template_says_what_to_do(is_known):
    def program(connection, socket):
        if is_known:
            qubit = Qubit(connection)
            qubit.rot_X(n=1, d=4)
            qubit.measure(store_array=False)
            connection.flush()
        qubit = Qubit(connection)
        qubit.rot_X(n=Template("n"), d=4)
        qubit.measure(store_array=False)
        connection.flush()

    with pytest.raises(CallerError, match="call instantiate"):
        sent_by(program, Flavour.NV, True)


def test_the_bytes_are_whole_instructions():
    [raw] = sent_by(rotated(3), Flavour.NV, True)
    assert (len(raw) - HEADER) % INSTRUCTION_BYTES == 0
