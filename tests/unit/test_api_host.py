"""The host messages, against the structures of the NetQASM SDK itself."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from netqasm.backend import messages as sdk
from netqasm.lang.parsing.text import parse_text_subroutine

from qnodeos.api.host import (
    SUBROUTINE_HEADER_BYTES,
    InitApp,
    OpenErSocket,
    Signal,
    StopApp,
    SubmitSubroutine,
    decode_host_message,
)
from qnodeos.errors import MalformedMessageError

U32 = st.integers(0, 2**32 - 1)
U8 = st.integers(0, 255)
I32 = st.integers(-(2**31), 2**31 - 1)
MAX_BYTES = 1_000


def decode(message: object) -> object:
    return decode_host_message(bytes(message), max_bytes=MAX_BYTES)  # type: ignore[call-overload]


@given(U32, U8)
def test_init_app(app_id, max_qubits):
    message = sdk.InitNewAppMessage(app_id=app_id, max_qubits=max_qubits)
    assert decode(message) == InitApp(app_id, max_qubits)


@given(U32, I32, I32, I32, U8)
def test_open_socket(app_id, socket_id, remote_node, remote_socket, min_fidelity):
    message = sdk.OpenEPRSocketMessage(
        app_id=app_id,
        epr_socket_id=socket_id,
        remote_node_id=remote_node,
        remote_epr_socket_id=remote_socket,
        min_fidelity=min_fidelity,
    )
    expected = OpenErSocket(app_id, socket_id, remote_node, remote_socket, min_fidelity)
    assert decode(message) == expected


@given(U32)
def test_stop_app(app_id):
    assert decode(sdk.StopAppMessage(app_id=app_id)) == StopApp(app_id)


@pytest.mark.parametrize("signal", list(sdk.Signal))
def test_signal(signal):
    assert decode(sdk.SignalMessage(signal=signal)) == Signal(signal.value)


@given(st.integers(0, 2**16 - 1))
def test_subroutine(app_id):
    subroutine = parse_text_subroutine(f"# NETQASM 0.10\n# APPID {app_id}\nset R0 5\nret_reg R0")
    message = decode(sdk.SubroutineMessage(subroutine=subroutine))
    assert isinstance(message, SubmitSubroutine)
    assert (message.app_id, message.version) == (app_id, (0, 10))
    assert message.body == b"".join(bytes(i.serialize()) for i in subroutine.instructions)


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "empty"),
        (b"\x05\x00", "unknown host message type 5"),
        (b"\xff", "unknown host message type 255"),
        (b"\x02\x00\x0a\x00", "shorter than its 5-byte header"),
        (b"\x00" * 11, "type 0 has 11 bytes, expected 12"),
        (b"\x00" * 13, "type 0 has 13 bytes, expected 12"),
        (b"\x01" + b"\0" * 20, "type 1 has 21 bytes, expected 24"),
        (b"\x03", "type 3 has 1 bytes, expected 8"),
        (b"\x04\x00\x00", "type 4 has 3 bytes, expected 2"),
        (b"\x02" + b"\0" * MAX_BYTES, f"exceeds the limit of {MAX_BYTES} bytes"),
    ],
)
def test_malformed_messages_say_what_is_wrong(raw, words):
    with pytest.raises(MalformedMessageError, match=words):
        decode_host_message(raw, max_bytes=MAX_BYTES)


def test_the_longest_message_is_taken():
    raw = b"\x02" + b"\0" * (MAX_BYTES - 1)
    message = decode_host_message(raw, max_bytes=MAX_BYTES)
    assert isinstance(message, SubmitSubroutine)
    assert len(message.body) == MAX_BYTES - SUBROUTINE_HEADER_BYTES


@given(st.binary(max_size=40))
def test_any_bytes_give_a_message_or_a_typed_error(raw):
    try:
        message = decode_host_message(raw, max_bytes=30)
    except MalformedMessageError:
        assert len(raw) not in (12, 24, 8, 2) or raw[0] not in (0, 1, 3, 4) or raw[0] == 2
    else:
        assert raw[0] <= 4
        assert not isinstance(message, bytes)
