"""What the subroutines of one process may ask of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from qnodeos.limits import Limits
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.er_sockets import UserRequest
from qnodeos.qnpu.process import UserProcess
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.requests import parse_create_arguments


class ServingKernel(Protocol):
    """The kernel, as far as subroutines go."""

    qmmu: QMMU
    entanglement: EntanglementManager

    @property
    def limits(self) -> Limits:
        """All bounds."""
        ...

    @property
    def now(self) -> int:
        """The tick of the call being served."""
        ...

    def offer(self, request: UserRequest) -> None:
        """Offer a new create request to its peer."""
        ...

    def wait_for_qubit(self, process: UserProcess) -> None:
        """Wake a process when a physical qubit becomes free."""
        ...

    def should_pause(self, process: UserProcess, pc: int) -> bool:
        """Whether a process is to give way before an instruction, if it holds no qubit."""
        ...


class Services:
    """Implements `qnodeos.qnpu.context.ProcessServices` for one process."""

    __slots__ = ("_kernel", "_pid", "_process", "is_expected", "physical")

    def __init__(self, kernel: ServingKernel, process: UserProcess) -> None:
        self._kernel = kernel
        self._process = process
        pid = self._pid = process.pid
        lookup, expected = kernel.qmmu.physical, kernel.entanglement.is_expected
        self.physical: Callable[[int], int | None] = lambda virtual: lookup(pid, virtual)
        self.is_expected: Callable[[int], bool] = lambda virtual: expected(pid, virtual)

    def should_pause(self, pc: int) -> bool:
        """See `qnodeos.qnpu.context.ProcessServices`."""
        return self._kernel.should_pause(self._process, pc)

    def allocate(self, virtual: int) -> bool:
        """See `qnodeos.qnpu.context.ProcessServices`."""
        kernel, process = self._kernel, self._process
        if kernel.qmmu.allocate(self._pid, virtual, process.max_qubits) is None:
            kernel.wait_for_qubit(process)
            return False
        if process.qubit_tick is None:
            process.qubit_tick = kernel.now
        return True

    def free(self, virtual: int) -> None:
        """See `qnodeos.qnpu.context.ProcessServices`."""
        qmmu, process = self._kernel.qmmu, self._process
        qmmu.free(self._pid, virtual)
        if not qmmu.owned(self._pid):
            process.qubit_tick = None
        self._kernel.entanglement.freed(process)

    def create_entanglement(
        self,
        remote_node: int,
        socket_id: int,
        qubits: Sequence[int | None],
        arguments: Sequence[int | None],
        results: int,
    ) -> None:
        """See `qnodeos.qnpu.context.ProcessServices`."""
        kernel = self._kernel
        parsed = parse_create_arguments(arguments, kernel.limits)
        request = kernel.entanglement.create(
            self._process, remote_node, socket_id, qubits, parsed, results, kernel.now
        )
        kernel.offer(request)

    def receive_entanglement(
        self, remote_node: int, socket_id: int, qubits: Sequence[int | None] | None, results: int
    ) -> None:
        """See `qnodeos.qnpu.context.ProcessServices`."""
        self._kernel.entanglement.receive(
            self._process, remote_node, socket_id, qubits, results, self._kernel.now
        )

    def is_result_pending(self, address: int) -> bool:
        """See `qnodeos.qnpu.context.ProcessServices`."""
        return self._kernel.entanglement.is_result_pending(self._pid, address)
