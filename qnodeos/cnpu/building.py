"""Changes to the SDK's builder, which makes commands from a program's calls.

`exact_rotations` mends how it takes angles, `expect_pairs` how it makes Psi+ of pairs, and
`release_conditions` how it loses registers.

The calls that lie between a classical message and the gates that depend on it (rotations,
gates, measurements, the end of a block) go through many layers in the SDK, most of which do
nothing in the common case. `speed_up` gives a builder methods that know the common case, make
the same commands, and leave all others to the SDK's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from netqasm.lang.encoding import RegisterName
from netqasm.lang.ir import GenericInstr, ICmd, ProtoSubroutine
from netqasm.lang.operand import Register
from netqasm.lang.version import NETQASM_VERSION
from netqasm.qlink_compat import EPRRole
from netqasm.sdk.build_epr import EntRequestParams
from netqasm.sdk.build_types import NVHardwareConfig
from netqasm.sdk.futures import Future, RegFuture
from netqasm.sdk.qubit import QubitMeasureAxes, QubitMeasureBasis

from qnodeos.cnpu.ranges import MAX_BYTE
from qnodeos.errors import CallerError, UnsupportedInstructionError
from qnodeos.qdevice.instructions import ANGLE_STEPS

SWITCH: Final = "QNODEOS_PREPARED"
"""Environment variable; 0 leaves everything to the SDK."""

ANGLE_TOLERANCE: Final = 1e-4 * math.pi
"""How far, in radians, a rotation may be from the angle asked for: as far as the SDK's."""

_EXPONENT: Final = 4
_ANGLE_STEP: Final = math.pi / (ANGLE_STEPS // 2)
"""pi / 2**_EXPONENT, which every device can do."""
_BYTE_BITS: Final = 8
_Q0: Final = Register(RegisterName.Q, 0)
_SET, _MEAS, _QFREE, _RET_REG = (
    GenericInstr.SET,
    GenericInstr.MEAS,
    GenericInstr.QFREE,
    GenericInstr.RET_REG,
)


def is_preparing() -> bool:
    """Whether blocks are prepared where a program does not say."""
    return os.environ.get(SWITCH, "1") != "0"


def exact_rotations(build: Callable[..., None], angle_halvings: int) -> Callable[..., None]:
    """Write angles as the device can do them, and whole.

    The SDK approximates an angle in radians from below by fractions of pi. A float that is
    smaller than the multiple of pi/16 it stands for, as 11 * math.pi / 16 is, becomes a sum
    of fractions finer than the hardware has. Of a numerator it writes the low byte.

    Args:
        build: the builder's method for rotations.
        angle_halvings: of the device: its finest angle is pi/16 / 2**angle_halvings.
    """

    def build_rotation(
        instruction: Any,
        virtual_qubit_id: int,
        n: Any = 0,
        d: int = 0,
        angle: float | None = None,
    ) -> None:
        if angle is not None:
            terms = angle_terms(angle, angle_halvings)
        elif type(n) is int and type(d) is int and n >= 0 and (n > MAX_BYTE or d > MAX_BYTE):
            terms = fraction_terms(n, d)
        else:
            terms = [(n, d)]
        for numerator, exponent in terms:
            build(instruction, virtual_qubit_id, numerator, exponent, None)

    return build_rotation


def angle_terms(angle: float, angle_halvings: int) -> list[tuple[int, int]]:
    """The multiple of a device's finest angle that is nearest to an angle.

    Args:
        angle: in radians.
        angle_halvings: the finest angle is pi/16 / 2**angle_halvings.

    Returns:
        Pairs (n, d) that fit into bytes, and whose n * pi / 2**d add up to it modulo 2 pi.

    Raises:
        UnsupportedInstructionError: it is further away than `ANGLE_TOLERANCE`.
        CallerError: the angle is no number.
    """
    if not math.isfinite(angle):
        raise CallerError(f"rotation by {angle} radians; an angle is a finite number")
    unit = _ANGLE_STEP / (1 << angle_halvings)
    steps = round(angle / unit)
    if abs(angle - steps * unit) > ANGLE_TOLERANCE:
        below = math.floor(angle / unit)
        finest = f"pi/{(ANGLE_STEPS // 2) << angle_halvings}"
        raise UnsupportedInstructionError(
            f"rotation by {angle} radians is no multiple of {finest}; the nearest this hardware "
            f"can do are {below} * {finest} and {below + 1} * {finest}"
        )
    exponent = _EXPONENT + angle_halvings
    while exponent > _EXPONENT and steps % 2 == 0:
        steps, exponent = steps // 2, exponent - 1
    return fraction_terms(steps, exponent)


def fraction_terms(numerator: int, exponent: int) -> list[tuple[int, int]]:
    """An angle of ``numerator * pi / 2**exponent`` in terms that fit into bytes.

    Returns:
        Pairs (n, d) whose n * pi / 2**d add up to it modulo 2 pi; none for whole turns.

    Raises:
        CallerError: the exponent is none.
    """
    if not 0 <= exponent <= MAX_BYTE:
        raise CallerError(
            f"rotation by {numerator} * pi / 2**{exponent}: the exponent must lie in 0..{MAX_BYTE}"
        )
    rest = numerator % (2 << exponent)
    terms = []
    while rest:
        if rest & MAX_BYTE:
            terms.append((rest & MAX_BYTE, exponent))
        rest, exponent = rest >> _BYTE_BITS, exponent - _BYTE_BITS
    return terms


def expect_pairs(builder: Any) -> None:
    """Let a program that expects Psi+ have it, on the right qubits.

    The QNPU delivers Phi+ at both ends, so the corrections that the SDK writes for a receiver
    do nothing unless the program expects Psi+. Then they are an X for every pair, all of them
    on virtual qubit 0, whichever qubits the pairs are on, and none at all in a connection of
    one qubit. Here each pair has its own.
    """
    sdk_keep = builder.sdk_epr_keep

    def keep(role: EPRRole, params: EntRequestParams, reset_results_array: bool = False) -> Any:
        if role is not EPRRole.RECV or not params.expect_psi_plus:
            return sdk_keep(role, params, reset_results_array)
        routine = params.post_routine
        if routine is not None:

            def flipped(connection: Any, qubit: Any, pair: Any) -> None:
                qubit.X()
                routine(connection, qubit, pair)

            params = replace(params, post_routine=flipped)
        params = replace(params, expect_phi_plus=False, expect_psi_plus=False)
        qubits, results = sdk_keep(role, params, reset_results_array)
        if routine is None:
            for qubit in qubits:
                qubit.X()
        return qubits, results

    builder.sdk_epr_keep = keep


def release_conditions(builder: Any) -> None:
    """Let a builder use the register of a condition again.

    The SDK gives it back where two values are compared, but not where one is compared with
    zero: the seventeenth ``if_ez`` or ``if_nz`` on a future finds no register.
    """
    sdk_branch = builder._get_branch_commands_single_operand

    def branch(branch_instruction: Any, op: Any) -> tuple[list[Any], list[Any]]:
        start, end = sdk_branch(branch_instruction, op)
        if isinstance(op, Future):
            builder._mem_mgr.remove_active_register(start[-1].operands[0])
        return start, end

    builder._get_branch_commands_single_operand = branch


def speed_up(builder: Any) -> None:
    """Give a builder the shortcuts; not while it notes the program's lines."""
    if builder._track_lines:
        return
    shortcuts = _Shortcuts(builder)
    builder._build_cmds_single_qubit_rotation = shortcuts.rotation
    builder._build_cmds_single_qubit = shortcuts.gate
    builder._build_cmds_measure = shortcuts.measurement
    builder.subrt_pop_pending_subroutine = shortcuts.pop_pending
    memory = builder._mem_mgr
    memory.reset_used_meas_registers = shortcuts.reset_used_meas_registers


class _Shortcuts:
    """Replacements of methods of one builder, under the SDK's own argument names."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self._memory = builder._mem_mgr
        self._is_nv = isinstance(builder._hardware_config, NVHardwareConfig)
        self._sdk_rotation = builder._build_cmds_single_qubit_rotation
        self._sdk_gate = builder._build_cmds_single_qubit
        self._sdk_measurement = builder._build_cmds_measure

    def rotation(
        self,
        instruction: Any,
        virtual_qubit_id: int,
        n: Any = 0,
        d: int = 0,
        angle: float | None = None,
    ) -> None:
        plain = type(virtual_qubit_id) is int and angle is None
        whole = type(n) is int and type(d) is int
        if not (plain and whole and 0 <= n <= MAX_BYTE and 0 <= d <= MAX_BYTE):
            self._sdk_rotation(instruction, virtual_qubit_id, n, d, angle)
            return
        self._builder._pending_commands += (
            ICmd(_SET, [], [_Q0, virtual_qubit_id]),
            ICmd(instruction, [], [_Q0, n, d]),
        )

    def gate(self, instr: Any, qubit_id: int) -> None:
        if type(qubit_id) is not int:
            self._sdk_gate(instr, qubit_id)
            return
        self._builder._pending_commands += (
            ICmd(_SET, [], [_Q0, qubit_id]),
            ICmd(instr, [], [_Q0]),
        )

    def measurement(
        self,
        qubit_id: int,
        future: Any,
        inplace: bool,
        basis: QubitMeasureBasis = QubitMeasureBasis.Z,
        rotations: tuple[int, int, int] | None = None,
        axes: QubitMeasureAxes = QubitMeasureAxes.XYX,
    ) -> None:
        if (
            type(qubit_id) is not int
            or type(future) is not RegFuture
            or rotations is not None
            or basis is not QubitMeasureBasis.Z
            or (self._is_nv and qubit_id != 0)
        ):
            self._sdk_measurement(qubit_id, future, inplace, basis, rotations, axes)
            return
        register = self._memory.get_new_meas_outcome_register()
        future.reg = register
        self._memory._registers_to_return.append(register)
        commands = self._builder._pending_commands
        commands += (ICmd(_SET, [], [_Q0, qubit_id]), ICmd(_MEAS, [], [_Q0, register]))
        if not inplace:
            commands.append(ICmd(_QFREE, [], [_Q0]))

    def pop_pending(self) -> ProtoSubroutine | None:
        builder, memory = self._builder, self._memory
        commands = builder._pending_commands
        arrays = memory._arrays_to_return
        if arrays:
            builder._pending_commands = []
            for array in arrays:
                builder._build_cmds_init_array(array)
            commands = builder._pending_commands + commands
            if builder._return_arrays:
                builder._pending_commands = []
                for array in arrays:
                    builder._build_cmds_return_array(array)
                commands += builder._pending_commands
        commands += [ICmd(_RET_REG, [], [register]) for register in memory._registers_to_return]
        builder._pending_commands = []
        if not commands:
            return None
        return ProtoSubroutine(
            commands=commands, netqasm_version=NETQASM_VERSION, app_id=builder._app_id
        )

    def reset_used_meas_registers(self) -> None:
        memory = self._memory
        memory._used_meas_registers = dict.fromkeys(memory._used_meas_registers, False)
