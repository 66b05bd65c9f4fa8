"""What programs may do wrong: a typed error in the reply, a clean end, nobody else harmed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qnodeos.api.netqasm import Flavour
from qnodeos.errors import ErrorCode
from qnodeos.limits import Limits
from qnodeos.qdevice.outcomes import Outcome
from tests.unit.kernel_device import Answer
from tests.unit.kernel_harness import Node, make_node, solo
from tests.unit.kernel_programs import (
    create_epr,
    encode,
    init_app,
    measure_directly,
    open_socket,
    recv_epr,
    register,
    stop_app,
    submit,
)

Q0, Q1, R0, R1, M0 = (register(name) for name in ("Q0", "Q1", "R0", "R1", "M0"))
BYSTANDER = "qalloc Q0\ninit Q0\nmeas Q0 M0\nqfree Q0\nret_reg M0\n"
LIMITS = Limits(
    subroutine_bytes=4_000,
    instructions_per_activation=2_000,
    instructions_per_tick=100,
    array_length=100,
    result_entries=50,
    entanglement_requests=2,
    receive_requests=1,
)
SET_NEGATIVE = ("set", R0, -1)

CASES: dict[str, tuple[str | bytes, str, str, Any]] = {
    # name: (subroutine, kind, words of the message, index of the instruction at fault)
    "truncated": (b"\x04" * 10, "MalformedSubroutineError", "10 bytes is truncated", None),
    "oversized": (encode(("ret_reg", R0)) * 700, "MalformedMessageError", "exceeds the limit", ...),
    "unknown opcode": (b"\xee" + b"\0" * 6, "MalformedSubroutineError", "unknown opcode 238", None),
    "bad register": (encode(("ret_reg", 64)), "MalformedSubroutineError", "0x40", None),
    "branch out": (encode(("jmp", 9)), "MalformedSubroutineError", "branch to instruction 9", 0),
    "negative address": (
        encode(("array", R0, -4)), "ArrayAccessError", "array @-4 of length 0", 0,
    ),
    "negative length": (
        encode(SET_NEGATIVE, ("array", R0, 0)), "ArrayAccessError", "length -1", 1,
    ),
    "array too long": ("array 101 @0", "LimitError", "array_length=100", 1),
    "negative index": (
        encode(("array", R1, 0), SET_NEGATIVE, ("store", R1, 0, R0)),
        "ArrayAccessError", "index -1 is outside array @0", 2,
    ),
    "index out of range": (
        "set R5 3\narray R5 @0\nload R0 @0[R5]\n", "ArrayAccessError", "index 3 is outside", 2,
    ),
    "no such array": ("ret_arr @3", "ArrayAccessError", "no array @3", 0),
    "undefined entry": (
        "set R5 3\narray R5 @0\nload R0 @0[R1]", "ArrayAccessError", "undefined", 2,
    ),
    "slice out of range": (
        "set R5 3\narray R5 @0\nset R6 9\nwait_all @0[R1:R6]", "ArrayAccessError", "slice 0:9", 3,
    ),
    "division by zero": ("set R0 5\ndiv R2 R0 R1", "ArithmeticFaultError", "5 div 0", 1),
    "remainder by zero": ("rem R2 R0 R1", "ArithmeticFaultError", "0 rem 0", 0),
    "modulus not positive": ("addm R2 R0 R1 R3", "ArithmeticFaultError", "modulus 0", 0),
    "reply too long": (
        "set R5 40\narray R5 @0\nret_arr @0\nret_arr @0", "LimitError", "result_entries=50", 3,
    ),
    "unallocated qubit": ("set Q0 4\nx Q0", "QubitAccessError", "virtual qubit 4 is not", 1),
    "freeing twice": ("qalloc Q0\nqfree Q0\nqfree Q0", "QubitAccessError", "virtual qubit 0", 2),
    "allocating twice": ("qalloc Q0\nqalloc Q0", "QubitAccessError", "0 is already allocated", 1),
    "address too high": ("set Q0 256\nqalloc Q0", "QubitAccessError", "outside 0..255", 1),
    "negative qubit": (encode(("set", Q0, -1), ("qalloc", Q0)), "QubitAccessError", "qubit -1", 1),
    "too many qubits": (
        "qalloc Q0\nset Q0 1\nqalloc Q0\nset Q0 2\nqalloc Q0",
        "NoQubitError", "registered for 2 qubits", 4,
    ),
    "gate on one qubit twice": (
        "qalloc Q0\ncnot Q0 Q1", "QubitAccessError", "needs two qubits, got 0 twice", 1,
    ),
    "gate on an unallocated partner": (
        "qalloc Q0\nset Q1 1\ncnot Q0 Q1", "QubitAccessError", "virtual qubit 1", 2,
    ),
    "endless loop": ("x:\njmp x", "InstructionBudgetError", "instructions_per_activation=2000", 0),
    "endless loop with gates": (
        "qalloc Q0\nL:\nrot_z Q0 0 4\njmp L", "InstructionBudgetError", "endless", 2,
    ),
    "angle not supported": (
        "qalloc Q0\nrot_x Q0 1 5", "UnsupportedInstructionError", "angle 1 pi/2^5", 1,
    ),
    "wait for nothing": (
        "set R5 3\narray R5 @0\nwait_single @0[R1]", "DeadlockError", "entry @0[0]", 2,
    ),
    "unknown node": (create_epr(remote=9), "EntanglementRequestError", "socket 0 to node 9", ...),
    "unknown socket": (create_epr(socket=5), "EntanglementRequestError", "no ER socket 5", ...),
    "receive from an unknown socket": (
        recv_epr(remote=2, socket=5), "EntanglementRequestError", "no ER socket 5", ...,
    ),
    "type of entanglement": (
        create_epr(arguments={0: 3}), "EntanglementRequestError", "type 3 is not supported", ...,
    ),
    "too few qubits named": (
        create_epr(pairs=2, virtuals=[1]), "EntanglementRequestError", "names 1 qubits", ...,
    ),
    "results do not fit": (
        create_epr(arguments=measure_directly() | {1: 2}),
        "EntanglementRequestError", "2 pairs need 20", ...,
    ),
    "no room for results": (
        "array 4 @0\nset C1 0\nset C0 2\nrecv_epr C0 C1 C1 C1",
        "EntanglementRequestError", "ten per pair", ...,
    ),
    "no result array": (
        "set C0 2\nset C4 8\nrecv_epr C0 C1 C2 C4", "ArrayAccessError", "no array @8", 2,
    ),
    "too many requests": (
        "".join(create_epr(base=4 * i, wait=False) for i in range(3)),
        "LimitError", "entanglement_requests=2", ...,
    ),
    "too many receive requests": (
        "".join(recv_epr(remote=2, base=4 * i, wait=False) for i in range(2)),
        "LimitError", "receive_requests=1", ...,
    ),
}  # fmt: skip


def bystanders(node: Node) -> list[int]:
    """Subroutines of two other programs, on the same and on another connection."""
    requests = []
    for client, app in ((1, 7), (2, 0)):
        node.post(init_app(app), client)
        requests.append(node.post(submit(app, BYSTANDER), client))
    return requests


@pytest.mark.parametrize("name", CASES)
def test_a_program_that_errs(name):
    program, kind, words, pc = CASES[name]
    node = make_node(limits=LIMITS)
    lab = solo(node)
    node.post(init_app(0, 2))
    node.post(open_socket(0, 0, 2, 0))
    before = node.post(submit(0, "ret_reg R0"))
    bad = node.post(submit(0, program))
    others = bystanders(node)
    lab.run(100)
    error = node.error(bad)
    assert error.kind == kind
    assert words in error.text
    if pc is not ...:
        assert (error.subroutine, error.pc) == (1, pc)
    expected = {
        "NoQubitError": ErrorCode.NO_QUBIT,
        "UnsupportedInstructionError": ErrorCode.UNSUPPORTED,
    }
    assert error.code is expected.get(kind, ErrorCode.GENERAL)
    assert node.values(before) == [0]
    for other in others:
        assert node.values(other) == [0]
    after = node.post(submit(0, "ret_reg R0"))
    lab.run(10)
    if kind == "MalformedMessageError":  # it never reached the process
        assert node.values(after) == [0]
    else:
        assert node.error(after).kind == "UnknownProcessError"
        assert f"the process of application 0 has ended: {kind}: " in node.error(after).text
        assert node.kernel.qmmu.free_qubits() == [0, 1, 2]
        assert node.kernel.link_layer.links[2].queue == []
    again = [node.post(raw) for raw in (stop_app(0), init_app(0), submit(0, BYSTANDER))]
    lab.run(10)
    assert node.replies[again[0]].error is None
    assert node.values(again[2]) == [0]
    lab.check_clean()


def test_an_error_ends_all_subroutines_but_only_one_is_at_fault():
    node = make_node()
    lab = solo(node)
    node.post(init_app(0))
    requests = [node.post(submit(0, "set R0 1\ndiv R0 R0 R1")) for _ in range(3)]
    lab.run(10)
    errors = [node.error(request) for request in requests]
    assert [(error.subroutine, error.pc) for error in errors] == [(0, 1), (1, None), (2, None)]
    assert {error.kind for error in errors} == {"ArithmeticFaultError"}
    lab.check_clean()


@pytest.mark.parametrize(
    ("flavour", "instruction", "words"),
    [
        (Flavour.NV, ("h", Q0), "h (opcode 23) belongs to the vanilla flavour"),
        (Flavour.NV, ("t", Q0), "this node speaks nv"),
    ],
)
def test_the_wrong_flavour(flavour, instruction, words):
    node = make_node(flavour=flavour)
    lab = solo(node)
    node.post(init_app(0))
    bad = node.post(submit(0, encode(instruction)))
    lab.run(10)
    error = node.error(bad)
    assert (error.kind, error.code) == ("WrongFlavourError", ErrorCode.UNSUPPORTED)
    assert words in error.text
    lab.check_clean()


@pytest.mark.parametrize("outcome", [outcome for outcome in Outcome if not outcome.is_success])
@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_device_that_fails(outcome, failing):
    node = make_node()
    lab = solo(node)
    node.post(init_app(0))
    bad = node.post(submit(0, "qalloc Q0\ninit Q0\nh Q0\n"))
    others = bystanders(node)
    answers = iter([Answer(Outcome.SUCCESS_ZERO)] * failing + [Answer(outcome)])
    node.device.answers = lambda instruction: next(answers, Answer(Outcome.SUCCESS_ZERO))
    lab.run(50)
    error = node.error(bad)
    assert error.kind == "DeviceFailureError"
    assert outcome.name in error.text
    assert error.pc == (1, 2, 2)[failing]
    assert [node.values(other) for other in others] == [[0], [0]]
    lab.check_clean()


def test_too_many_processes():
    node = make_node(limits=Limits(processes=2))
    lab = solo(node)
    requests = [node.post(init_app(app)) for app in range(3)]
    lab.run(3)
    assert node.error(requests[2]).kind == "LimitError"
    assert "processes=2" in node.error(requests[2]).text
    node.post(stop_app(0))
    again = node.post(init_app(2))
    lab.run(3)
    assert node.replies[again].error is None
    lab.check_clean()


def test_too_many_subroutines():
    node = make_node(limits=Limits(pending_subroutines=2))
    lab = solo(node)
    node.post(init_app(0))
    requests = [node.post(submit(0, "ret_reg R0")) for _ in range(3)]
    lab.run(10)
    error = node.error(requests[2])
    assert (error.kind, error.subroutine) == ("LimitError", None)
    assert "pending_subroutines=2" in error.text
    assert node.values(requests[0]) == node.values(requests[1]) == [0]
    lab.check_clean()


@pytest.mark.parametrize("raw", [submit(3, "ret_reg R0"), stop_app(3), open_socket(3, 0, 2, 0)])
def test_an_unknown_application(raw):
    node = make_node()
    lab = solo(node)
    node.post(init_app(3), client=2)
    request = node.post(raw, client=1)
    lab.run(3)
    assert node.error(request).kind == "UnknownProcessError"
    assert "application 3 is not registered on this connection" in node.error(request).text
    lab.check_clean()


def test_registering_twice():
    node = make_node()
    lab = solo(node)
    requests = [node.post(init_app(0)) for _ in range(2)]
    lab.run(3)
    assert "already registered" in node.error(requests[1]).text
    assert len(node.kernel.processes) == 1


@pytest.mark.parametrize(
    ("sockets", "kind", "words"),
    [
        ([(0, 9, 0)], "EntanglementRequestError", "node 9, which is no neighbour"),
        ([(-1, 2, 0)], "EntanglementRequestError", "must not be negative"),
        ([(0, 2, -1)], "EntanglementRequestError", "must not be negative"),
        ([(0, 2, 0), (0, 2, 1)], "EntanglementRequestError", "already open (process 1)"),
        ([(0, 2, 0), (1, 2, 1), (2, 2, 2)], "LimitError", "er_sockets=2"),
    ],
)
def test_sockets_that_cannot_be_opened(sockets, kind, words):
    node = make_node(limits=Limits(er_sockets=2))
    lab = solo(node)
    node.post(init_app(0))
    requests = [node.post(open_socket(0, *numbers)) for numbers in sockets]
    alive = node.post(submit(0, "ret_reg R0"))
    lab.run(5)
    assert [node.replies[request].error for request in requests[:-1]] == [None] * (len(sockets) - 1)
    assert node.error(requests[-1]).kind == kind
    assert words in node.error(requests[-1]).text
    assert node.values(alive) == [0], "the program may go on"
    lab.check_clean()


def test_a_socket_of_another_program():
    node = make_node()
    lab = solo(node)
    for client in (1, 2):
        node.post(init_app(0), client)
    node.post(open_socket(0, 0, 2, 0), 1)
    opened = node.post(open_socket(0, 0, 2, 0), 2)
    used = node.post(submit(0, create_epr()), 2)
    lab.run(5)
    assert "already open (process 1)" in node.error(opened).text
    assert "process 2 has no ER socket 0" in node.error(used).text
    lab.check_clean()


def test_the_memory_of_ended_programs_is_bounded():
    node = make_node(limits=Limits(processes=3, programs_per_client=3))
    lab = solo(node)
    for app in range(10):
        node.post(init_app(app))
        node.post(submit(app, "div R0 R0 R1"))
        lab.run(5)
    assert len(node.kernel._manager._epitaphs) == 3
    node.close()
    lab.run(2)
    assert node.kernel._manager._epitaphs == {}


# --- anything at all ------------------------------------------------------------------

PREFIXES = [b"\x02\x00\x0a\x00\x00", b"\x01" + b"\0" * 7, b""]
OPCODES = st.sampled_from([*range(1, 53), 100, 200, 201, 202, 255])
SMALL = st.one_of(st.integers(0, 11), st.integers(0, 63), st.integers(0, 255))
INSTRUCTION = st.builds(
    lambda opcode, operands: bytes([opcode, *operands]),
    OPCODES,
    st.lists(SMALL, min_size=6, max_size=6),
)
MESSAGES = st.one_of(
    st.binary(max_size=30),
    st.builds(
        lambda prefix, parts: prefix + b"".join(parts),
        st.sampled_from(PREFIXES),
        st.lists(INSTRUCTION, max_size=8),
    ),
    st.sampled_from([init_app(0), open_socket(0, 0, 2, 0), stop_app(0)]),
    st.sampled_from([submit(0, BYSTANDER), submit(0, create_epr(wait=False))]),
)


@settings(max_examples=80)
@given(st.lists(st.tuples(st.integers(1, 2), MESSAGES), max_size=12), st.sampled_from(Flavour))
def test_any_messages_get_one_reply_each_and_leave_nothing_behind(messages, flavour):
    node = make_node(flavour=flavour, limits=LIMITS)
    lab = solo(node)
    for client in (1, 2):
        node.post(init_app(0), client)
        for sender, raw in messages:
            if sender == client:
                node.post(raw, client)
        lab.run(3)
    lab.run(100)
    node.check_owners()
    node.check_states()
    node.close(1)
    node.close(2)
    lab.run(5)
    assert len(node.replies) == node.sent
    lab.check_clean()
