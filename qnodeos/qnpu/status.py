"""What a kernel tells of itself: its processes, and what it has done so far."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.link_layer import LinkLayer
from qnodeos.qnpu.network_process import NetworkProcess
from qnodeos.qnpu.process import NETWORK_PID, ProcessState, UserProcess
from qnodeos.qnpu.qmmu import QMMU


@dataclass(frozen=True, slots=True)
class ProcessInfo:
    """A process as it is now.

    Attributes:
        pid: its number; 0 is the network process.
        client: the connection that owns it; -1 for the network process.
        app_id: its number there; -1 for the network process.
        state: a value of `qnodeos.qnpu.process.ProcessState`.
        priority: higher runs first.
        pending: subroutines that wait for their turn.
        serial: number of the subroutine being run, None between two.
        waiting_for: what it waits for, in words; empty if it does not wait.
        qubits: physical qubits it owns.
        requests: outstanding entanglement requests.
    """

    pid: int
    client: int
    app_id: int
    state: str
    priority: int
    pending: int
    serial: int | None
    waiting_for: str
    qubits: tuple[int, ...]
    requests: int


@dataclass(frozen=True, slots=True)
class KernelStatistics:
    """What a kernel has done since it started.

    Attributes:
        subroutines_done: ended well.
        subroutines_failed: ended with an error, or were never begun because their process
            ended.
        physical_instructions: sent to the device.
        pairs: entangled pairs handed over, by the node at the other end.
        swaps: pairs joined with others, for nodes that are no neighbours.
        bins_used: time bins in which at least one batch of attempts was started.
        bins_missed: time bins that had something to do, but the QNPU was in use, or the kernel
            was not run in time.
        bins_blocked: time bins that had something to do, but a program kept the qubit.
        circuits: requests of nodes that are no neighbours this node takes part in.
        processes: user processes alive.
        free_qubits: physical qubits nobody owns.
        link_requests: entanglement requests in the queue of the link, by peer.
        connected_peers: neighbours to which there is a connection.
    """

    subroutines_done: int
    subroutines_failed: int
    physical_instructions: int
    pairs: Mapping[int, int]
    swaps: int
    bins_used: int
    bins_missed: int
    bins_blocked: int
    circuits: int
    processes: int
    free_qubits: int
    link_requests: Mapping[int, int]
    connected_peers: tuple[int, ...]


def list_processes(
    network: NetworkProcess,
    processes: Mapping[int, UserProcess],
    qmmu: QMMU,
    entanglement: EntanglementManager,
    link_layer: LinkLayer,
) -> list[ProcessInfo]:
    """The network process and the user processes alive."""
    return [
        ProcessInfo(
            pid=NETWORK_PID,
            client=-1,
            app_id=-1,
            state=network.state.value,
            priority=network.priority,
            pending=0,
            serial=None,
            waiting_for="an announcement" if network.state is ProcessState.WAITING else "",
            qubits=tuple(qmmu.owned(NETWORK_PID)),
            requests=sum(len(link.queue) for link in link_layer.links.values()),
        ),
        *(_user_process(process, qmmu, entanglement) for process in processes.values()),
    ]


def _user_process(
    process: UserProcess, qmmu: QMMU, entanglement: EntanglementManager
) -> ProcessInfo:
    waits = process.state is ProcessState.WAITING
    return ProcessInfo(
        pid=process.pid,
        client=process.owner[0],
        app_id=process.owner[1],
        state=process.state.value,
        priority=process.priority,
        pending=len(process.pending),
        serial=process.current.serial if process.current is not None else None,
        waiting_for=process.execution.waiting_for if waits else "",
        qubits=tuple(qmmu.owned(process.pid)),
        requests=entanglement.outstanding(process.pid),
    )
