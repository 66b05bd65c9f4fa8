"""The channel between a lab process and a QNPU: what is refused, and who is noticed."""

from __future__ import annotations

import os
import select
import stat
import struct
import subprocess
import sys
import textwrap
import time
import zlib
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qnodeos.engine import ShmLink, open_engine, read_channel
from qnodeos.engine.channel import QnpuPort
from qnodeos.engine.layout import (
    CAPABILITIES_AT,
    FILE_BYTES,
    HEADER,
    MAX_CAPABILITIES_BYTES,
    PAGE_BYTES,
    ChannelInfo,
    Word,
    decode_header,
    encode_header,
)
from qnodeos.engine.presence import Doorbell
from qnodeos.engine.schedule import MAX_PENDING
from qnodeos.errors import ChannelError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.endpoint import FrameSlave
from qnodeos.qdevice.instructions import MAX_HALVINGS, Opcode, ini
from qnodeos.qdevice.outcomes import Outcome
from tests.service.engine_bench import CAPABILITIES, ENGINES, PATIENCE_S, TICK_NS, make_port

INFO = ChannelInfo(TICK_NS, 123_456_789, 7, CAPABILITIES)
GOOD_PAGE = encode_header(INFO)
every_engine = pytest.mark.parametrize("options", ENGINES)


# --- what a header says --------------------------------------------------------------------


@given(
    st.builds(
        ChannelInfo,
        st.just(20_000),
        st.integers(0, 2**62),
        st.integers(0, 2**64 - 1),
        st.builds(
            Capabilities,
            st.text(st.characters(codec="utf-8"), min_size=1, max_size=64),
            st.just((3, 1)),
            st.sampled_from([(), (2,), tuple(range(4, 16))]),
            st.frozensets(st.sampled_from(Opcode)),
            st.just(20_000),
            st.integers(0, 256),
            st.integers(0, MAX_HALVINGS),
        ),
    )
)
def test_a_header_says_what_was_written(info):
    page = encode_header(info)
    assert len(page) == PAGE_BYTES
    assert decode_header(page, "it") == info


@given(st.integers(0, PAGE_BYTES - 1), st.integers(1, 255))
def test_damage_to_a_header_is_noticed_or_does_not_matter(place, change):
    page = bytearray(GOOD_PAGE)
    page[place] ^= change
    try:
        assert decode_header(bytes(page), "it") == INFO
    except ChannelError as error:
        assert "it" in str(error)
    else:
        # Between the fields and the text, and behind it, nothing is said.
        assert HEADER.size <= place < CAPABILITIES_AT or place > CAPABILITIES_AT + 50


@given(st.binary(max_size=2 * PAGE_BYTES))
def test_rubbish_is_no_header(rubbish):
    with pytest.raises(ChannelError):
        decode_header(rubbish, "it")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda children: (
        st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=3), children)
    ),
    max_leaves=6,
)


def signed(document: bytes, **changes: int) -> bytes:
    """A page whose check is right, whatever it says."""
    fields = {
        "version": 1, "slots": 256, "tick_ns": TICK_NS, "epoch_ns": 0, "generation": 1,
        "length": len(document), **changes,
    }  # fmt: skip
    head = HEADER.pack(b"QNOSCHAN", *fields.values(), 0)[:-4]
    check = zlib.crc32(document[: fields["length"]], zlib.crc32(head))
    page = (head + struct.pack("=I", check)).ljust(CAPABILITIES_AT, b"\0") + document
    return page.ljust(PAGE_BYTES, b"\0")[:PAGE_BYTES]


@given(
    st.sampled_from(
        ["name", "communication_qubits", "memory_qubits", "instructions", "links", "x"]
    ),
    json_values,
)
def test_devices_that_cannot_be_are_refused(field, value):
    import json

    document = {
        "name": "spin", "communication_qubits": [0], "memory_qubits": [1],
        "instructions": [1, 2], "links": 1,
    }  # fmt: skip
    changed = json.dumps({**document, field: value}).encode()
    try:
        info = decode_header(signed(changed), "it")
    except ChannelError:
        return
    assert len(info.capabilities.name) <= 64
    assert all(0 <= qubit <= 15 for qubit in info.capabilities.qubits)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"version": 2}, "version 2"),
        ({"slots": 512}, "damaged"),
        ({"tick_ns": 0}, "tick of 0 ns"),
        ({"tick_ns": 2**63}, "tick of"),
        ({"epoch_ns": -1}, "epoch"),
        ({"length": MAX_CAPABILITIES_BYTES + 1}, "damaged"),
        ({"length": 3}, "impossible"),
    ],
)
def test_numbers_out_of_range_are_named(changes, match):
    with pytest.raises(ChannelError, match=match):
        decode_header(signed(b'{"name": "spin"}', **changes), "it")


def test_deeply_nested_text_is_refused():
    with pytest.raises(ChannelError):
        decode_header(signed(b"[" * MAX_CAPABILITIES_BYTES), "it")


# --- what a path may lead to ---------------------------------------------------------------


def make_wrong(kind: str, path: Path) -> None:
    match kind:
        case "empty":
            path.write_bytes(b"")
        case "short":
            path.write_bytes(GOOD_PAGE)
        case "long":
            path.write_bytes(GOOD_PAGE.ljust(FILE_BYTES + 1, b"\0"))
        case "zeros":
            path.write_bytes(bytes(FILE_BYTES))
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "symlink":
            path.with_name("real").write_bytes(GOOD_PAGE.ljust(FILE_BYTES, b"\0"))
            path.symlink_to("real")
        case "nobody":
            path.write_bytes(GOOD_PAGE.ljust(FILE_BYTES, b"\0"))


WRONG = ["absent", "empty", "short", "long", "zeros", "folder", "pipe", "symlink", "nobody"]


@every_engine
@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_channel_is_refused(options, kind, tmp_path):
    path = tmp_path / "it"
    make_wrong(kind, path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(ChannelError, match="it"):
        open_engine(ShmLink(path), **options)
    assert sorted(tmp_path.iterdir()) == before


@every_engine
def test_a_channel_of_another_user_is_refused(options, tmp_path, monkeypatch):
    with make_port(tmp_path / "it") as port:
        os.chown(port.path, 4242, -1) if os.geteuid() == 0 else pytest.skip("needs root")
        with pytest.raises(ChannelError, match="user 4242"):
            open_engine(ShmLink(port.path), **options)


def test_no_other_file_is_replaced(tmp_path):
    path = tmp_path / "precious"
    path.write_text("precious")
    with pytest.raises(ChannelError, match="something else"):
        make_port(path)
    assert path.read_text() == "precious"
    with pytest.raises(ChannelError, match=r"cannot be made|no channel can be made"):
        make_port(tmp_path / "absent" / "it")
    (tmp_path / "it.device").write_text("precious")
    with pytest.raises(ChannelError, match="doorbell"):
        make_port(tmp_path / "it")
    assert (tmp_path / "it.device").read_text() == "precious"
    with pytest.raises(ChannelError, match="too long"):
        make_port(tmp_path / ("x" * 201))


def test_two_labs_cannot_have_the_same_channel(tmp_path):
    with make_port(tmp_path / "it"), pytest.raises(ChannelError, match="another lab"):
        make_port(tmp_path / "it")


def test_files_are_private_and_removed(tmp_path):
    with make_port(tmp_path / "it"):
        for path in tmp_path.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert len(list(tmp_path.iterdir())) == 2
    assert list(tmp_path.iterdir()) == []


def test_a_closed_port_leaves_its_successor_alone(tmp_path):
    first = make_port(tmp_path / "it")
    for name in ("it", "it.device"):
        os.unlink(tmp_path / name)
    with make_port(tmp_path / "it") as second:
        first.close()
        first.close()
        assert read_channel(tmp_path / "it") == second.info
        assert (tmp_path / "it.device").exists()


def test_a_channel_can_be_read_without_attaching(tmp_path):
    with make_port(tmp_path / "it") as port:
        assert read_channel(port.path) == port.info
        assert not port.attached
        assert port.generation == 0
        assert port.info.capabilities == CAPABILITIES


# --- memory that somebody else writes to ----------------------------------------------------


@every_engine
@settings(
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(
    st.lists(
        st.tuples(st.integers(PAGE_BYTES, FILE_BYTES - 64), st.binary(max_size=64)), max_size=9
    ),
    st.lists(st.tuples(st.sampled_from(Word), st.integers(0, 2**64 - 1)), max_size=4),
)
def test_whatever_stands_in_memory_nothing_crashes(options, tmp_path, scribbles, words):
    """An engine takes what it finds for damage, or for a response; it goes on all the same."""
    with make_port(tmp_path / "it") as port:
        engine = open_engine(ShmLink(port.path), busy_limit_ticks=1_000, **options)
        try:
            engine.start()
            descriptor = os.open(port.path, os.O_RDWR)
            for place, data in scribbles:
                os.pwrite(descriptor, data, place)
            for word, value in words:
                os.pwrite(descriptor, struct.pack("=Q", value), word * 8)
            os.close(descriptor)
            port.receive()
            engine.submit(ini(0))
            deadline = time.monotonic() + PATIENCE_S
            while engine.poll() is None:
                assert time.monotonic() < deadline
                port.receive()
                select.select(engine.filenos(), [], [], 0.05)
            engine.statistics()
        finally:
            engine.close()


@every_engine
@given(
    st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**32 - 1)), max_size=40)
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_responses_at_any_tick_do_no_harm(options, tmp_path, responses):
    with make_port(tmp_path / "it") as port:
        engine = open_engine(ShmLink(port.path), busy_limit_ticks=1_000, **options)
        try:
            engine.start()
            engine.submit(ini(0))
            port.receive()
            for response in responses:
                port.respond(*response)
            deadline = time.monotonic() + PATIENCE_S
            while engine.poll() is None:
                assert time.monotonic() < deadline
                select.select(engine.filenos(), [], [], 0.05)
        finally:
            engine.close()


# --- both ends ------------------------------------------------------------------------------


def test_what_was_said_before_a_qnpu_came_is_said_to_it(tmp_path):
    with make_port(tmp_path / "it") as port:
        slave = FrameSlave()
        port.respond(0, slave.outgoing(0))
        far_tick = port.now_tick() + 10**9
        port.respond(far_tick, 5)
        qnpu = QnpuPort(port.path)
        try:
            assert qnpu.take() is None
            assert qnpu.attach() == 1
            assert port.receive() is None
            first, *others = [qnpu.take(), qnpu.take(), qnpu.take()]
            assert first is not None
            assert first[1] == slave.outgoing(first[0])
            assert others == [(far_tick, 5), None]
            assert port.attached
            assert qnpu.has_device
        finally:
            qnpu.close()
        assert not port.attached


def test_what_is_said_late_is_on_the_wire_when_it_is_said(tmp_path):
    with make_port(tmp_path / "it") as port:
        qnpu = QnpuPort(port.path)
        try:
            qnpu.attach()
            assert port.receive() is None
            before = port.now_tick()
            slave = FrameSlave()
            port.respond(before - 1_000, slave.outgoing(before - 1_000))
            said = qnpu.take()
            assert said is not None
            tick, frame = said
            assert before <= tick <= port.now_tick()
            assert frame == slave.outgoing(tick)
        finally:
            qnpu.close()


def test_doorbells_ring_for_what_is_new(tmp_path):
    with make_port(tmp_path / "it") as port:
        qnpu = QnpuPort(port.path)
        try:
            qnpu.attach()
            port.acknowledge_doorbell()
            assert not select.select([port], [], [], 0)[0]
            for number in range(100):
                assert qnpu.send(number, number)
            assert select.select([port], [], [], PATIENCE_S)[0]
            port.acknowledge_doorbell()
            assert [port.receive() for _ in range(101)] == [
                *((number, number) for number in range(100)), None
            ]  # fmt: skip
            assert not select.select([port], [], [], 0)[0]
        finally:
            qnpu.close()


@every_engine
def test_a_doorbell_that_leads_elsewhere_is_not_rung(options, tmp_path):
    """A link could lead to the pipe of somebody else."""
    elsewhere = tmp_path / "elsewhere"
    with make_port(tmp_path / "it") as port, closing(Doorbell(elsewhere)) as other:
        bell = tmp_path / "it.device"
        bell.rename(tmp_path / "away")
        bell.symlink_to(elsewhere)
        engine = open_engine(ShmLink(port.path), **options)
        try:
            engine.start()
            engine.stop()
        finally:
            engine.close()
        bell.unlink()
        (tmp_path / "away").rename(bell)

        qnpu = QnpuPort(port.path)
        try:
            (tmp_path / "it.qnpu").symlink_to(elsewhere)
            qnpu.attach()
            port.receive()
            port.respond(port.now_tick(), 1)
        finally:
            qnpu.close()
        assert not select.select([other], [], [], 0)[0]


def test_a_new_qnpu_that_has_no_room_is_told_when_it_has(tmp_path):
    with make_port(tmp_path / "it") as port:
        qnpu = QnpuPort(port.path)
        try:
            qnpu.attach()
            port.receive()
            with pytest.raises(ChannelError, match="takes no responses"):
                for number in range(10_000):
                    port.respond(number - 20_000, 1)
            # As if another had come, but took nothing away either.
            qnpu._mapping.words[Word.QNPU_GENERATION] += 1
            assert qnpu.send(5, 7)
            for _ in range(2):
                with pytest.raises(ChannelError, match="takes no responses"):
                    port.receive()
            while qnpu.take() is not None:
                pass
            assert port.receive() == (5, 7)
            assert qnpu.take() is not None
        finally:
            qnpu.close()


def test_a_lab_that_says_too_much_is_told(tmp_path):
    with make_port(tmp_path / "it") as port:
        far_tick = port.now_tick() + 10**9
        for number in range(MAX_PENDING):
            port.respond(far_tick + number, 1)
        with pytest.raises(ChannelError, match="too many responses"):
            port.respond(far_tick + MAX_PENDING, 1)
    with make_port(tmp_path / "it") as port:
        qnpu = QnpuPort(port.path)
        try:
            qnpu.attach()
            port.receive()
            with pytest.raises(ChannelError, match="takes no responses"):
                for number in range(10_000):
                    port.respond(number - 20_000, 1)
        finally:
            qnpu.close()


LAB = """
    import sys, time
    from pathlib import Path
    from qnodeos.engine import DevicePort
    from qnodeos.qdevice.capabilities import Capabilities
    from qnodeos.qdevice.endpoint import FrameSlave
    from qnodeos.qdevice.instructions import Opcode

    capabilities = Capabilities("spin", (0,), (1,), frozenset(Opcode), 10_000)
    port = DevicePort.create(
        Path(sys.argv[1]), name="spin", tick_ns=10_000, epoch_ns=time.monotonic_ns(),
        capabilities=capabilities,
    )
    slave = FrameSlave()
    port.respond(0, slave.outgoing(0))
    print("ready", flush=True)
    while True:
        command = port.receive()
        if command is not None:
            if slave.incoming(command[1]) is not None:
                print("executing", flush=True)
            port.respond(command[0] + 1, slave.outgoing(command[0] + 1))
"""


@every_engine
def test_a_killed_lab_process_is_noticed_and_replaced(options, tmp_path):
    path = tmp_path / "it"
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(LAB), str(path)], stdout=subprocess.PIPE, text=True
    ) as lab:
        try:
            assert lab.stdout is not None
            assert lab.stdout.readline() == "ready\n"
            engine = open_engine(ShmLink(path), **options)
            try:
                engine.start()
                engine.submit(ini(0))
                deadline = time.monotonic() + PATIENCE_S
                while not select.select([lab.stdout], [], [], 0.001)[0]:
                    assert engine.poll() is None
                    assert time.monotonic() < deadline
                lab.kill()
                while (event := engine.poll()) is None:
                    assert time.monotonic() < deadline
                    select.select(engine.filenos(), [], [], 0.05)
                assert event.outcome is Outcome.HARDWARE_FAILURE
                assert path.exists()
                with make_port(path) as port:
                    while not engine.statistics().device_attached:
                        assert time.monotonic() < deadline
                        engine.poll()
                        select.select(engine.filenos(), [], [], 0.05)
                    assert port.attached
            finally:
                engine.close()
        finally:
            lab.kill()
