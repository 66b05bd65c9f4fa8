"""The wire formats: framing, host messages, peer messages."""

from __future__ import annotations

import struct
from dataclasses import replace

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.api import host_wire, peer_wire
from qnodeos.api.framing import LENGTH_BYTES, Deframer, frame
from qnodeos.api.host import ArrayResult, ErrorReport, HostReply, RegisterResult
from qnodeos.api.peer import (
    MAX_PATH,
    Accept,
    Announce,
    Cancel,
    CircuitId,
    CircuitTerms,
    Complete,
    EntanglementType,
    Expire,
    FarRefusal,
    FarSocket,
    Forward,
    Offer,
    PairLost,
    Pass,
    Reject,
    RequestTerms,
    Segment,
    SocketClosed,
    SocketOpened,
    Teardown,
    TeardownCause,
    Track,
)
from qnodeos.errors import ErrorCode, MalformedMessageError
from qnodeos.qdevice.outcomes import BellState

payloads = st.lists(st.binary(min_size=1, max_size=200), max_size=8)
int32 = st.integers(-(2**31), 2**31 - 1)
numbers = st.integers(0, 2**63 - 1)


# --- framing --------------------------------------------------------------------------


@given(payloads, st.data())
def test_frames_survive_any_cutting(wanted, data):
    stream = b"".join(map(frame, wanted))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=20)))
    deframer = Deframer(200)
    got = []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        got += deframer.feed(stream[start:end])
    assert got == wanted
    assert deframer.pending_bytes == 0


@pytest.mark.parametrize("length", [0, 101, 2**32 - 1])
def test_a_length_outside_the_bound_is_refused_before_its_payload_comes(length):
    deframer = Deframer(100)
    with pytest.raises(MalformedMessageError, match=f"announces {length} bytes; 1 to 100"):
        deframer.feed(struct.pack("<I", length))


@given(st.binary(max_size=500))
def test_a_deframer_never_holds_more_than_one_frame(garbage):
    deframer = Deframer(50)
    try:
        deframer.feed(garbage)
    except MalformedMessageError:
        return
    assert deframer.pending_bytes < 50 + LENGTH_BYTES


def test_a_deframer_holds_nothing_of_what_follows_a_mistake():
    deframer = Deframer(100)
    deframer.feed(b"\xff")
    for _ in range(3):
        with pytest.raises(MalformedMessageError):
            deframer.feed(b"\xff" * 1_000)
        assert deframer.pending_bytes == 0
        deframer.feed(b"\xff")


def test_an_empty_payload_cannot_be_framed():
    with pytest.raises(MalformedMessageError):
        frame(b"")


# --- host messages --------------------------------------------------------------------

client_messages = st.one_of(
    st.builds(host_wire.Hello, st.integers(0, 100), st.text(max_size=256)),
    st.builds(host_wire.Netqasm, numbers, st.binary(max_size=100)),
    st.builds(host_wire.Register, numbers, st.integers(0, 2**32 - 1), st.integers(0, 255), int32),
    st.builds(host_wire.Cancel, numbers, numbers),
    st.builds(host_wire.ListProcesses, numbers),
    st.builds(host_wire.GetStatistics, numbers),
    st.builds(host_wire.Subscribe, numbers, st.booleans(), st.integers(0, 2**31 - 1)),
    st.builds(host_wire.Ping, numbers),
)
results = st.lists(
    st.one_of(
        st.builds(RegisterResult, st.integers(0, 63), int32),
        st.builds(ArrayResult, int32, st.lists(st.none() | int32).map(tuple)),
    )
).map(tuple)
errors = st.none() | st.builds(
    ErrorReport,
    st.sampled_from(ErrorCode),
    st.text(max_size=256),
    st.text(max_size=4096),
    st.none() | numbers,
    st.none() | numbers,
)


@given(client_messages)
def test_a_message_of_a_client_survives(message):
    assert host_wire.decode_client(host_wire.encode(message)) == message


@given(results, errors, st.none() | numbers)
def test_a_reply_survives(what, error, serial):
    reply = HostReply(7, 3, what, error, serial)
    decoded = host_wire.decode_server(host_wire.encode(host_wire.reply_of(reply)))
    assert isinstance(decoded, host_wire.Reply)
    assert host_wire.host_reply_of(decoded, 7) == reply


def test_a_long_error_text_is_cut_to_what_the_other_end_accepts():
    report = ErrorReport(ErrorCode.GENERAL, "LimitError", "x" * 10_000)
    raw = host_wire.encode(host_wire.reply_of(HostReply(1, 2, error=report)))
    reply = host_wire.decode_server(raw)
    assert isinstance(reply, host_wire.Reply)
    assert reply.error is not None
    assert reply.error.text == "x" * host_wire.MAX_TEXT


@given(st.binary(max_size=300))
def test_garbage_is_a_message_or_a_typed_error(garbage):
    for decode in (host_wire.decode_client, host_wire.decode_server, peer_wire.decode):
        try:
            decode(garbage)
        except MalformedMessageError:
            continue


@given(client_messages, st.data())
def test_a_damaged_message_is_a_message_or_a_typed_error(message, data):
    raw = bytearray(host_wire.encode(message))
    place = data.draw(st.integers(0, len(raw) - 1))
    raw[place] ^= data.draw(st.integers(1, 255))
    try:
        host_wire.decode_client(bytes(raw))
    except MalformedMessageError:
        return


def test_deep_nesting_is_refused():
    raw = b"\x92\x44\x00" + b"\x81\xa1x" * 100_000
    with pytest.raises(MalformedMessageError):
        host_wire.decode_server(raw)


@pytest.mark.parametrize(
    "message",
    [
        [2, -1, b""],
        [2, 2**63, b""],
        [3, 1, 2**32, 1, 0],
        [3, 1, 1, 256, 0],
        [1, 1, "x" * 257],
        [99, 1],
        [],
        {"request": 1},
    ],
)
def test_values_outside_their_bounds_are_refused(message):
    with pytest.raises(MalformedMessageError):
        host_wire.decode_client(msgspec.msgpack.encode(message))


def test_a_later_version_may_append_fields():
    raw = msgspec.msgpack.encode([8, 5, "a field of a later version"])
    assert host_wire.decode_client(raw) == host_wire.Ping(5)


# --- peer messages --------------------------------------------------------------------

WIRE_TERMS = peer_wire.WireCircuitTerms(0, 0, 0, 1, 0, 0, (), 0, 0, (0, 0), False)

bins = st.integers(-(2**62), 2**62 - 1)
ids = st.integers(-1, 2**31 - 1)
pair_numbers = st.integers(0, 2**31 - 1)
terms = st.builds(
    RequestTerms,
    ids,
    ids,
    st.sampled_from(EntanglementType),
    numbers,
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 31)), max_size=3).map(tuple),
    st.integers(0, 3),
    bins,
    st.integers(0, 255),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
    st.none()
    | st.builds(Segment, st.builds(CircuitId, ids, pair_numbers), pair_numbers, pair_numbers),
    st.booleans(),
    st.booleans(),
)
peer_messages = st.one_of(
    st.builds(Offer, pair_numbers, terms),
    st.builds(Accept, pair_numbers, bins),
    st.builds(Reject, pair_numbers, st.text(max_size=4096)),
    st.builds(Cancel, pair_numbers),
    st.builds(
        Announce,
        pair_numbers,
        pair_numbers,
        pair_numbers,
        st.sampled_from(BellState),
        st.integers(0, 2**60),
    ),
    st.builds(PairLost, pair_numbers, pair_numbers),
    st.builds(SocketOpened, ids, ids),
    st.builds(SocketClosed, ids, ids),
)
ticks = st.integers(0, 2**60)
circuits = st.builds(CircuitId, ids, pair_numbers)
circuit_terms = st.builds(
    CircuitTerms,
    ids,
    ids,
    st.sampled_from(EntanglementType),
    numbers,
    pair_numbers,
    ticks,
    st.lists(st.tuples(st.integers(0, 2), st.integers(0, 31)), max_size=3).map(tuple),
    st.integers(0, 3),
    st.integers(0, 255),
    st.tuples(st.integers(0, 255), st.integers(0, 255)),
    st.booleans(),
)
network_messages = st.one_of(
    st.builds(
        Forward,
        circuits,
        ids,
        st.lists(ids, min_size=1, max_size=MAX_PATH).map(tuple),
        circuit_terms,
    ),
    st.builds(Pass, circuits, bins),
    st.builds(Track, circuits, pair_numbers, pair_numbers, st.sampled_from(BellState)),
    st.builds(Complete, circuits, pair_numbers, pair_numbers, pair_numbers, ticks, bins),
    st.builds(Expire, circuits, pair_numbers, pair_numbers, bins, st.text(max_size=4096)),
    st.builds(Teardown, circuits, st.sampled_from(TeardownCause), st.text(max_size=4096)),
    st.builds(
        FarRefusal,
        ids,
        st.lists(ids, min_size=1, max_size=MAX_PATH).map(tuple),
        pair_numbers,
        st.text(max_size=4096),
    ),
    st.builds(
        FarSocket,
        ids,
        st.lists(ids, min_size=1, max_size=MAX_PATH).map(tuple),
        ids,
        ids,
        st.booleans(),
    ),
)


@given(network_messages, st.integers(0, 2**61), st.integers(0, 2**61))
def test_a_message_of_the_network_layer_survives_and_its_tick_is_told_in_ours(
    message, theirs, ours
):
    raw = peer_wire.encode(peer_wire.to_wire(message, 5, theirs))
    decoded = peer_wire.decode(raw)
    assert isinstance(decoded, peer_wire.LinkMessage)
    assert decoded.epoch == 5
    received = peer_wire.from_wire(decoded, ours)
    if isinstance(message, Complete):
        message = replace(message, tick=message.tick - theirs + ours)
    elif isinstance(message, Forward):
        since_tick = message.terms.since_tick - theirs + ours
        message = replace(message, terms=replace(message.terms, since_tick=since_tick))
    assert received == message


@pytest.mark.parametrize(
    "message",
    [
        peer_wire.WireForward(5, (1, 2), 3, (), WIRE_TERMS),
        peer_wire.WireForward(5, (1, 2), 3, (1,) * (MAX_PATH + 1), WIRE_TERMS),
        peer_wire.WireTrack(5, (1, 2), 0, 0, 4),
        peer_wire.WireTeardown(5, (1, 2), 6, ""),
        peer_wire.InstallRoutes(((2, 2, 0, 1.0),)),
        peer_wire.InstallRoutes(((2, 2, 1, 1.5),)),
        peer_wire.InstallRoutes(((2, 2, 1, float("nan")),)),
    ],
)
def test_what_a_node_could_not_use_is_refused(message):
    with pytest.raises(MalformedMessageError):
        peer_wire.decode(peer_wire.encode(message))


@given(st.lists(st.tuples(ids, ids, st.integers(1, 4096), st.floats(0, 1)), max_size=20).map(tuple))
def test_routes_survive(routes):
    message = peer_wire.InstallRoutes(routes)
    assert peer_wire.decode(peer_wire.encode(message)) == message


@given(peer_messages, st.integers(0, 2**61), st.integers(0, 2**61))
def test_a_peer_message_survives_and_its_tick_is_told_in_ours(message, theirs, ours):
    raw = peer_wire.encode(peer_wire.to_wire(message, 5, theirs))
    decoded = peer_wire.decode(raw)
    assert isinstance(decoded, peer_wire.LinkMessage)
    assert decoded.epoch == 5
    received = peer_wire.from_wire(decoded, ours)
    if isinstance(message, Announce):
        assert isinstance(received, Announce)
        assert received.tick - ours == message.tick - theirs
        message = Announce(
            message.create_id, message.index, message.sequence, message.bell_state, received.tick
        )
    assert received == message


def test_a_schedule_without_bins_is_refused():
    raw = peer_wire.encode(peer_wire.Install(1, 1000, 10, 100, 5, ()))
    with pytest.raises(MalformedMessageError):
        peer_wire.decode(raw)


@pytest.mark.parametrize(
    "message",
    [
        peer_wire.WireCancel(5, 2**31),
        peer_wire.WireAnnounce(5, 2**31, 0, 0, 0, 0),
        peer_wire.WireAnnounce(5, 0, 0, 2**31, 0, 0),
    ],
)
def test_numbers_of_pairs_that_no_program_can_be_told_are_refused(message):
    with pytest.raises(MalformedMessageError):
        peer_wire.decode(peer_wire.encode(message))
