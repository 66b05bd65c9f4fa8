"""The processor: runs the process the scheduler chooses, one physical instruction at a time.

At most one process runs and at most one instruction is under way at the device, whose outcome
goes to the process that sent it. A running process goes on until it waits, ends, or gives way
at a point where it holds no qubit; what it needs of the rest of the kernel it asks `Services`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from qnodeos.api.netqasm import INSTRUCTION_BYTES, Flavour
from qnodeos.errors import CallerError, DeviceFailureError, InstructionBudgetError, QNodeOSError
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import Opcode, PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.blocks import BlockDurations
from qnodeos.qnpu.compiler import compile_subroutine
from qnodeos.qnpu.context import CompileContext, ProcessServices
from qnodeos.qnpu.decoder import decode_subroutine
from qnodeos.qnpu.execution import DEVICE, FINISHED, PAUSE, WAIT, Operation, SubroutineFault
from qnodeos.qnpu.network_process import NetworkProcess
from qnodeos.qnpu.process import (
    NETWORK_PID,
    PendingSubroutine,
    Process,
    ProcessEvent,
    ProcessState,
    UserProcess,
)
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.qubit_queue import QubitQueue
from qnodeos.qnpu.scheduler import Scheduler
from qnodeos.trace.events import PRODUCE_EVENT, Event


class Record(Protocol):
    """Takes one event; see `qnodeos.trace.TraceRecorder.record`."""

    def __call__(self, time: int, event: int, process: int = 0, detail: int = 0) -> None:
        """Keep the event."""
        ...


class Processor:
    """See the module's docstring.

    Args:
        scheduler: chooses among the ready processes.
        flavour: NetQASM flavour of subroutines.
        limits: all bounds.
        driver: the QDriver of the device.
        qmmu: knows which qubits are free.
        network: the network process.
        processes: the user processes alive, by process id.
        services: makes what a subroutine of a process may ask for.
        record: takes every event.
        finished: takes a subroutine that has run to its end, and its process.
        abort: ends a process because of an error, at an instruction if one is at fault.
        check_wait: raises a `CallerError` if a process begins to wait for entanglement that
            cannot come while it waits.

    Attributes:
        running: the process that has the QNPU.
        in_flight: the process whose instruction is under way at the device; None if there is
            none, or the process has ended.
        instructions: physical instructions sent so far.
        qubit_queue: processes that wait for a qubit.
    """

    def __init__(
        self,
        *,
        scheduler: Scheduler,
        flavour: Flavour,
        limits: Limits,
        driver: QDriver,
        qmmu: QMMU,
        network: NetworkProcess,
        processes: Mapping[int, UserProcess],
        services: Callable[[UserProcess], ProcessServices],
        record: Record,
        finished: Callable[[UserProcess, PendingSubroutine], None],
        abort: Callable[[UserProcess, QNodeOSError, int | None], None],
        check_wait: Callable[[UserProcess], None],
    ) -> None:
        self._scheduler = scheduler
        self._policy = scheduler.policy
        self._flavour = flavour
        self._limits = limits
        self._driver = driver
        self._qmmu = qmmu
        self._network = network
        self._processes = processes
        self._services = services
        self._record = record
        self._finished = finished
        self._abort = abort
        self._check_wait = check_wait
        self._blocks = BlockDurations()
        self._tick = 0
        self._resume_tick = 0
        self._release_tick = 0
        self._device_busy = self._block_is_begun = self._is_measuring = False
        self._compiled = 0
        self.running: Process | None = None
        self.in_flight: Process | None = None
        self.instructions = 0
        self.qubit_queue = QubitQueue()

    # --- ready processes --------------------------------------------------------------

    def ready(self, process: Process, event: ProcessEvent, tick: int) -> None:
        """A process has something to do."""
        process.handle(event)
        prepared_tick = None
        if isinstance(process, UserProcess):
            process.expected_ticks = self._blocks.expected(process)
            if process.current is None:
                prepared_tick = process.pending[0].prepared_tick
        self._scheduler.arrive(process, tick, prepared_tick)
        arrived = (
            Event.SCHEDULER_ARRIVE_NET_PROCESS
            if process.is_network
            else Event.SCHEDULER_ARRIVE_USER_PROCESS
        )
        self._record(tick, arrived, process.pid)
        if self.running is not None and process.priority > self.running.priority:
            self._record(tick, Event.SCHEDULER_HIGH_PRIO_PROCESS_WAITS_ON_LOWER_PRIO, process.pid)

    def drop(self, process: UserProcess, *, tick: int, has_ended: bool) -> None:
        """A process has lost its work, wherever it was; its state is the caller's to change."""
        if process.state is ProcessState.READY:
            self._scheduler.withdraw(process)
        if self.running is process:
            self.running = None
            if not has_ended:
                self._record(tick, Event.PROCESSOR_FINISH_USER_PROCESS, process.pid)
        if self.in_flight is process:
            self.in_flight = None  # its outcome will be nobody's
        self.qubit_queue.leave(process.pid)

    def wait_for_qubit(self, process: UserProcess) -> None:
        """Wake a process when a physical qubit becomes free."""
        self.qubit_queue.join(process.pid, process.priority)

    def _wake_qubit_waiters(self) -> None:
        queue = self.qubit_queue
        while queue and queue.may_wake(len(self._qmmu.free_qubits())):
            process = self._processes[queue.wake()]
            if process.state is ProcessState.WAITING:
                self.ready(process, ProcessEvent.WOKEN, self._tick)
            else:
                queue.leave(process.pid)

    # --- time -------------------------------------------------------------------------

    def run(self, tick: int) -> PhysicalInstruction | None:
        """Go on until the device has to do something, which is returned, or nobody can run."""
        self._tick = tick
        self._wake_qubit_waiters()
        self._compiled = 0
        # Compiling is work too: after much of it the rest waits for the next tick.
        while not self._device_busy and self._compiled <= self._limits.instructions_per_tick:
            process = self.running
            if process is None:
                process = self._dispatch()
                if process is None:
                    return None
            if tick < self._resume_tick:
                return None
            instruction = self._advance(process)
            if instruction is not None:
                self._device_busy = self._block_is_begun = True
                self._is_measuring = instruction.opcode is Opcode.MSR
                self.in_flight = process
                self.instructions += 1
                event = PRODUCE_EVENT[instruction.opcode]
                self._record(tick, event, process.pid, instruction.argument)
                return instruction
        return None

    def next_tick(self, tick: int) -> int | None:
        """The next tick at which `run` has something to do if nothing happens before."""
        if self.qubit_queue.may_wake(len(self._qmmu.free_qubits())):
            return tick + 1
        if self._device_busy:
            return None
        if self.running is not None:
            return self._resume_tick
        return self._scheduler.next_tick(tick) if self._scheduler else None

    def consume(self, outcome: Outcome, herald: BellState | None, tick: int) -> None:
        """Take the device's outcome."""
        self._tick = tick
        self._device_busy = False
        process, self.in_flight = self.in_flight, None
        pid = process.pid if process is not None else NETWORK_PID
        self._record(tick, Event.PROCESSOR_CONSUME_OUTCOME, pid, outcome)
        if process is self._network:
            self._after_network(self._network.consume(outcome, herald, tick))
        elif isinstance(process, UserProcess):
            execution = process.execution
            if not outcome.is_success:
                error = DeviceFailureError(
                    f"the device answered {outcome.name} to a physical instruction of process {pid}"
                )
                self._abort(process, error, max(execution.pc - 1, 0))
            elif execution.result_register is not None and self._is_measuring:
                process.memory.registers[execution.result_register] = int(
                    outcome is Outcome.SUCCESS_ONE
                )
                execution.result_register = None

    # --- who runs ---------------------------------------------------------------------

    def _dispatch(self) -> Process | None:
        tick = self._tick
        if self._scheduler:  # whoever runs now might take the qubit that was freed just now
            self._wake_qubit_waiters()
        process = self._scheduler.choose(tick, self._network_tick())
        if process is None:
            return None
        process.handle(ProcessEvent.DISPATCHED)
        self.running = process
        if isinstance(process, UserProcess):
            self.qubit_queue.leave(process.pid)
            self._resume_tick = self._scheduler.start_tick(process, tick)
            self._blocks.begin(process, self._resume_tick)
            self._block_is_begun = False
            self._release_tick = self._resume_tick + self._limits.activation_ticks
            process.execution.renew_budget()
            self._record(tick, Event.SCHEDULER_SCHEDULE_USER_PROCESS, process.pid)
            self._record(tick, Event.PROCESSOR_START_USER_PROCESS, process.pid)
        else:
            self._resume_tick = tick
            self._record(tick, Event.SCHEDULER_SCHEDULE_NET_PROCESS, process.pid)
            self._record(tick, Event.PROCESSOR_START_NET_PROCESS, process.pid)
        return process

    def _network_tick(self) -> int | None:
        """When the network process will want the QNPU, for policies that spare its bins."""
        if not self._policy.spares_bins:
            return None
        if self._network.state is ProcessState.IDLE:
            return self._network.next_due(self._tick)
        return self._tick  # it has a heralded qubit, and waits for the announcement

    def should_pause(self, process: UserProcess, pc: int) -> bool:
        """Whether a process is to give way before an instruction, if it holds no qubit.

        Only between two blocks that used the device, so that pausing makes a difference.
        """
        policy, tick = self._policy, self._tick
        if not policy.spares_bins or process.qubit_tick is not None or not self._block_is_begun:
            return False
        self._blocks.end(tick)
        process.expected_ticks = self._blocks.expected(process, pc)
        if self._scheduler.prefers_another(process) or not policy.may_start(
            process, tick, self._network_tick()
        ):
            return True
        self._blocks.begin(process, tick, pc)
        self._block_is_begun = False
        return False

    # --- what runs --------------------------------------------------------------------

    def _advance(self, process: Process) -> PhysicalInstruction | None:
        """Run the running process until it needs the device, waits, ends or yields."""
        if not isinstance(process, UserProcess):
            if not self._network.queue:
                self._after_network(self._network.run(self._tick))
            return self._network.queue.pop(0) if self._network.queue else None
        execution = process.execution
        if not execution.queue:
            try:
                if process.current is None:
                    self._begin(process)
                elif self._tick > self._release_tick:
                    raise SubroutineFault(execution.pc, self._held_too_long())
                code = execution.run()
            except SubroutineFault as fault:
                self._abort(process, fault.error, fault.pc)
                return None
            except QNodeOSError as error:
                self._abort(process, error, None)
                return None
            self._after_user(process, code)
        return execution.queue.pop(0) if execution.queue else None

    def _held_too_long(self) -> InstructionBudgetError:
        return InstructionBudgetError(
            f"the subroutine held the QNPU for more than activation_ticks="
            f"{self._limits.activation_ticks} ticks without a wait; is a loop endless?"
        )

    def _begin(self, process: UserProcess) -> None:
        process.current = process.pending.popleft()
        body = process.current.body
        operations = process.compiled.get(body)
        if operations is None:
            operations = self._compile(process, body)
        process.execution.start(operations)

    def _compile(self, process: UserProcess, body: bytes) -> list[Operation]:
        self._compiled += len(body) // INSTRUCTION_BYTES
        instructions = decode_subroutine(body, self._flavour)
        context = CompileContext(
            process.memory,
            process.execution,
            self._services(process),
            self._driver,
            len(instructions),
            instructions,
        )
        operations = compile_subroutine(instructions, context)
        process.compiled_bytes += len(body)
        while process.compiled and (
            len(process.compiled) >= self._limits.compiled_subroutines
            or process.compiled_bytes > self._limits.compiled_bytes
        ):
            oldest = next(iter(process.compiled))
            del process.compiled[oldest]
            process.compiled_bytes -= len(oldest)
        process.compiled[body] = operations
        return operations

    def _after_user(self, process: UserProcess, code: int) -> None:
        tick = self._tick
        if code == DEVICE:
            return
        if code == FINISHED:
            self._blocks.end(tick)
            self._finish(process)
        elif code == WAIT:
            self._blocks.end(tick)
            if process.pid not in self.qubit_queue:
                try:
                    self._check_wait(process)
                except CallerError as error:
                    self._abort(process, error, process.execution.pc)
                    return
            process.handle(ProcessEvent.BLOCKED)
            self.running = None
            self._record(tick, Event.PROCESSOR_WAIT_USER_PROCESS, process.pid)
        elif code == PAUSE:
            process.handle(ProcessEvent.PAUSED)
            self.running = None
            self._scheduler.pause(process, tick)
            self._record(tick, Event.PROCESSOR_WAIT_USER_PROCESS, process.pid)
            self._record(tick, Event.SCHEDULER_ARRIVE_USER_PROCESS, process.pid)
        else:  # YIELD: go on at the next tick
            self._resume_tick = tick + 1

    def _finish(self, process: UserProcess) -> None:
        done = process.current
        assert done is not None
        self._finished(process, done)
        process.current = None
        self.running = None
        process.handle(ProcessEvent.WORK_DONE)
        self._record(self._tick, Event.PROCESSOR_FINISH_USER_PROCESS, process.pid)
        self._record(self._tick, Event.PROCMGR_SUBROUTINE_DONE, process.pid, done.serial)
        if process.pending:
            self.ready(process, ProcessEvent.WORK_ARRIVED, self._tick)

    def _after_network(self, code: int) -> None:
        if code == FINISHED:
            self.running = None
            self._network.handle(ProcessEvent.WORK_DONE)
            self._record(self._tick, Event.PROCESSOR_FINISH_NET_PROCESS, NETWORK_PID)
        elif code == WAIT:
            self.running = None
            self._network.handle(ProcessEvent.BLOCKED)
