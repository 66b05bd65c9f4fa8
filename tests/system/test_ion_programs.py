"""Programs of both NetQASM flavours on a trapped-ion node without noise, in virtual time."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from netqasm.sdk import EPRSocket, Qubit
from netqasm.sdk.external import NetQASMConnection
from netqasm.sdk.transpile import NVSubroutineTranspiler

from qnodeos.assembly import load_profile
from qnodeos.assembly.ion import NODE, IonNodeConfig, build_ion_node
from qnodeos.errors import ProgramError
from sim.ion.physics import IonPhysics
from sim.network import ProgramSpec

FLAVOURS = {"vanilla": {}, "NV": {"compiler": NVSubroutineTranspiler}}
"""Options of a connection that make the SDK compile for a flavour."""

Preparation = Callable[[Qubit], Any]

PREPARATIONS: dict[str, tuple[Preparation, int]] = {
    "nothing": (lambda q: None, 0),
    "X": (lambda q: q.X(), 1),
    "Y": (lambda q: q.Y(), 1),
    "Z": (lambda q: q.Z(), 0),
    "HZH": (lambda q: (q.H(), q.Z(), q.H()), 1),
    "HSSH": (lambda q: (q.H(), q.S(), q.S(), q.H()), 1),
    "KK": (lambda q: (q.K(), q.K()), 0),
    "Rz in a Ramsey sequence": (lambda q: (q.H(), q.rot_Z(n=16, d=4), q.H()), 1),
    "two half turns": (lambda q: (q.rot_X(angle=math.pi / 2), q.rot_X(angle=math.pi / 2)), 1),
    "there and back": (lambda q: (q.rot_Y(angle=math.pi / 2), q.rot_Y(angle=-math.pi / 2)), 0),
    "three axes": (lambda q: (q.rot_X(n=8, d=4), q.rot_Z(n=8, d=4), q.rot_Y(n=24, d=4)), 0),
}
"""What is done to |0>, and the bit that is measured then."""

REFUSED: dict[str, tuple[Preparation, str]] = {
    "an angle": (lambda q: q.rot_X(n=1, d=2), "multiple of pi/2; the nearest"),
    "a small angle about Z": (lambda q: q.rot_Z(n=1, d=4), "multiple of pi/2; the nearest"),
}


def on_ion(program: Callable[[NetQASMConnection], Any], **options: Any) -> Any:
    """The result of a program on a node of its own."""

    def main() -> Any:
        with NetQASMConnection(NODE, **options) as connection:
            return program(connection)

    config = IonNodeConfig(physics=IonPhysics.noiseless())
    with build_ion_node(config, load_profile("zero"), seed=1) as system:
        (result,) = system.network.run([ProgramSpec(NODE, "program", main, {})])
        assert system.node.kernel.qmmu.free_qubits() == [0]
        return result


def measured(prepare: Preparation) -> Callable[[NetQASMConnection], int]:
    def program(connection: NetQASMConnection) -> int:
        qubit = Qubit(connection)
        prepare(qubit)
        outcome = qubit.measure()
        connection.flush()
        return int(outcome)

    return program


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", PREPARATIONS)
def test_programs_that_fit_run_unchanged(name, flavour):
    prepare, expected = PREPARATIONS[name]
    assert on_ion(measured(prepare), **FLAVOURS[flavour]) == expected


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_the_ion_cannot_do_is_refused(name, flavour):
    prepare, message = REFUSED[name]
    with pytest.raises(ProgramError) as refused:
        on_ion(measured(prepare), **FLAVOURS[flavour])
    assert "UnsupportedInstructionError" in str(refused.value.__cause__)
    assert message in str(refused.value.__cause__)


def test_t_is_refused_by_its_name():
    with pytest.raises(ProgramError) as refused:
        on_ion(measured(lambda qubit: qubit.T()))
    assert "no gate 't'" in str(refused.value.__cause__)


def test_entanglement_is_refused():
    def program(connection: NetQASMConnection) -> None:
        socket.create_keep()
        connection.flush()

    socket = EPRSocket("nobody")
    with pytest.raises(ProgramError, match="unknown application 'nobody'; known are: ion"):
        on_ion(program, epr_sockets=[socket])


@pytest.mark.parametrize("flavour", FLAVOURS)
def test_a_second_qubit_is_refused(flavour):
    def program(connection: NetQASMConnection) -> None:
        first, second = Qubit(connection), Qubit(connection)
        first.cnot(second)
        connection.flush()

    with pytest.raises(ProgramError) as refused:
        on_ion(program, **FLAVOURS[flavour])
    assert "NoQubitError" in str(refused.value.__cause__)
