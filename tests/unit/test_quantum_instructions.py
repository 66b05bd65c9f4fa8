"""Every quantum instruction makes the device do what the driver says, and nothing else."""

from __future__ import annotations

import itertools

import pytest

from qnodeos.api.netqasm import Flavour
from qnodeos.qdevice.instructions import Axis, PhysicalInstruction, ini, mov, msr, sqg, swp, tqg
from qnodeos.qdevice.outcomes import Outcome
from qnodeos.qnpu.classical import BUILDERS as CLASSICAL
from qnodeos.qnpu.isa import CORE, FLAVOURS
from tests.unit.kernel_device import GATES, TWO_QUBIT_STEPS, Answer
from tests.unit.kernel_harness import Node, make_node, solo
from tests.unit.kernel_programs import encode, init_app, register, submit

Q0, Q1, Q2, M0, M1 = (register(name) for name in ("Q0", "Q1", "Q2", "M0", "M1"))
ALLOCATE = [
    *(("set", qubit, virtual) for qubit, virtual in ((Q0, 5), (Q1, 7), (Q2, 9))),
    *(("qalloc", qubit) for qubit in (Q0, Q1, Q2)),
]
"""Virtual qubits 5, 7 and 9 on physical qubits 0, 1 and 2."""


def run(
    *instructions: tuple[str | int, ...],
    flavour: Flavour = Flavour.VANILLA,
    node: Node | None = None,
):
    """What reaches the device, and the node."""
    node = make_node(flavour=flavour) if node is None else node
    node.post(init_app(0))
    request = node.post(submit(0, encode(*ALLOCATE, *instructions, flavour=flavour)))
    solo(node).run(200)
    assert node.replies[request].error is None, node.replies[request].error
    return node.device.instructions, node, request


Cases = dict[tuple[str | int, ...], list[PhysicalInstruction]]

SINGLE: Cases = {
    **{
        (name, Q1): [sqg(axis, steps, 1) for axis, steps in gates] for name, gates in GATES.items()
    },
    ("init", Q2): [ini(2)],
    ("rot_x", Q0, 3, 4): [sqg(Axis.X, 3, 0)],
    ("rot_y", Q1, 1, 0): [sqg(Axis.Y, 16, 1)],
    ("rot_z", Q2, 255, 3): [sqg(Axis.Z, 510 % 32, 2)],
    ("rot_z", Q2, 0, 4): [],
    ("meas", Q1, M0): [msr(1)],
    ("meas_basis", Q1, M0, 1, 2, 3, 4): [
        sqg(Axis.X, 1, 1), sqg(Axis.Y, 2, 1), sqg(Axis.X, 3, 1), msr(1),
    ],
    ("meas_basis_yzy", Q1, M0, 1, 0, 3, 3): [sqg(Axis.Y, 2, 1), sqg(Axis.Y, 6, 1), msr(1)],
    ("meas_basis_zxz", Q0, M0, 1, 2, 3, 4): [
        sqg(Axis.Z, 1, 0), sqg(Axis.X, 2, 0), sqg(Axis.Z, 3, 0), msr(0),
    ],
}  # fmt: skip
DOUBLE: Cases = {
    **{
        (name, Q2, Q0): [tqg(axis, steps, 2, 0), sqg(axis, 32 - steps, 0)]
        for name, (axis, steps) in TWO_QUBIT_STEPS.items()
    },
    ("mov", Q0, Q1): [mov(0, 1)],
    ("swp", Q1, Q0): [swp(1, 0)],
}
NV_DOUBLE: Cases = {
    ("crot_x", Q0, Q1, 1, 1): [tqg(Axis.X, 8, 0, 1)],
    ("crot_y", Q1, Q2, 31, 4): [tqg(Axis.Y, 31, 1, 2)],
    ("crot_y", Q1, Q2, 0, 4): [],
    ("mov", Q0, Q2): [mov(0, 2)],
    ("swp", Q2, Q0): [swp(2, 0)],
}
CASES = [
    *((Flavour.VANILLA, case, expected) for case, expected in {**SINGLE, **DOUBLE}.items()),
    *((Flavour.NV, case, expected) for case, expected in NV_DOUBLE.items()),
]


@pytest.mark.parametrize(
    ("flavour", "instruction", "expected"), CASES, ids=[f"{f.value}-{c[0]}" for f, c, _ in CASES]
)
def test_an_instruction_issues_what_the_driver_says(flavour, instruction, expected):
    seen, _, _ = run(instruction, flavour=flavour)
    assert seen == expected


def test_no_quantum_instruction_is_left_out():
    names = {name for table in (CORE, *FLAVOURS.values()) for name, _ in table.values()}
    tested = {case[0] for _, case, _ in CASES}
    rest = {"qalloc", "qfree", "create_epr", "recv_epr"}
    assert names == CLASSICAL.keys() | tested | rest


def test_instructions_follow_each_other_in_order_on_a_slow_device():
    node = make_node(device_ticks=9)
    seen, _, _ = run(("init", Q0), ("h", Q1), ("meas", Q0, M0), node=node)
    assert seen == [ini(0), *(sqg(axis, n, 1) for axis, n in GATES["h"]), msr(0)]
    ticks = [tick for tick, _ in node.device.log]
    assert [later - tick for tick, later in itertools.pairwise(ticks)] == [9, 9, 9]


@pytest.mark.parametrize("bits", [(0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize(
    "measure", [("meas",), ("meas_basis", 1, 0, 0, 4), ("meas_basis_zxz", 0, 1, 1, 4)]
)
def test_the_result_of_a_measurement_lands_in_its_register(bits, measure):
    node = make_node()
    node.device.measurements.extend(bits)
    name, *angles = measure
    _, _, request = run(
        ("set", M0, 7), ("set", M1, 7), (name, Q0, M0, *angles), (name, Q1, M1, *angles),
        ("ret_reg", M0), ("ret_reg", M1), node=node,
    )  # fmt: skip
    assert node.values(request) == list(bits)


def test_a_gates_outcome_changes_no_register():
    node = make_node()
    node.device.answers = lambda instruction: Answer(Outcome.SUCCESS_ONE)
    _, _, request = run(("set", M0, 7), ("h", Q0), ("ret_reg", M0), node=node)
    assert node.values(request) == [7]


def test_the_qubit_is_looked_up_when_the_instruction_runs():
    """The same instruction in a loop acts on whatever its register names."""
    lines = [
        ("set", Q0, 5), ("set", register("R1"), 2), ("set", register("R2"), 11),
        ("x", Q0), ("add", Q0, Q0, register("R1")), ("blt", Q0, register("R2"), 9),
    ]  # fmt: skip
    seen, _, _ = run(*lines)
    assert seen == [sqg(Axis.X, 16, qubit) for qubit in (0, 1, 2)]


def test_freeing_and_allocating_again():
    seen, node, _ = run(("qfree", Q0), ("qfree", Q1), ("set", Q0, 1), ("qalloc", Q0), ("init", Q0))
    assert seen == [ini(0)]
    assert node.kernel.qmmu.free_qubits() == [1]


def test_a_subroutine_sent_twice_is_compiled_once():
    node = make_node()
    asked: list[int] = []
    rotate = node.driver.rotate

    def counting(axis: Axis, numerator: int, exponent: int, qubit: int):
        asked.append(qubit)
        return rotate(axis, numerator, exponent, qubit)

    node.driver.rotate = counting  # type: ignore[method-assign]
    lab = solo(node)
    node.post(init_app(0))
    node.post(submit(0, encode(("qalloc", Q0), ("set", Q0, 0))))
    requests = [node.post(submit(0, encode(("rot_x", Q0, 1, 1)))) for _ in range(3)]
    lab.run(30)
    assert [node.replies[request].error for request in requests] == [None] * 3
    assert node.device.instructions == [sqg(Axis.X, 8, 0)] * 3
    assert asked == [0]
