"""The QNPU kernel: process manager, scheduler, processor and network stack behind one front.

    host_message, register, cancel, client_closed         what hosts ask for, and
    peer_message, peer_lost, peer_connected               what comes of peers between ticks
    tick                                                  once per tick (or only at those that
                                                          `next_tick` names, in virtual time)
    host_outbox, peer_outbox                              what has to be sent; the caller
                                                          empties them
    list_processes, statistics                            how things are

Everything that happens is recorded in the trace under the names of the real system.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from qnodeos.api.peer import Announce, NetworkLayerMessage, PeerMessage
from qnodeos.errors import ConfigurationError, LimitError, QNodeOSError
from qnodeos.limits import Limits
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import BellState, Outcome
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.circuit_table import Surroundings
from qnodeos.qnpu.device_jobs import Job
from qnodeos.qnpu.entanglement import EntanglementManager
from qnodeos.qnpu.er_sockets import Pair, UserRequest
from qnodeos.qnpu.holders import Holders
from qnodeos.qnpu.kernel_config import KernelConfig, Trace
from qnodeos.qnpu.link_layer import LinkLayer
from qnodeos.qnpu.network_layer import NetworkLayer
from qnodeos.qnpu.network_process import NETWORK_PRIORITY, NetworkProcess
from qnodeos.qnpu.process import NETWORK_PID, ProcessEvent, ProcessState, UserProcess
from qnodeos.qnpu.process_manager import ProcessManager
from qnodeos.qnpu.processor import Processor
from qnodeos.qnpu.programs import Programs
from qnodeos.qnpu.qmmu import QMMU
from qnodeos.qnpu.replies import Replies
from qnodeos.qnpu.routes import Route
from qnodeos.qnpu.schedule import NetworkSchedule
from qnodeos.qnpu.scheduler import PriorityFcfs, Scheduler, SchedulingPolicy
from qnodeos.qnpu.services import Services
from qnodeos.qnpu.status import KernelStatistics, ProcessInfo, list_processes
from qnodeos.trace.events import Event


class Kernel:
    """See the module's docstring.

    Args:
        config: of this node.
        driver: the QDriver of its device.
        trace: takes every event.
        random_choice: returns a random integer below its argument (random bases).
        policy: who runs next; the paper's `PriorityFcfs` if not given.

    Raises:
        ConfigurationError: programs might ask for the network process's priority.
    """

    def __init__(
        self,
        config: KernelConfig,
        driver: QDriver,
        trace: Trace,
        random_choice: Callable[[int], int],
        policy: SchedulingPolicy | None = None,
    ) -> None:
        if config.limits.highest_priority >= NETWORK_PRIORITY:
            raise ConfigurationError(
                f"highest_priority={config.limits.highest_priority} of the limits must be below "
                f"{NETWORK_PRIORITY}, the priority of the network process"
            )
        self._config = config
        self._limits = config.limits
        self._driver = driver
        self._record = trace.record
        self._tick = 0
        self.qmmu = QMMU(driver.capabilities)
        self.scheduler = Scheduler(
            policy if policy is not None else PriorityFcfs(), config.dispatch_ticks
        )
        self.entanglement = EntanglementManager(
            self.qmmu,
            config.limits,
            driver.capabilities.tick_ns,
            config.peers,
            self._delivered,
            config.link_fidelity,
        )
        self._replies = Replies(trace.record)
        self.host_outbox = self._replies.outbox
        self.peer_outbox: list[tuple[int, PeerMessage]] = []
        self.link_layer = LinkLayer(
            config.node_id,
            config.peers,
            self.entanglement,
            config.limits,
            self._send_peer,
            self.abort,
            lambda: self.network.bins.start_bin(self._tick),
            lambda: self.network.schedule is not None,
        )
        self._manager = ProcessManager(config.limits)
        self.processes = self._manager.processes
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
            running_pid=self._running_pid,
            processes=self.processes,
        )
        self.network_layer = NetworkLayer(
            Surroundings(
                node_id=config.node_id,
                driver=driver,
                qmmu=self.qmmu,
                entanglement=self.entanglement,
                link_layer=self.link_layer,
                limits=config.limits,
                now=lambda: self._tick,
                next_bin=lambda: self.network.bins.start_bin(self._tick),
                send=self._send_peer,
                add_job=self._add_job,
                fault=self.abort,
                record=lambda event, number: trace.record(self._tick, event, NETWORK_PID, number),
                random_choice=random_choice,
                count_pair=self.network.count_pair,
            ),
        )
        self.network.relocation.layer_moved = self.network_layer.attempts.relocated
        self._processor = Processor(
            scheduler=self.scheduler,
            flavour=config.flavour,
            limits=config.limits,
            driver=driver,
            qmmu=self.qmmu,
            network=self.network,
            processes=self.processes,
            services=lambda process: Services(self, process),
            record=trace.record,
            finished=self._replies.finish,
            abort=self.abort,
            check_wait=self._check_wait,
        )
        self.wait_for_qubit = self._processor.wait_for_qubit
        self.should_pause = self._processor.should_pause
        self._holders = Holders(self.qmmu, self.entanglement, driver.capabilities, config.limits)
        self._programs = Programs(
            limits=config.limits,
            manager=self._manager,
            processor=self._processor,
            scheduler=self.scheduler,
            qmmu=self.qmmu,
            entanglement=self.entanglement,
            link_layer=self.link_layer,
            network_layer=self.network_layer,
            replies=self._replies,
            record=trace.record,
            withdrawn=self._look_at_cancelled,
        )

    def install_schedule(self, schedule: NetworkSchedule, from_bin: int | None = None) -> bool:
        """Use a network schedule.

        The first one counts from now on. One that numbers the bins as the present one does
        (same length, same epoch) takes over at the start of a bin, and all requests stay. Any
        other one makes what was agreed with the neighbours meaningless: it counts from now
        on, and every link is as after `peer_lost`.

        Args:
            schedule: the new one.
            from_bin: the bin from which it counts, if the bins stay the same; the next one
                if not given. Must be the same at all nodes.

        Returns:
            Whether the links have been reset. Then the caller has to renew the connections
            to the peers, so that no message of the time before counts, and to call
            `peer_connected` for each.

        Raises:
            ConfigurationError: the pattern names a node that is no neighbour.
        """
        strangers = set(schedule.pattern) - set(self._config.peers) - {None}
        if strangers:
            raise ConfigurationError(
                f"the network schedule has bins for nodes {sorted(strangers, key=str)}, which "
                f"are no neighbours of node {self._config.node_id}; neighbours are "
                f"{sorted(self._config.peers)}"
            )
        present = self.network.schedule
        if present is None:
            self.network.install(schedule, None)
            return False
        if schedule.has_bins_of(present):
            following = self.network.bins.start_bin(self._tick)
            self.network.install(
                schedule, following if from_bin is None else max(from_bin, following)
            )
            return False
        for peer in self._config.peers:
            self._lose(peer, "the network schedule was replaced by one with other bins", self._tick)
        self.network.install(schedule, None)
        return True

    def install_routes(self, routes: Mapping[int, Route]) -> None:
        """Use routes to other nodes; requests that are under way keep to theirs.

        Args:
            routes: by destination; those to neighbours may be among them.

        Raises:
            ConfigurationError: one leads over a node that is no neighbour.
        """
        strangers = {route.next_hop for route in routes.values()} - set(self._config.peers)
        if strangers:
            raise ConfigurationError(
                f"routes lead over nodes {sorted(strangers)}, which are no neighbours of node "
                f"{self._config.node_id}; neighbours are {sorted(self._config.peers)}"
            )
        self.entanglement.routes = dict(routes)
        self.network_layer.install(self.entanglement.routes)

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
        self._programs.host_message(client, request, raw, tick)

    def register(
        self, client: int, request: int, app_id: int, max_qubits: int, priority: int, tick: int
    ) -> None:
        """Register a program with a priority; `InitApp` gives it the lowest, 0.

        Args:
            client: the connection.
            request: the sender's number for this; one reply to it will appear in the outbox.
            app_id: number of the program on that connection.
            max_qubits: virtual qubits it may have at once.
            priority: higher runs first, up to the limit highest_priority.
            tick: now.
        """
        self._tick = tick
        self._programs.register(client, request, app_id, max_qubits, priority)

    def cancel(self, client: int, request: int, target: int, tick: int) -> None:
        """Cancel a subroutine; it is answered with `CancelledError`, its process lives on.

        One that waits for its turn is dropped. One that has begun ends where it is: the
        entanglement requests it made are withdrawn, registers, arrays and qubits stay as they
        are. A physical instruction that is under way at the device is finished there, and
        its outcome ignored, so the state of a qubit that was worked on is not known: the
        program should initialise or free it.

        Args:
            client: the connection, which must be the one the subroutine came over.
            request: the sender's number for this; one reply to it will appear in the outbox.
            target: its number for the subroutine.
            tick: now.
        """
        self._tick = tick
        self._programs.cancel(client, request, target, tick)

    def client_closed(self, client: int, tick: int) -> None:
        """A CNPU's connection has ended: so do its programs."""
        self._tick = tick
        self._programs.client_closed(client, tick)

    # --- the end of a process ---------------------------------------------------------

    def abort(self, process: UserProcess, error: QNodeOSError, pc: int | None = None) -> None:
        """End a process because of an error, which every reply it still owes will carry.

        What befalls an entanglement request of a process that has ended meanwhile is
        nobody's error any more.
        """
        self._programs.abort(process, error, pc, self._tick)

    # --- the peers --------------------------------------------------------------------

    def peer_message(self, peer: int, message: PeerMessage, tick: int) -> None:
        """Take a message of another QNPU.

        Raises:
            PeerProtocolError: it comes from no neighbour, or from one that is not connected.
        """
        self._tick = tick
        if isinstance(message, NetworkLayerMessage):
            self.network_layer.receive(peer, message)
            self.network.drop_cancelled()
        else:
            self.link_layer.receive(peer, message)
        if isinstance(message, Announce):
            self.network.on_announcement(peer)
        self._wake_network()

    def peer_lost(self, peer: int, tick: int, heard_tick: int | None = None) -> None:
        """The connection to a neighbour has ended.

        Programs whose requests both nodes had agreed on end with `PeerLostError`, and so do
        those that were handed a pair the neighbour may not know of. Requests that were not
        accepted yet stay, and are offered again by `peer_connected`; they time out as ever.

        Args:
            peer: the neighbour.
            tick: now.
            heard_tick: everything sent before it has arrived there. If not given, what was
                sent during the last announcement_timeout_ticks is taken for lost.

        Raises:
            PeerProtocolError: it is no neighbour.
        """
        self._tick = tick
        if heard_tick is None:
            heard_tick = tick - self._limits.announcement_timeout_ticks
        self._lose(peer, f"the connection to node {peer} was lost", heard_tick)

    def _lose(self, peer: int, why: str, heard_tick: int) -> None:
        self.link_layer.lost(peer, why, heard_tick)
        self.network_layer.peer_lost(peer, why)
        self._look_at_cancelled()

    def peer_connected(self, peer: int, tick: int) -> None:
        """There is a connection to a neighbour (again); `peer_lost` was called before.

        Raises:
            PeerProtocolError: it is no neighbour.
        """
        self._tick = tick
        self.link_layer.connected(peer, self.network.bins.start_bin(tick))
        self.network_layer.peer_connected(peer)

    def _look_at_cancelled(self) -> None:
        """Requests may have been withdrawn, also the one the network process works on."""
        self.network.drop_cancelled()
        self._wake_network()

    def _wake_network(self) -> None:
        if self.network.state is ProcessState.WAITING:
            self._processor.ready(self.network, ProcessEvent.WOKEN, self._tick)

    def _add_job(self, job: Job) -> None:
        self.network.add_job(job)
        self._wake_network()

    def _send_peer(self, peer: int, message: PeerMessage) -> None:
        self.peer_outbox.append((peer, message))

    def _delivered(self, process: UserProcess, pair: Pair) -> None:
        self._record(self._tick, Event.QNP_BQ_DELIVERED, process.pid, pair.sequence)
        if process.qubit_tick is None and self.qmmu.owned(process.pid):
            process.qubit_tick = pair.ready_tick
            if process.state is ProcessState.READY:
                self.scheduler.move(process)
        if process.state is ProcessState.WAITING:
            self._processor.ready(process, ProcessEvent.WOKEN, self._tick)

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
        instruction = self._do_due(tick, outcome, herald)
        if self.network_layer.attempts.must_look:
            self.network_layer.attempts.look()
        if self._limits.qubit_ticks:
            self._end_late_holders()
        return instruction

    def _do_due(
        self, tick: int, outcome: Outcome | None, herald: BellState | None
    ) -> PhysicalInstruction | None:
        self._tick = tick
        if outcome is not None:
            self._processor.consume(outcome, herald, tick)
        deadline = self.link_layer.deadline_tick
        if deadline is not None and tick >= deadline:
            self.link_layer.expire(tick)
        deadline = self.entanglement.deadline_tick
        if deadline is not None and tick >= deadline:
            for process, error in self.entanglement.expire(tick):
                self.abort(process, error)
        deadline = self.network_layer.deadline_tick
        if deadline is not None and tick >= deadline:
            self.network_layer.expire(tick)
            self._look_at_cancelled()
        self._advance_network()
        return self._processor.run(tick)

    @property
    def is_waiting(self) -> bool:
        """Whether programs wait, and nothing but attempts at entanglement is under way."""
        in_flight, running = self._processor.in_flight, self._processor.running
        if (in_flight is not None and not in_flight.is_network) or (
            running is not None and not running.is_network
        ):
            return False
        return any(each.state is ProcessState.WAITING for each in self.processes.values())

    def next_tick(self, tick: int) -> int | None:
        """The next tick at which `tick` has something to do if nothing arrives before."""
        soonest = self._processor.next_tick(tick)
        for due in (
            self.link_layer.deadline_tick,
            self.network_layer.deadline_tick,
            self.entanglement.deadline_tick,
            self._holders.next_tick(),
        ):
            if due is not None and (soonest is None or due < soonest):
                soonest = due
        due = None
        if self.network.state is ProcessState.IDLE:
            due = self.network.next_due(tick)
        elif self.network.state is ProcessState.WAITING:
            due = self.network.timeout_tick()
        if due is not None and (soonest is None or due < soonest):
            soonest = due
        return soonest if soonest is None else max(soonest, tick + 1)

    def _end_late_holders(self) -> None:
        """End programs that have kept a qubit for too long while it was wanted."""
        late = self._holders.late(
            self._tick,
            is_short=bool(self._processor.qubit_queue) or self.network_layer.attempts.is_short,
            link_waits=self.link_layer.has_requests,
            has_room=self.network.relocation.is_possible,
        )
        for process in [self.processes[pid] for pid in late]:
            self.abort(
                process,
                LimitError(
                    f"a qubit that others wait for was kept for qubit_ticks="
                    f"{self._limits.qubit_ticks} ticks; measure or free it"
                ),
            )

    def _advance_network(self) -> None:
        network = self.network
        if network.state is ProcessState.IDLE:
            if network.is_due(self._tick):
                self._processor.ready(network, ProcessEvent.WORK_ARRIVED, self._tick)
        elif network.state is ProcessState.WAITING:
            timeout = network.timeout_tick()
            if timeout is not None and self._tick >= timeout:
                self._processor.ready(network, ProcessEvent.WOKEN, self._tick)

    # --- how things are ---------------------------------------------------------------

    def list_processes(self) -> list[ProcessInfo]:
        """The network process and the user processes alive."""
        return list_processes(
            self.network, self.processes, self.qmmu, self.entanglement, self.link_layer
        )

    def statistics(self) -> KernelStatistics:
        """What has been done so far."""
        links = self.link_layer.links
        return KernelStatistics(
            subroutines_done=self._replies.done,
            subroutines_failed=self._replies.failed,
            physical_instructions=self._processor.instructions,
            pairs=dict.fromkeys(links, 0) | self.network.pairs,
            swaps=self.network_layer.attempts.swaps,
            bins_used=self.network.bins_used,
            bins_missed=self.network.bins_missed,
            bins_blocked=self.network.bins_blocked,
            circuits=self.network_layer.circuits,
            processes=len(self.processes),
            free_qubits=len(self.qmmu.free_qubits()),
            link_requests={peer: len(link.queue) for peer, link in links.items()},
            connected_peers=tuple(peer for peer, link in links.items() if link.is_up),
        )

    # --- services for subroutines -----------------------------------------------------

    def offer(self, request: UserRequest) -> None:
        """Offer a new create request to its peer."""
        self._record(self._tick, Event.EGPD_CREATE, request.socket.process.pid, request.create_id)
        if request.socket.remote_node in self._config.peers:
            self.link_layer.offer(request, self.network.bins.start_bin(self._tick), self._tick)
        else:
            self.network_layer.create(request)

    def _check_wait(self, process: UserProcess) -> None:
        if not self.network.is_delivering(process):
            self.entanglement.check_wait(process)

    def _running_pid(self) -> int | None:
        running = self._processor.running
        return None if running is None else running.pid

    @property
    def limits(self) -> Limits:
        """All bounds."""
        return self._limits

    @property
    def now(self) -> int:
        """The tick of the call being served."""
        return self._tick
