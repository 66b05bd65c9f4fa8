"""What programs print, log and return, and how it is kept."""

from __future__ import annotations

import logging
import os
import sys
from contextvars import copy_context

import numpy as np
import pytest
from netqasm.logging.glob import get_netqasm_logger

from qnodeos.applications import names, output
from qnodeos.applications.output import ProgramOutput, capturing, current_output
from qnodeos.cnpu.results import plain, settled


class Future(int):
    """As the SDK's: an int whose value is elsewhere."""

    def __new__(cls, value: int | None) -> Future:
        return super().__new__(cls, 0)

    def __init__(self, value: int | None) -> None:
        self.value = value

    def __int__(self) -> int:
        if self.value is None:
            raise RuntimeError("not flushed")
        return self.value


def test_futures_become_numbers_wherever_they_are():
    given = {"a": Future(3), "b": [Future(1), (Future(None), True)], "c": "text"}
    assert settled(given) == {"a": 3, "b": [1, (None, True)], "c": "text"}
    assert type(settled(Future(3))) is int


def test_what_json_does_not_know():
    state = np.array([[1, 1j], [0, 0]])
    assert plain(state) == [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [0.0, 0.0]]]
    assert plain({1: {2}, "n": np.float64(0.5)}) == {"1": [2], "n": 0.5}
    assert plain([float("nan"), object]) == ["nan", "<class 'object'>"]


def in_program(program: ProgramOutput, action) -> None:
    def run() -> None:
        current_output.set(program)
        action()

    copy_context().run(run)


def test_each_program_has_what_it_prints_and_logs(capsys):
    alice, bob = ProgramOutput("alice"), ProgramOutput("bob")
    logger = get_netqasm_logger("x")
    with capturing():
        in_program(alice, lambda: print("a"))
        in_program(bob, lambda: logger.info("b"))
        in_program(alice, lambda: logging.getLogger("mine").warning("w"))
        print("mine")
    assert alice.text == "a\nWARNING:mine:w\n"
    assert bob.text == "INFO:NetQASM.x:b\n"
    assert capsys.readouterr().out == "mine\n"


def test_streams_and_loggers_are_as_before():
    netqasm, root = get_netqasm_logger(), logging.getLogger()
    before = sys.stdout, netqasm.level, list(netqasm.handlers), list(root.handlers)
    with pytest.raises(KeyError), capturing():
        raise KeyError
    assert (sys.stdout, netqasm.level, netqasm.handlers, root.handlers) == before


def test_lines_are_shown_when_they_are_whole(capsys):
    shown = []

    def echo(name: str, line: str) -> None:
        shown.append((name, line))
        print(line)  # does not come back as the program's

    alice = ProgramOutput("alice", echo)
    with capturing():
        in_program(alice, lambda: print("one\ntw", end=""))
        assert shown == [("alice", "one")]
        in_program(alice, lambda: print("o", end=""))
        alice.finish()
    assert shown == [("alice", "one"), ("alice", "two")]
    assert alice.text == "one\ntwo"
    assert capsys.readouterr().out == "one\ntwo\n"


def test_output_has_a_bound(monkeypatch):
    monkeypatch.setattr(output, "MAX_CHARACTERS", 10)
    alice = ProgramOutput("alice")
    for _ in range(3):
        alice.write("1234567")
    assert alice.text.startswith("1234567123\n(more than")
    assert alice.text.count("not kept") == 1


# --- the names of NetQASM ----------------------------------------------------------------


def test_names_mean_what_they_did_afterwards(monkeypatch):
    monkeypatch.setenv("NETQASM_SIMULATOR", "debug")
    before = sys.modules.get("netqasm.sdk.external")
    with names.simulated(lambda: 7):
        from netqasm.runtime.settings import Simulator, get_simulator
        from netqasm.sdk.external import simulate_application

        assert get_simulator() is Simulator.NETSQUID
        assert simulate_application() == 7
    assert sys.modules.get("netqasm.sdk.external") is before
    assert os.environ["NETQASM_SIMULATOR"] == "debug"


def test_states_are_compared_as_netsquid_does():
    mixed = np.eye(2).astype(np.complex128) / 2
    zero, plus = names.qubit_from(0, 0), names.qubit_from(0, np.pi / 2)
    assert np.allclose(
        names.to_dm(names.qubit_from(np.pi / 2, np.pi / 2)), [[0.5, -0.5j], [0.5j, 0.5]]
    )
    assert names.get_fidelity(zero, zero) == pytest.approx(1)
    assert names.get_fidelity(zero, plus) == pytest.approx(np.sqrt(0.5))
    assert names.get_fidelity(mixed, mixed) == pytest.approx(1)
