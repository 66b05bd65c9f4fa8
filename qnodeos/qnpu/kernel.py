"""The QNPU kernel: process manager, scheduler, processor and network stack behind one front.

    host_message, client_closed, peer_message    what arrives between ticks
    tick                                         once per tick (or only at the ticks that
                                                 `next_tick` names, if time is virtual)
    host_outbox, peer_outbox                     what has to be sent; the caller empties them

Everything that happens is recorded in the trace under the names of the real system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from qnodeos.api.host import (
    ErrorReport,
    HostReply,
    InitApp,
    OpenErSocket,
    StopApp,
    SubmitSubroutine,
    decode_host_message,
)
from qnodeos.api.netqasm import Flavour
from qnodeos.api.peer import Announce, PeerMessage
from qnodeos.errors import (
    DeviceFailureError,
    QNodeOSError,
    UnknownProcessError,
)
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.compiler import compile_subroutine
from qnodeos.qnpu.context import CompileContext
from qnodeos.qnpu.decoder import check_version, decode_subroutine
from qnodeos.qnpu.entanglement import EntanglementManager, Pair, UserRequest
from qnodeos.qnpu.execution import DEVICE, FINISHED, WAIT, Operation, SubroutineFault
from qnodeos.qnpu.link_layer import LinkLayer
from qnodeos.qnpu.network_process import NetworkProcess
from qnodeos.qnpu.process import (
    NETWORK_PID,
    Process,
    ProcessEvent,
    ProcessState,
    UserProcess,
)
from qnodeos.qnpu.process_manager import ProcessManager
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.requests import parse_create_arguments
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.qnpu.scheduler import PriorityFcfs, Scheduler, SchedulingPolicy
from qnodeos.trace.events import PRODUCE_EVENT, Event

_MESSAGE_OVERHEAD_BYTES: Final = 16


class Trace(Protocol):
    """Where events go."""

    def record(self, time: int, event: int, process: int = 0, detail: int = 0) -> None:
        """Keep one event."""
        ...


@dataclass(frozen=True)
class KernelConfig:
    """What distinguishes one node's kernel from another's.

    Attributes:
        node_id: number of this node.
        flavour: NetQASM flavour its device speaks.
        peers: node ids of its neighbours, and the device's link to each.
        dispatch_ticks: ticks between choosing a user process and its first instruction.
            Zero unless a slower QNPU is to be modelled.
        limits: all bounds.
    """

    node_id: int
    flavour: Flavour
    peers: Mapping[int, int]
    dispatch_ticks: int = 0
    limits: Limits = Limits()


class Kernel:
    """See the module's docstring.

    Args:
        config: of this node.
        driver: the QDriver of its device.
        trace: takes every event.
        random_choice: returns a random integer below its argument (random bases).
        policy: who runs next; the paper's `PriorityFcfs` if not given.
    """

    def __init__(
        self,
        config: KernelConfig,
        driver: QDriver,
        trace: Trace,
        random_choice: Callable[[int], int],
        policy: SchedulingPolicy | None = None,
    ) -> None:
        self._config = config
        self._limits = config.limits
        self._driver = driver
        self._record = trace.record
        self._tick = 0
        self.qmmu = QMMU(driver.capabilities)
        self.scheduler = Scheduler(policy if policy is not None else PriorityFcfs())
        self.entanglement = EntanglementManager(
            self.qmmu, config.limits, driver.capabilities.tick_ns, config.peers, self._delivered
        )
        self.host_outbox: list[HostReply] = []
        self.peer_outbox: list[tuple[int, PeerMessage]] = []
        self.link_layer = LinkLayer(
            config.node_id,
            config.peers,
            self.entanglement,
            config.limits,
            self._send_peer,
            self.abort,
            lambda: self.network.start_bin(self._tick),
        )
        self.network = NetworkProcess(
            peers=dict(config.peers),
            driver=driver,
            qmmu=self.qmmu,
            entanglement=self.entanglement,
            link_layer=self.link_layer,
            limits=config.limits,
            random_choice=random_choice,
            record=trace.record,
            fault=self.abort,
        )
        self._manager = ProcessManager(config.limits)
        self.processes = self._manager.processes
        self._running: Process | None = None
        self._resume_tick = 0
        self._in_flight: Process | None = None
        self._device_busy = False
        self._qubit_waiters: set[int] = set()

    def install_schedule(self, schedule: NetworkSchedule) -> None:
        """Use a network schedule from now on."""
        self.network.install(schedule)

    # --- the host ---------------------------------------------------------------------

    def host_message(self, client: int, request: int, raw: bytes, tick: int) -> None:
        """Take a message of a CNPU; exactly one reply to it will appear in the outbox.

        Args:
            client: the connection it came over; programs are known per connection.
            request: the sender's number for it, returned in the reply.
            raw: the NetQASM SDK's bytes.
            tick: now.
        """
        self._tick = tick
        try:
            max_bytes = self._limits.subroutine_bytes + _MESSAGE_OVERHEAD_BYTES
            message = decode_host_message(raw, max_bytes=max_bytes)
            match message:
                case SubmitSubroutine(app_id, version, body):
                    check_version(version)
                    self._submit(client, request, app_id, body)
                    return
                case InitApp(app_id, max_qubits):
                    self._manager.register((client, app_id), max_qubits)
                case OpenErSocket(app_id):
                    socket = self.entanglement.open_socket(
                        self._manager.find((client, app_id)),
                        message.socket_id,
                        message.remote_node_id,
                        message.remote_socket_id,
                        message.min_fidelity,
                    )
                    self.link_layer.socket_opened(socket)
                case StopApp(app_id):
                    self._stop_app(client, app_id)
                case _:
                    pass  # Signal: not ours to obey, other programs share this QNPU
        except QNodeOSError as error:
            self.host_outbox.append(HostReply(client, request, error=_report(error)))
        else:
            self.host_outbox.append(HostReply(client, request))

    def client_closed(self, client: int, tick: int) -> None:
        """A CNPU's connection has ended: so do its programs."""
        self._tick = tick
        for process in self._manager.of_client(client):
            self._end(process, UnknownProcessError("the connection to the program was closed"))
        self._manager.forget_client(client)

    def _submit(self, client: int, request: int, app_id: int, body: bytes) -> None:
        process = self._manager.find((client, app_id))
        subroutine = self._manager.queue_subroutine(process, client, request, body)
        self._record(self._tick, Event.PROCMGR_SUBROUTINE_ADDED, process.pid, subroutine.serial)
        if process.state is ProcessState.IDLE:
            self._ready(process, ProcessEvent.WORK_ARRIVED)

    def _stop_app(self, client: int, app_id: int) -> None:
        owner = client, app_id
        if not self._manager.clear_epitaph(owner):
            self._end(self._manager.find(owner), UnknownProcessError("the program was stopped"))

    # --- the end of a process ---------------------------------------------------------

    def abort(self, process: UserProcess, error: QNodeOSError, pc: int | None = None) -> None:
        """End a process because of an error, which every reply it still owes will carry.

        What befalls an entanglement request of a process that has ended meanwhile is
        nobody's error any more.
        """
        if process.state is ProcessState.ENDED:
            return
        self._manager.write_epitaph(process, error)
        self._end(process, error, pc)

    def _end(self, process: UserProcess, error: QNodeOSError, pc: int | None = None) -> None:
        """Free everything a process holds, answer what it owes, and forget it."""
        if process.state is ProcessState.READY:
            self.scheduler.withdraw(process)
        if self._running is process:
            self._running = None
        if self._in_flight is process:
            self._in_flight = None  # its outcome will be nobody's
        process.handle(ProcessEvent.STOPPED)
        owed = [process.current] if process.current is not None else []
        for subroutine in [*owed, *process.pending]:
            self._record(
                self._tick, Event.PROCMGR_SUBROUTINE_ABORTED, process.pid, subroutine.serial
            )
            self.host_outbox.append(
                HostReply(
                    subroutine.client,
                    subroutine.request,
                    error=_report(error, subroutine.serial, pc),
                    serial=subroutine.serial,
                )
            )
            pc = None  # only the current subroutine is at fault
        process.current = None
        process.pending.clear()
        self._manager.remove(process)
        self._qubit_waiters.discard(process.pid)
        self.link_layer.sockets_closed(self.entanglement.close_process(process.pid))
        self.qmmu.free_all(process.pid)
        if self.network.state is ProcessState.WAITING:
            self._ready(self.network, ProcessEvent.WOKEN)

    # --- the peers --------------------------------------------------------------------

    def peer_message(self, peer: int, message: PeerMessage, tick: int) -> None:
        """Take a message of another QNPU.

        Raises:
            PeerProtocolError: it comes from no neighbour.
        """
        self._tick = tick
        self.link_layer.receive(peer, message)
        if isinstance(message, Announce):
            self.network.on_announcement(peer)
        if self.network.state is ProcessState.WAITING:
            self._ready(self.network, ProcessEvent.WOKEN)

    def _send_peer(self, peer: int, message: PeerMessage) -> None:
        self.peer_outbox.append((peer, message))

    def _delivered(self, process: UserProcess, pair: Pair) -> None:
        self._record(self._tick, Event.QNP_BQ_DELIVERED, process.pid, pair.sequence)
        if process.state is ProcessState.WAITING:
            self._ready(process, ProcessEvent.WOKEN)

    # --- time -------------------------------------------------------------------------

    def tick(
        self, tick: int, outcome: Outcome | None = None, herald: BellState | None = None
    ) -> PhysicalInstruction | None:
        """Do what is due at a tick.

        Args:
            tick: now; never smaller than at any earlier call.
            outcome: the device's answer to the instruction returned last, if it came.
            herald: the Bell state heralded, with the outcome of an ENM.

        Returns:
            The physical instruction to send, None for none. There is at most one
            outstanding: none is returned before the outcome of the last has come.
        """
        self._tick = tick
        if outcome is not None:
            self._consume(outcome, herald)
        deadline = self.link_layer.deadline_tick
        if deadline is not None and tick >= deadline:
            self.link_layer.expire(tick)
        self._advance_network()
        if self._qubit_waiters and self.qmmu.free_qubits():
            self._wake_qubit_waiters()
        while not self._device_busy:
            process = self._running
            if process is None:
                process = self._dispatch()
                if process is None:
                    return None
            if tick < self._resume_tick:
                return None
            instruction = self._advance(process)
            if instruction is not None:
                self._device_busy = True
                self._in_flight = process
                self._record(
                    tick, PRODUCE_EVENT[instruction.opcode], process.pid, instruction.argument
                )
                return instruction
        return None

    def next_tick(self, tick: int) -> int | None:
        """The next tick at which `tick` has something to do if nothing arrives before."""
        if self._qubit_waiters and self.qmmu.free_qubits():
            return tick + 1
        soonest = self.link_layer.deadline_tick
        due = None
        if self.network.state is ProcessState.IDLE:
            due = self.network.next_due(tick)
        elif self.network.state is ProcessState.WAITING:
            due = self.network.timeout_tick()
        if due is not None and (soonest is None or due < soonest):
            soonest = due
        if not self._device_busy:
            if self._running is not None:
                soonest = min(self._resume_tick, soonest or self._resume_tick)
            elif self.scheduler.ready:
                soonest = tick + 1
        return soonest if soonest is None else max(soonest, tick + 1)

    def _advance_network(self) -> None:
        network = self.network
        if network.state is ProcessState.IDLE:
            if network.is_due(self._tick):
                self._ready(network, ProcessEvent.WORK_ARRIVED)
        elif network.state is ProcessState.WAITING:
            timeout = network.timeout_tick()
            if timeout is not None and self._tick >= timeout:
                self._ready(network, ProcessEvent.WOKEN)

    def _wake_qubit_waiters(self) -> None:
        waiters, self._qubit_waiters = self._qubit_waiters, set()
        for pid in sorted(waiters):
            process = self.processes[pid]
            if process.state is ProcessState.WAITING:
                self._ready(process, ProcessEvent.WOKEN)

    # --- scheduling -------------------------------------------------------------------

    def _ready(self, process: Process, event: ProcessEvent) -> None:
        process.handle(event)
        self.scheduler.arrive(process)
        arrived = (
            Event.SCHEDULER_ARRIVE_NET_PROCESS
            if process.is_network
            else Event.SCHEDULER_ARRIVE_USER_PROCESS
        )
        self._record(self._tick, arrived, process.pid)
        if self._running is not None and process.priority > self._running.priority:
            self._record(
                self._tick, Event.SCHEDULER_HIGH_PRIO_PROCESS_WAITS_ON_LOWER_PRIO, process.pid
            )

    def _dispatch(self) -> Process | None:
        process = self.scheduler.choose(self._tick)
        if process is None:
            return None
        process.handle(ProcessEvent.DISPATCHED)
        self._running = process
        if isinstance(process, UserProcess):
            self._resume_tick = self._tick + self._config.dispatch_ticks
            process.execution.renew_budget()
            self._record(self._tick, Event.SCHEDULER_SCHEDULE_USER_PROCESS, process.pid)
            self._record(self._tick, Event.PROCESSOR_START_USER_PROCESS, process.pid)
        else:
            self._resume_tick = self._tick
            self._record(self._tick, Event.SCHEDULER_SCHEDULE_NET_PROCESS, process.pid)
            self._record(self._tick, Event.PROCESSOR_START_NET_PROCESS, process.pid)
        return process

    # --- the processor ----------------------------------------------------------------

    def _advance(self, process: Process) -> PhysicalInstruction | None:
        """Run the running process until it needs the device, waits, ends or yields."""
        if not isinstance(process, UserProcess):
            if not self.network.queue:
                self._after_network(self.network.run(self._tick))
            return self.network.queue.pop(0) if self.network.queue else None
        execution = process.execution
        if not execution.queue:
            try:
                if process.current is None:
                    self._begin(process)
                code = execution.run()
            except SubroutineFault as fault:
                self.abort(process, fault.error, fault.pc)
                return None
            except QNodeOSError as error:
                self.abort(process, error)
                return None
            self._after_user(process, code)
        return execution.queue.pop(0) if execution.queue else None

    def _begin(self, process: UserProcess) -> None:
        process.current = process.pending.popleft()
        body = process.current.body
        operations = process.compiled.get(body)
        if operations is None:
            operations = self._compile(process, body)
        process.execution.start(operations)

    def _compile(self, process: UserProcess, body: bytes) -> list[Operation]:
        instructions = decode_subroutine(body, self._config.flavour)
        context = CompileContext(
            process.memory,
            process.execution,
            _Services(self, process),
            self._driver,
            len(instructions),
        )
        operations = compile_subroutine(instructions, context)
        while len(process.compiled) >= self._limits.compiled_subroutines:
            del process.compiled[next(iter(process.compiled))]
        process.compiled[body] = operations
        return operations

    def _after_user(self, process: UserProcess, code: int) -> None:
        if code == DEVICE:
            return
        if code == FINISHED:
            self._finish(process)
        elif code == WAIT:
            process.handle(ProcessEvent.BLOCKED)
            self._running = None
            self._record(self._tick, Event.PROCESSOR_WAIT_USER_PROCESS, process.pid)
        else:  # YIELD: go on at the next tick
            self._resume_tick = self._tick + 1

    def _finish(self, process: UserProcess) -> None:
        done = process.current
        assert done is not None
        self.host_outbox.append(
            HostReply(
                done.client, done.request, tuple(process.execution.results), serial=done.serial
            )
        )
        process.current = None
        self._running = None
        process.handle(ProcessEvent.WORK_DONE)
        self._record(self._tick, Event.PROCESSOR_FINISH_USER_PROCESS, process.pid)
        self._record(self._tick, Event.PROCMGR_SUBROUTINE_DONE, process.pid, done.serial)
        if process.pending:
            self._ready(process, ProcessEvent.WORK_ARRIVED)

    def _after_network(self, code: int) -> None:
        if code == FINISHED:
            self._running = None
            self.network.handle(ProcessEvent.WORK_DONE)
            self._record(self._tick, Event.PROCESSOR_FINISH_NET_PROCESS, NETWORK_PID)
        elif code == WAIT:
            self._running = None
            self.network.handle(ProcessEvent.BLOCKED)

    def _consume(self, outcome: Outcome, herald: BellState | None) -> None:
        self._device_busy = False
        process, self._in_flight = self._in_flight, None
        self._record(
            self._tick,
            Event.PROCESSOR_CONSUME_OUTCOME,
            process.pid if process is not None else NETWORK_PID,
            outcome,
        )
        if process is self.network:
            self._after_network(self.network.consume(outcome, herald, self._tick))
        elif isinstance(process, UserProcess):
            execution = process.execution
            if not outcome.is_success:
                self.abort(
                    process,
                    DeviceFailureError(
                        f"the device answered {outcome.name} to a physical instruction of "
                        f"process {process.pid}"
                    ),
                    max(execution.pc - 1, 0),
                )
            elif execution.result_register is not None and not execution.queue:
                process.memory.registers[execution.result_register] = int(
                    outcome is Outcome.SUCCESS_ONE
                )
                execution.result_register = None

    # --- services for subroutines -----------------------------------------------------

    def offer(self, request: UserRequest) -> None:
        """Offer a new create request to its peer."""
        self._record(self._tick, Event.EGPD_CREATE, request.socket.process.pid, request.create_id)
        self.link_layer.offer(request, self.network.start_bin(self._tick), self._tick)

    def wait_for_qubit(self, process: UserProcess) -> None:
        """Wake a process when a physical qubit becomes free."""
        self._qubit_waiters.add(process.pid)

    @property
    def limits(self) -> Limits:
        """All bounds."""
        return self._limits

    @property
    def now(self) -> int:
        """The tick of the call being served."""
        return self._tick


class _Services:
    """What the subroutines of one process may ask of the kernel."""

    __slots__ = ("_kernel", "_pid", "_process", "is_expected", "physical")

    def __init__(self, kernel: Kernel, process: UserProcess) -> None:
        self._kernel = kernel
        self._process = process
        pid = self._pid = process.pid
        lookup, expected = kernel.qmmu.physical, kernel.entanglement.is_expected
        self.physical: Callable[[int], int | None] = lambda virtual: lookup(pid, virtual)
        self.is_expected: Callable[[int], bool] = lambda virtual: expected(pid, virtual)

    def allocate(self, virtual: int) -> bool:
        physical = self._kernel.qmmu.allocate(self._pid, virtual, self._process.max_qubits)
        if physical is None:
            self._kernel.wait_for_qubit(self._process)
        return physical is not None

    def free(self, virtual: int) -> None:
        self._kernel.qmmu.free(self._pid, virtual)

    def create_entanglement(
        self,
        remote_node: int,
        socket_id: int,
        qubits: Sequence[int | None],
        arguments: Sequence[int | None],
        results: int,
    ) -> None:
        kernel = self._kernel
        parsed = parse_create_arguments(arguments, kernel.limits)
        request = kernel.entanglement.create(
            self._process, remote_node, socket_id, qubits, parsed, results, kernel.now
        )
        kernel.offer(request)

    def receive_entanglement(
        self, remote_node: int, socket_id: int, qubits: Sequence[int | None] | None, results: int
    ) -> None:
        self._kernel.entanglement.receive(
            self._process, remote_node, socket_id, qubits, results, self._kernel.now
        )

    def is_result_pending(self, address: int) -> bool:
        return self._kernel.entanglement.is_result_pending(self._pid, address)


def _report(error: QNodeOSError, serial: int | None = None, pc: int | None = None) -> ErrorReport:
    return ErrorReport(error.code, type(error).__name__, str(error), serial, pc)
