"""The queues between threads, and the slots between processes."""

from __future__ import annotations

from collections import deque
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.engine import layout
from qnodeos.engine.histogram import BUCKETS, HistogramCounter, bucket_of, upper_bound
from qnodeos.engine.layout import COMMANDS_AT, FILE_BYTES, SLOT_BYTES, SLOTS, Word
from qnodeos.engine.opening import native_module
from qnodeos.engine.schedule import ResponseSchedule
from qnodeos.engine.slots import PATIENCE, PythonSlotRing, SlotRing
from tests.service.engine_bench import needs_native

MODULE = native_module()
KINDS = [PythonSlotRing] if MODULE is None else [PythonSlotRing, MODULE.SlotRing]
PAIRS = list(product(KINDS, KINDS))
names = [f"{writer.__name__}-{reader.__name__}" for writer, reader in PAIRS]
both_ends = pytest.mark.parametrize(("writer", "reader"), PAIRS, ids=names)
ticks = st.integers(-(2**63), 2**63 - 1)
frames = st.integers(0, 2**32 - 1)


def ring(kind: type, memory: bytearray) -> SlotRing:
    made: SlotRing = kind(memoryview(memory), COMMANDS_AT, Word.COMMAND_HEAD, Word.COMMAND_TAIL)
    return made


def set_words(memory: bytearray, head: int, tail: int) -> None:
    with memoryview(memory).cast("Q") as words:
        words[Word.COMMAND_HEAD], words[Word.COMMAND_TAIL] = head, tail


@both_ends
@given(st.lists(st.none() | st.tuples(ticks, frames), max_size=80), st.integers(0, 2**64 - 1))
def test_slots_come_in_order_wherever_the_counters_stand(writer, reader, steps, begin):
    memory = bytearray(FILE_BYTES)
    set_words(memory, begin, begin)
    push, pop = ring(writer, memory), ring(reader, memory)
    model: deque[tuple[int, int]] = deque()
    for step in steps:
        if step is None:
            assert pop.pop() == (model.popleft() if model else None)
        else:
            assert push.push(*step)
            model.append(step)
    while model:
        assert pop.pop() == model.popleft()
    assert pop.pop() is None
    assert pop.damaged == 0


@both_ends
@pytest.mark.parametrize("begin", [0, 2**64 - 100])
def test_a_full_ring_takes_no_more_and_loses_nothing(writer, reader, begin):
    memory = bytearray(FILE_BYTES)
    set_words(memory, begin, begin)
    push, pop = ring(writer, memory), ring(reader, memory)
    assert all(push.push(number, number) for number in range(SLOTS))
    assert not push.push(1, 1)
    assert pop.pop() == (0, 0)
    assert push.push(SLOTS, SLOTS)
    assert [pop.pop() for _ in range(SLOTS + 1)] == [
        *((number, number) for number in range(1, SLOTS + 1)), None
    ]  # fmt: skip


@both_ends
def test_a_slot_that_is_not_complete_is_not_there_yet(writer, reader):
    """As another processor may see it: the counter before what it counts."""
    memory = bytearray(FILE_BYTES)
    push, pop = ring(writer, memory), ring(reader, memory)
    push.push(7, 8)
    slot = memory[COMMANDS_AT : COMMANDS_AT + SLOT_BYTES]
    for place in range(0, SLOT_BYTES, 4):
        memory[COMMANDS_AT + place : COMMANDS_AT + place + 4] = b"\xff\xff\xff\xff"
        assert pop.pop() is None
        memory[COMMANDS_AT : COMMANDS_AT + SLOT_BYTES] = slot
    assert pop.pop() == (7, 8)
    assert pop.damaged == 0


@both_ends
def test_a_damaged_slot_is_left_out_in_the_end(writer, reader):
    memory = bytearray(FILE_BYTES)
    push, pop = ring(writer, memory), ring(reader, memory)
    push.push(1, 1)
    push.push(2, 2)
    memory[COMMANDS_AT] ^= 1
    assert [pop.pop() for _ in range(PATIENCE)] == [None] * PATIENCE
    assert pop.damaged == 1
    assert pop.pop() == (2, 2)


@pytest.mark.parametrize("kind", KINDS)
def test_counters_without_sense_empty_the_ring(kind):
    memory = bytearray(FILE_BYTES)
    pop = ring(kind, memory)
    set_words(memory, 5, 2**40)
    assert pop.pop() is None
    assert pop.damaged == 1
    assert pop.pop() is None
    assert ring(kind, memory).push(1, 2)
    assert pop.pop() == (1, 2)


@needs_native
def test_the_native_ring_checks_its_memory():
    assert MODULE is not None
    for slots_at, head, tail in [(0, 0, 10**6), (4, 0, 0), (-8, 0, 0), (FILE_BYTES, 0, 0)]:
        with pytest.raises(ValueError, match="does not fit"):
            MODULE.SlotRing(bytearray(FILE_BYTES), slots_at, head, tail)
    with pytest.raises((TypeError, BufferError)):
        MODULE.SlotRing(bytes(FILE_BYTES), 0, 0, 0)
    released = MODULE.SlotRing(bytearray(FILE_BYTES), 0, 0, 0)
    released.release()
    released.release()
    with pytest.raises(ValueError, match="released"):
        released.pop()


@needs_native
@given(
    st.sampled_from([0, 5, 2**64 - 10]),
    st.lists(st.integers(0, 9), max_size=100),
)
def test_the_ring_between_threads_is_a_bounded_queue(start, steps):
    assert MODULE is not None
    queue = MODULE.Ring(start)
    model: deque[tuple[int, int]] = deque()
    for step in steps:
        if step < 6:
            for number in range(100):
                fits = len(model) < MODULE.RING_ITEMS
                assert queue.push(number, -number) == fits
                if fits:
                    model.append((number, -number))
        else:
            for _ in range(150):
                assert queue.pop() == (model.popleft() if model else None)


# --- what both engines count and keep in the same way ----------------------------------------


@given(st.integers(-5, 2**50))
def test_buckets_cover_all_values_closely(value):
    bucket = bucket_of(value)
    assert 0 <= bucket < BUCKETS
    if bucket < BUCKETS - 1:
        upper = upper_bound(bucket)
        assert max(value, 0) <= upper <= max(value, 0) * (1 + 1 / 32)
        assert bucket_of(upper + 1) == bucket + 1


def test_quantiles_are_rounded_up_to_a_bucket():
    counter = HistogramCounter()
    for value in range(1, 1001):
        counter.add(value)
    histogram = counter.read()
    assert (histogram.total, histogram.maximum) == (1000, 1000)
    assert [histogram.quantile(part) for part in (0.0, 0.01, 0.5, 0.99, 1.0)] == [
        1, 10, 503, 991, 1000
    ]  # fmt: skip
    assert HistogramCounter().read().quantile(0.5) == 0


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=30))
def test_the_newest_response_that_has_come_to_hold_is_on_the_wire(said):
    """Against its definition, tick by tick; everything is said at tick 0."""
    schedule = ResponseSchedule()
    for number, (from_tick, _) in enumerate(said):
        schedule.put(from_tick, number)
    for tick in range(32):
        while schedule.take(tick):
            pass
        holds = [number for number, (from_tick, _) in enumerate(said) if from_tick <= tick]
        assert (schedule.current[1] if schedule.current else None) == (
            max(holds) if holds else None
        )


def test_the_pages_hold_what_they_should():
    assert SLOTS * SLOT_BYTES == layout.PAGE_BYTES
    assert max(Word) * 8 < COMMANDS_AT
    assert len({word * 8 // 64 for word in Word}) == len(Word)
