"""Classical instructions: our processor against netqasm's reference executor.

A loop with arithmetic, array accesses and branches, some taken and some not, is run
through the front of the kernel: decoded, compiled and executed with all checks on (bounds,
undefined entries, int32, instruction budget), including what it takes to go on at the next
tick when the instructions of one are used up. The reference is
`netqasm.backend.executor.Executor`, driven as a simulator would, with its logging at the
default level, at which nothing is written; it formats its debug messages all the same.
Both start from the same bytes and must return the same array.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from netqasm.backend.executor import Executor
from netqasm.lang.instr import NVFlavour
from netqasm.lang.parsing import deserialize
from netqasm.lang.parsing.text import parse_text_subroutine
from netqasm.sdk.shared_memory import SharedMemoryManager

from benchmarks.measure import GC_OFF, Effort, Outcome, Work, compare
from drivers.nv import NVDriver
from qnodeos.api.host import ArrayResult
from qnodeos.api.netqasm import Flavour
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from qnodeos.qnpu.kernel import Kernel
from qnodeos.qnpu.kernel_config import KernelConfig
from qnodeos.trace.recorder import TraceRecorder

PASSES: Final = 12_000
"""Passes of the loop, of about 11 instructions each: more than 100,000 in all."""
WANTED_SPEED: Final = 10

_CLIENT: Final = 1
_APP_ID: Final = 0
_INIT_APP: Final = struct.pack("<B3xIB3x", 0, _APP_ID, 1)
_SUBROUTINE: Final = b"\x02"
_TICK_NS: Final = 10_000

_PROGRAM: Final = """
# NETQASM 0.10
# APPID 0
set R0 0
set R1 {passes}
set R2 1
set R3 8
set R4 0
set R5 97
array R3 @0
CLEAR:
beq R0 R3 READY
store R4 @0[R0]
add R0 R0 R2
jmp CLEAR
READY:
set R0 0
LOOP:
beq R0 R1 EXIT
rem R6 R0 R3
load R7 @0[R6]
addm R7 R7 R0 R5
mul R8 R7 R3
sub R8 R8 R0
bge R8 R4 KEEP
add R7 R7 R2
KEEP:
store R7 @0[R6]
add R0 R0 R2
jmp LOOP
EXIT:
ret_arr @0
"""


class CountingExecutor(Executor):  # type: ignore[misc]
    """The reference, counting what it executes."""

    executed: int = 0

    def _execute_command(self, subroutine_id: int, command: Any) -> Any:
        self.executed += 1
        return super()._execute_command(subroutine_id, command)


def loop_program(passes: int) -> bytes:
    """The loop as the bytes of a subroutine, header included."""
    subroutine = parse_text_subroutine(_PROGRAM.format(passes=passes))
    subroutine.app_id = _APP_ID
    return bytes(subroutine)


def new_executor(kind: type[Executor]) -> Any:
    """A reference executor with one application."""
    SharedMemoryManager.reset_memories()  # a registry that outlives its executors
    executor = kind("reference")
    executor.init_new_application(_APP_ID, 1)
    return executor


def run_reference(raw: bytes, executor: Any) -> list[int]:
    """Run a subroutine on the reference executor; the array it returns."""
    for _ in executor.execute_subroutine(deserialize(raw, NVFlavour())):
        raise RuntimeError("the reference executor yielded in a classical subroutine")
    return list(executor._shared_memories[_APP_ID]._get_array(0))


def new_kernel() -> Kernel:
    """A kernel with one process, and nothing around it."""
    capabilities = Capabilities(
        "a device that is never used", (0,), (), frozenset(Opcode), _TICK_NS
    )
    kernel = Kernel(
        KernelConfig(node_id=0, flavour=Flavour.NV, peers={}),
        NVDriver(capabilities),
        TraceRecorder(_TICK_NS, 1024),
        lambda bound: 0,
    )
    kernel.host_message(_CLIENT, 0, _INIT_APP, 0)
    kernel.host_outbox.clear()
    return kernel


def run_kernel(raw: bytes, kernel: Kernel) -> list[int | None]:
    """Run a subroutine on a kernel that has its process; the array it returns."""
    kernel.host_message(_CLIENT, 1, _SUBROUTINE + raw, 0)
    tick = 0
    while not kernel.host_outbox:
        kernel.tick(tick)
        tick += 1
    (reply,) = kernel.host_outbox
    if reply.error is not None:
        raise RuntimeError(f"the kernel refused the program: {reply.error}")
    (result,) = reply.results
    assert isinstance(result, ArrayResult)
    return list(result.values)


def run(effort: Effort) -> Outcome:
    """Measure."""
    raw = loop_program(effort.of(PASSES))
    counting = new_executor(CountingExecutor)
    expected = run_reference(raw, counting)
    if run_kernel(raw, new_kernel()) != expected:
        raise RuntimeError("kernel and reference executor disagree; nothing to compare")
    executed = counting.executed

    def work(name: str, prepare: Callable[[], Callable[[], object]]) -> Work:
        return Work(name, "instruction", executed, prepare)

    figure = compare(
        work("kernel", lambda: partial(run_kernel, raw, new_kernel())),
        work("netqasm executor", lambda: partial(run_reference, raw, new_executor(Executor))),
        effort,
    ).speed("classical", at_least=WANTED_SPEED)
    return Outcome(
        [figure],
        GC_OFF,
        notes=[
            f"{executed:,} instructions a round; "
            f"{1e3 / figure.ours.ns:.2f} million a second in the kernel on this machine",
            "the executor formats its debug messages even though nothing is logged; that is "
            "part of its time",
        ],
    )
