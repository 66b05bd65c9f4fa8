"""Registers and arrays of a process: bounds, undefined entries, eviction."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qnodeos.errors import ArrayAccessError, LimitError
from qnodeos.limits import Limits
from qnodeos.qnpu.memory import ProcessMemory

LIMITS = Limits(array_length=20, array_entries=50)


@pytest.fixture
def memory() -> ProcessMemory:
    return ProcessMemory(LIMITS)


def test_a_new_process_has_64_registers_of_zero(memory):
    assert memory.registers == [0] * 64
    assert memory.arrays == {}


def test_a_new_array_is_undefined(memory):
    memory.create_array(4, 3)
    assert memory.array(4) == [None] * 3


@pytest.mark.parametrize(("address", "length"), [(-1, 1), (0, -1), (-5, -5)])
def test_negative_addresses_and_lengths(memory, address, length):
    with pytest.raises(ArrayAccessError, match=f"array @{address} of length {length}"):
        memory.create_array(address, length)


def test_the_length_of_an_array_is_bounded(memory):
    memory.create_array(0, 20)
    with pytest.raises(LimitError, match="array_length=20"):
        memory.create_array(0, 21)
    assert len(memory.array(0)) == 20


def test_an_array_that_does_not_exist(memory):
    for access in (memory.array, lambda at: memory.entry(at, 0), lambda at: memory.slice(at, 0, 0)):
        with pytest.raises(ArrayAccessError, match="no array @7"):
            access(7)


@pytest.mark.parametrize("index", [-1, 3, 2**31 - 1])
def test_an_index_outside(memory, index):
    memory.create_array(0, 3)
    with pytest.raises(ArrayAccessError, match=f"index {index} is outside array @0 of length 3"):
        memory.entry(0, index)


@pytest.mark.parametrize(("start", "stop"), [(-1, 2), (2, 1), (0, 4), (4, 4), (-2, -1)])
def test_a_slice_outside(memory, start, stop):
    memory.create_array(0, 3)
    with pytest.raises(ArrayAccessError, match=f"slice {start}:{stop} does not fit array @0"):
        memory.slice(0, start, stop)


def test_entries_and_slices(memory):
    memory.create_array(0, 3)
    memory.entry(0, 1)[1] = 5
    assert memory.slice(0, 0, 3) == [None, 5, None]
    assert memory.slice(0, 1, 2) == [5]
    assert memory.slice(0, 3, 3) == []


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 20)), max_size=40))
def test_the_arrays_created_last_are_kept_and_no_more_entries_than_allowed(creations):
    memory = ProcessMemory(LIMITS)
    model: dict[int, int] = {}
    for address, length in creations:
        memory.create_array(address, length)
        model.pop(address, None)
        model[address] = length
        while sum(model.values()) > LIMITS.array_entries:
            del model[next(iter(model))]
        assert {at: len(array) for at, array in memory.arrays.items()} == model
        assert list(memory.arrays) == list(model)
    for address in set(range(9)) - model.keys():
        with pytest.raises(ArrayAccessError, match="never created, or evicted"):
            memory.array(address)


def test_one_array_may_be_longer_than_all_may_have():
    memory = ProcessMemory(Limits(array_length=100, array_entries=50))
    memory.create_array(0, 10)
    memory.create_array(1, 80)
    assert list(memory.arrays) == [1]
