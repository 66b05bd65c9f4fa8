"""Changes to the SDK's builder, which makes commands from a program's calls.

`exact_rotations` mends how it takes angles in radians.

The calls that lie between a classical message and the gates that depend on it (rotations,
gates, measurements, the end of a block) go through many layers in the SDK, most of which do
nothing in the common case. `speed_up` gives a builder methods that know the common case, make
the same commands, and leave all others to the SDK's.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from typing import Any, Final

from netqasm.lang.encoding import RegisterName
from netqasm.lang.ir import GenericInstr, ICmd, ProtoSubroutine
from netqasm.lang.operand import Register
from netqasm.lang.version import NETQASM_VERSION
from netqasm.sdk.build_types import NVHardwareConfig
from netqasm.sdk.futures import RegFuture
from netqasm.sdk.qubit import QubitMeasureAxes, QubitMeasureBasis

from qnodeos.qdevice.instructions import ANGLE_STEPS

SWITCH: Final = "QNODEOS_PREPARED"
"""Environment variable; 0 leaves everything to the SDK."""

_ANGLE_STEP: Final = math.pi / (ANGLE_STEPS // 2)
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


def exact_rotations(build: Callable[..., None]) -> Callable[..., None]:
    """Let angles in radians that are multiples of pi/16 be just that.

    The SDK approximates an angle from below by fractions of pi. A float that is smaller
    than the multiple it stands for, as 11 * math.pi / 16 is, becomes a sum of fractions
    finer than any hardware has.

    Args:
        build: the builder's method for rotations.
    """

    def build_rotation(
        instruction: Any,
        virtual_qubit_id: int,
        n: Any = 0,
        d: int = 0,
        angle: float | None = None,
    ) -> None:
        if angle is not None:
            steps = round(angle / _ANGLE_STEP)
            if math.isclose(angle, steps * _ANGLE_STEP, abs_tol=1e-9):
                if steps % ANGLE_STEPS == 0:
                    return
                n, d, angle = steps % ANGLE_STEPS, 4, None
        build(instruction, virtual_qubit_id, n, d, angle)

    return build_rotation


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
        if not (plain and type(n) is int and type(d) is int and n >= 0 and d >= 0):
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
