"""What the subroutines of one process may ask of the kernel."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from qnodeos.limits import Limits
from qnodeos.qnpu.entanglement import EntanglementManager, UserRequest
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

    def allocate(self, virtual: int) -> bool:
        """See `qnodeos.qnpu.context.ProcessServices`."""
        physical = self._kernel.qmmu.allocate(self._pid, virtual, self._process.max_qubits)
        if physical is None:
            self._kernel.wait_for_qubit(self._process)
        return physical is not None

    def free(self, virtual: int) -> None:
        """See `qnodeos.qnpu.context.ProcessServices`."""
        self._kernel.qmmu.free(self._pid, virtual)

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
