"""The programs of hosts: what is asked for them, and how they end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from qnodeos.api.host import InitApp, OpenErSocket, StopApp, SubmitSubroutine, decode_host_message
from qnodeos.errors import CancelledError, QNodeOSError, UnknownProcessError, UnknownSubroutineError
from qnodeos.limits import Limits
from qnodeos.qnpu.decoder import check_version
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.link_layer import LinkLayer
from qnodeos.qnpu.network_layer import NetworkLayer
from qnodeos.qnpu.process import ProcessEvent, ProcessState, UserProcess
from qnodeos.qnpu.process_manager import ProcessManager
from qnodeos.qnpu.processor import Processor
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.replies import Replies
from qnodeos.qnpu.scheduler import Scheduler
from qnodeos.trace.events import Event

_MESSAGE_OVERHEAD_BYTES: Final = 16


class Programs:
    """Does what hosts ask, and tells all parts of the kernel when a program ends.

    Args:
        limits: all bounds.
        manager: knows which programs there are.
        processor, scheduler: run their processes.
        qmmu, entanglement, link_layer, network_layer: hold what belongs to them.
        replies: to hosts.
        record: of the trace.
        withdrawn: called when requests for entanglement have been withdrawn.
    """

    def __init__(
        self,
        *,
        limits: Limits,
        manager: ProcessManager,
        processor: Processor,
        scheduler: Scheduler,
        qmmu: QMMU,
        entanglement: EntanglementManager,
        link_layer: LinkLayer,
        network_layer: NetworkLayer,
        replies: Replies,
        record: Callable[[int, int, int, int], None],
        withdrawn: Callable[[], None],
    ) -> None:
        self._max_bytes = limits.subroutine_bytes + _MESSAGE_OVERHEAD_BYTES
        self._manager = manager
        self._processor = processor
        self._scheduler = scheduler
        self._qmmu = qmmu
        self._entanglement = entanglement
        self._link_layer = link_layer
        self._network_layer = network_layer
        self._replies = replies
        self._record = record
        self._withdrawn = withdrawn

    # --- what hosts ask ---------------------------------------------------------------

    def host_message(self, client: int, request: int, raw: bytes, tick: int) -> None:
        """See `qnodeos.qnpu.kernel.Kernel.host_message`."""
        try:
            message = decode_host_message(raw, max_bytes=self._max_bytes)
            match message:
                case SubmitSubroutine(app_id, version, body):
                    check_version(version)
                    self._submit(client, request, app_id, body, tick)
                    return
                case InitApp(app_id, max_qubits):
                    self._manager.register((client, app_id), max_qubits)
                case OpenErSocket(app_id):
                    socket = self._entanglement.open_socket(
                        self._manager.find((client, app_id)),
                        message.socket_id,
                        message.remote_node_id,
                        message.remote_socket_id,
                        message.min_fidelity,
                    )
                    self._link_layer.socket_opened(socket)
                    self._network_layer.socket_opened(socket)
                case StopApp(app_id):
                    self._stop_app(client, app_id, tick)
                case _:
                    pass  # Signal: not ours to obey, other programs share this QNPU
        except QNodeOSError as error:
            self._replies.acknowledge(client, request, error)
        else:
            self._replies.acknowledge(client, request)

    def register(
        self, client: int, request: int, app_id: int, max_qubits: int, priority: int
    ) -> None:
        """See `qnodeos.qnpu.kernel.Kernel.register`."""
        try:
            self._manager.register((client, app_id), max_qubits, priority)
        except QNodeOSError as error:
            self._replies.acknowledge(client, request, error)
        else:
            self._replies.acknowledge(client, request)

    def cancel(self, client: int, request: int, target: int, tick: int) -> None:
        """See `qnodeos.qnpu.kernel.Kernel.cancel`."""
        found = self._manager.find_subroutine(client, target)
        if found is None:
            unknown = UnknownSubroutineError(
                f"request {target} of this connection is no subroutine that waits or runs; it "
                "may just have ended"
            )
            self._replies.acknowledge(client, request, unknown)
            return
        process, subroutine = found
        if subroutine is process.current:
            forgotten = self._entanglement.forget(process.pid, subroutine.serial)
            self._link_layer.withdraw(forgotten)
            self._network_layer.withdraw(forgotten)
            self._withdrawn()
            process.current = None
            process.execution.discard()
            self._lose_work(process, tick)
        else:
            was_next = process.current is None and process.pending[0] is subroutine
            process.pending.remove(subroutine)
            if was_next:  # what it was chosen or is ready for; it queues anew with the following
                self._lose_work(process, tick)
        error = CancelledError("the subroutine was cancelled")
        self._replies.fail(process, subroutine, error, tick)
        if process.pending and process.state is ProcessState.IDLE:
            self._processor.ready(process, ProcessEvent.WORK_ARRIVED, tick)
        self._replies.acknowledge(client, request)

    def _lose_work(self, process: UserProcess, tick: int) -> None:
        """What a process was about has been taken from it."""
        self._processor.drop(process, tick=tick, has_ended=False)
        process.handle(ProcessEvent.CANCELLED)

    def client_closed(self, client: int, tick: int) -> None:
        """See `qnodeos.qnpu.kernel.Kernel.client_closed`."""
        for process in self._manager.of_client(client):
            error = UnknownProcessError("the connection to the program was closed")
            self._end(process, error, tick)
        self._manager.forget_client(client)

    def _submit(self, client: int, request: int, app_id: int, body: bytes, tick: int) -> None:
        process = self._manager.find((client, app_id))
        subroutine = self._manager.queue_subroutine(
            process, client, request, body, lambda: self._prepare(process, tick)
        )
        self._record(tick, Event.PROCMGR_SUBROUTINE_ADDED, process.pid, subroutine.serial)
        if process.state is ProcessState.IDLE:
            self._processor.ready(process, ProcessEvent.WORK_ARRIVED, tick)

    def _prepare(self, process: UserProcess, tick: int) -> int | None:
        scheduler = self._scheduler
        if not scheduler.policy.prepares_ahead or process.state is ProcessState.IDLE:
            return None  # an idle process is prepared as it becomes ready
        return scheduler.prepare(tick, urgent=process.qubit_tick is not None)

    def _stop_app(self, client: int, app_id: int, tick: int) -> None:
        owner = client, app_id
        if self._manager.stop_dead(owner):
            return
        process = self._manager.find(owner)
        neglected = self._entanglement.neglected(process.pid)
        self._end(process, UnknownProcessError("the program was stopped"), tick)
        if neglected is not None:
            raise neglected

    # --- the end of a program ---------------------------------------------------------

    def abort(self, process: UserProcess, error: QNodeOSError, pc: int | None, tick: int) -> None:
        """See `qnodeos.qnpu.kernel.Kernel.abort`."""
        if process.state is ProcessState.ENDED:
            return
        self._manager.write_epitaph(process, error)
        self._end(process, error, tick, pc)

    def _end(
        self, process: UserProcess, error: QNodeOSError, tick: int, pc: int | None = None
    ) -> None:
        """Free everything a process holds, answer what it owes, and forget it."""
        self._processor.drop(process, tick=tick, has_ended=True)
        process.handle(ProcessEvent.STOPPED)
        owed = [process.current] if process.current is not None else []
        for subroutine in [*owed, *process.pending]:
            self._replies.fail(process, subroutine, error, tick, pc)
            pc = None  # only the current subroutine is at fault
        process.current = None
        process.pending.clear()
        self._manager.remove(process)
        closed = self._entanglement.close_process(process.pid)
        self._link_layer.sockets_closed(closed)
        self._network_layer.sockets_closed(closed)
        self._qmmu.free_all(process.pid)
        self._withdrawn()
