"""The machinery of the policy loop."""

from __future__ import annotations

import os
import signal
import socket
from threading import Thread

import pytest

from qnodeos.service.loop import BROKEN, READ, WRITE, Loop, stop_signals


@pytest.fixture
def loop():
    made = Loop()
    yield made
    made.close()


@pytest.fixture
def pair():
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    yield ours, theirs
    ours.close()
    theirs.close()


def turn(loop: Loop, timeout_s: float | None = 0) -> bool:
    return loop.dispatch(loop.wait(timeout_s))


def test_a_descriptor_is_served_while_it_is_ready(loop, pair):
    ours, theirs = pair
    seen: list[int] = []
    loop.watch(ours.fileno(), seen.append)
    assert not turn(loop)
    theirs.send(b"x")
    assert turn(loop)
    assert turn(loop)  # it has not been read
    assert seen == [READ, READ]
    ours.recv(1)
    assert not turn(loop)
    loop.change(ours.fileno(), WRITE)
    assert turn(loop)
    assert seen[-1] == WRITE
    loop.change(ours.fileno(), 0)
    theirs.close()
    assert turn(loop)
    assert seen[-1] & BROKEN


def test_what_is_forgotten_is_not_served(loop, pair):
    ours, theirs = pair
    loop.watch(ours.fileno(), lambda events: pytest.fail("forgotten"))
    theirs.send(b"x")
    ready = loop.wait(1)
    loop.forget(ours.fileno())
    assert not loop.dispatch(ready)  # closed by another handler of the same turn
    assert not turn(loop)
    assert loop.watched == 0
    loop.forget(ours.fileno())


def test_timers_come_in_their_order(pair):
    now = 0
    loop = Loop(lambda: now)
    seen: list[str] = []
    loop.call_after(30, lambda: seen.append("third"))
    loop.call_after(10, lambda: seen.append("first"))
    cancelled = loop.call_after(10, lambda: seen.append("never"))
    loop.call_after(20, lambda: seen.append("second"))
    cancelled.cancel()
    assert not cancelled.is_pending
    assert not turn(loop)
    now = 20
    assert turn(loop)
    assert seen == ["first", "second"]
    now = 1_000
    assert turn(loop)
    assert seen == ["first", "second", "third"]
    loop.close()


def test_a_timer_that_starts_another_does_not_hold_up_the_turn(loop):
    seen: list[int] = []

    def again() -> None:
        seen.append(1)
        loop.call_after(0, again)

    loop.call_after(0, again)
    assert turn(loop)
    assert seen == [1]


def test_waiting_ends_with_the_next_timer(loop):
    seen: list[int] = []
    loop.call_after(1_000_000, lambda: seen.append(1))
    while not seen:  # the system may wake a little before the time
        turn(loop, None)
    assert seen == [1]


def test_deferred_calls_are_made_once_and_in_the_next_turn(loop):
    seen: list[str] = []

    def first() -> None:
        seen.append("first")
        loop.call_soon(lambda: seen.append("second"))

    loop.call_soon(first)
    assert turn(loop, None)  # does not wait
    assert seen == ["first"]
    assert turn(loop, None)
    assert seen == ["first", "second"]
    assert not turn(loop)


def test_another_thread_can_end_the_wait(loop):
    thread = Thread(target=loop.wake)
    thread.start()
    turn(loop, 60)
    thread.join()
    assert not turn(loop)


def test_signals_become_calls(loop):
    seen: list[int] = []
    before = signal.getsignal(signal.SIGUSR1)
    with stop_signals(loop, seen.append, (signal.SIGUSR1,)):
        os.kill(os.getpid(), signal.SIGUSR1)
        while not seen:
            turn(loop, 60)
    assert seen == [signal.SIGUSR1]
    assert signal.getsignal(signal.SIGUSR1) == before
    assert loop.watched == 0


def test_closing_twice_does_no_harm(loop):
    loop.close()
    loop.close()
