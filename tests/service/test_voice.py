"""What a service says."""

from __future__ import annotations

import os

from qnodeos.service.voice import Voice


def test_a_flood_of_lines_is_cut_and_counted():
    now_ns = 0
    said: list[str] = []
    voice = Voice(said.append, lambda: now_ns)
    for number in range(200):
        voice(str(number))
    assert said == [str(number) for number in range(50)]
    assert voice.silenced == 150
    now_ns = 2_500_000_000
    for text in "abc":
        voice(text)
    assert said[50:] == ["a (and 150 lines before that were too many)", "b"]
    now_ns = 3_000_000_000  # half a second was left over
    voice("d")
    assert said[52:] == ["d (and 1 lines before that were too many)"]
    now_ns = 10**15
    for number in range(200):
        voice(str(number))
    assert len(said) == 53 + 50


def test_nobody_listening_is_no_reason_to_end():
    def write(line: str) -> None:
        raise BrokenPipeError

    voice = Voice(write)
    voice("hello")
    assert voice.silenced == 1


def test_a_reader_that_hangs_holds_nobody_up():
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    filled = 0
    try:
        while True:
            filled += os.write(writer, bytes(4096))
    except BlockingIOError:
        os.set_blocking(writer, True)
    said: list[str] = []
    voice = Voice(said.append, descriptor=writer)
    voice("nobody reads this")
    assert (said, voice.silenced) == ([], 1)
    while filled:
        filled -= len(os.read(reader, filled))
    voice("x" * 10_000)
    assert said == ["x" * 1_000 + " (and 1 lines before that were too many)"]
    os.close(reader)
    os.close(writer)
