"""Running applications on simulated nodes, in virtual time."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from netqasm.runtime.app_config import AppConfig
from netqasm.sdk.config import LogConfig

from qnodeos.applications import names
from qnodeos.applications.application import CONFIG_PARAMETER, Application
from qnodeos.applications.logs import RunLogs, run_directory
from qnodeos.applications.messages import Messages
from qnodeos.applications.networks import check_nodes, default_network, read_network
from qnodeos.applications.output import Echo, ProgramOutput, capturing, current_output
from qnodeos.applications.states import Backend, density_matrix, find_qubit
from qnodeos.applications.two_nodes import TwoNodes, on_two_nodes
from qnodeos.assembly import (
    BACKENDS,
    NetworkDescription,
    NetworkSystem,
    build_network,
    load_profile,
)
from qnodeos.assembly.common import require_known
from qnodeos.cnpu import external
from qnodeos.cnpu.host import NetworkDirectory
from qnodeos.cnpu.inputs import takes
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.cnpu.results import settled
from qnodeos.errors import ProgramError, StalledProgramsError
from qnodeos.trace.node_traces import NodeTraces
from sim.network import ProgramSpec, RunLimits

_TRACE_CAPACITY = 1 << 12
"""Events kept per recorder: enough to see what went wrong last."""
_WRITTEN_TRACE_CAPACITY = 1 << 16
"""The same where traces are written: some thousand pairs of each node."""

OnClose = Callable[[str, Any], None]
"""Called inside a program with its role and its connection, before that gives its qubits back."""


@dataclass
class Round:
    """One run of all programs of an application.

    Attributes:
        number: from 0.
        results: what each program returned, by ``app_<role>``; only those that returned.
        errors: what each program that did not return raised, by role.
        problem: the error of the round as a whole; None if all returned.
        output: what each program printed and logged, by role.
        messages: the classical messages each program received, by role, each with the role it
            came from.
        duration_ns: virtual time it took.
    """

    number: int
    results: dict[str, Any]
    errors: dict[str, Exception]
    problem: ProgramError | StalledProgramsError | None
    output: dict[str, str]
    messages: dict[str, list[tuple[str, str]]]
    duration_ns: int


@dataclass(frozen=True)
class SimulationOptions:
    """How applications are simulated.

    Attributes:
        network: nodes and links; if not given, the application's own network.yaml, and if it
            has none, nodes that are all linked to each other.
        device: of the nodes of a network that is not given, one of `networks.DEVICES`.
        backend: the two NV nodes of the experiments instead of a network, simulated at this
            depth, one of `qnodeos.assembly.BACKENDS`: one qubit each, the published noise, and
            attempts back to back. Instruments there are only for these.
        profile: latencies, by name.
        seed: of all randomness, of the programs' own too: `random` and numpy's global generator
            are seeded before every round, and afterwards are as they were.
        limits: how far the programs of a round may run.
        use_app_config: whether programs that take ``app_config`` get NetQASM's.
        log_dir: where the directory of the run is made; None for no log files.
        trace_formats: of `qnodeos.trace.export.FORMATS`: what the nodes did, beside the logs of
            each round. Without a log_dir there is no place for them.
        post_function: called with NetQASM's backend after the last round, instead of the
            application's own.
        on_close: called inside each program before a connection gives its qubits back.
        echo: called with a role and a line whenever a program has written one.
    """

    network: NetworkDescription | None = None
    device: str = "generic"
    backend: str | None = None
    profile: str = "zero"
    seed: int | str = 0
    limits: RunLimits = field(default_factory=RunLimits)
    use_app_config: bool = True
    log_dir: Path | None = None
    trace_formats: Sequence[str] = ()
    post_function: Callable[[Any], object] | None = None
    on_close: OnClose | None = None
    echo: Echo | None = None


def simulate(
    application: Application,
    *,
    rounds: int = 1,
    inputs: Mapping[str, Mapping[str, Any]] | None = None,
    on_round: Callable[[Round], None] = lambda done: None,
    **options: Any,
) -> list[Round]:
    """Run an application on simulated nodes.

    Every round has nodes of its own, whose randomness is that of the seed and the number of the
    round. The first round that fails is the last.

    Args:
        application: what to run.
        rounds: how often.
        inputs: keyword arguments of programs by role, instead of the application's.
        on_round: called with each round when it has ended.
        options: fields of `SimulationOptions`.

    Returns:
        The rounds, of which the last one may have failed.

    Raises:
        ConfigurationError: the application cannot start: no node for a role, or wrong inputs.
        ResultsNotWrittenError: logs cannot be written.
        Exception: what the post function raised.
    """
    if rounds < 1:
        raise ValueError(f"an application runs at least once, not {rounds} times")
    simulator = _Simulator(application.with_inputs(inputs or {}), SimulationOptions(**options))
    done: list[Round] = []

    def keep(one: Round) -> None:
        done.append(one)
        on_round(one)

    directory = run_directory(simulator.options.log_dir)
    with RunLogs(directory, rounds, application.directory) as logs:
        try:
            simulator.run(range(rounds), logs, keep)
        finally:
            logs.run_done([each.results for each in done])
    return done


def check_simulation(application: Application, **options: Any) -> None:
    """See that an application could be simulated, as far as that can be seen before.

    Args:
        application: what would run.
        options: fields of `SimulationOptions`.

    Raises:
        ConfigurationError: it cannot start: no node for a role, or wrong inputs.
    """
    _Simulator(application, SimulationOptions(**options))


def simulate_round(
    application: Application,
    number: int,
    rounds: int,
    *,
    directory: Path | None = None,
    **options: Any,
) -> Round:
    """Run one of the rounds that `simulate` runs; it does not depend on the others.

    Args:
        application: what to run.
        number: of the round, from 0. After the last the post function is called.
        rounds: how many there are.
        directory: of the logs of all rounds (`logs.run_directory`); None for no log files.
        options: fields of `SimulationOptions`; its `log_dir` is not used.

    Raises:
        ConfigurationError: as for `simulate`.
        ResultsNotWrittenError: logs cannot be written.
        Exception: what the post function raised.
    """
    simulator = _Simulator(application, SimulationOptions(**options))
    done: list[Round] = []
    with RunLogs(directory, rounds, application.directory) as logs:
        simulator.run(range(number, number + 1), logs, done.append)
    return done[0]


def run_application(
    application: Application, *, rounds: int = 1, **options: Any
) -> list[dict[str, Any]]:
    """Run an application on simulated nodes; what its programs returned.

    Args:
        application: what to run.
        rounds: how often.
        options: further arguments of `simulate`.

    Returns:
        For each round what each program returned, by ``app_<role>``.

    Raises:
        ProgramError: a program raised; that exception is the cause.
        StalledProgramsError: programs wait for what does not come.
        ConfigurationError: as for `simulate`.
    """
    done = simulate(application, rounds=rounds, **options)
    problem = done[-1].problem
    if problem is not None:
        raise problem from problem.__cause__
    return [each.results for each in done]


class _Simulator:
    """Runs the rounds of one application."""

    def __init__(self, application: Application, options: SimulationOptions) -> None:
        self._application = application
        self.options = options
        self._profile: LatencyProfile = load_profile(options.profile)
        if options.backend is not None:
            require_known("backend", options.backend, BACKENDS)
            self._application = on_two_nodes(application, options.post_function)
        else:
            self._network = self._choose_network()
        application.check_inputs(has_config=options.use_app_config)

    def _choose_network(self) -> NetworkDescription:
        application = self._application
        source = str(application.directory or application.name)
        network = self.options.network
        if network is None and application.network is not None:
            network = read_network(application.network)
            source = str(application.network)
        if network is None:
            return default_network(application.nodes, self.options.device)
        check_nodes(application.allocation, network.nodes, source)
        return network

    def run(self, numbers: Iterable[int], logs: RunLogs, on_round: Callable[[Round], None]) -> None:
        with names.simulated(), self._application.active(), capturing():
            for number in numbers:
                with self._system(number) as system:
                    done = self._run_round(system, number, logs)
                    on_round(done)
                    if done.problem is not None:
                        return
                    if number == logs.rounds - 1:
                        self._finish(system)

    def _system(self, number: int) -> NetworkSystem | TwoNodes:
        seed = f"{self.options.seed}/{number}"
        capacity = _WRITTEN_TRACE_CAPACITY if self.options.trace_formats else _TRACE_CAPACITY
        system: NetworkSystem | TwoNodes
        if self.options.backend is not None:
            system = TwoNodes(self._profile, seed, self.options.backend, capacity)
        else:
            system = build_network(self._network, self._profile, seed, trace_capacity=capacity)
        node_ids = {name: number for number, name in enumerate(system.nodes)}
        directory = NetworkDirectory(node_ids, self._application.allocation)
        for handles in system.nodes.values():
            handles.cnpu.directory = directory
        return system

    def _run_round(self, system: NetworkSystem | TwoNodes, number: int, logs: RunLogs) -> Round:
        application, network = self._application, system.network
        outputs = {role: ProgramOutput(role, self.options.echo) for role in application.programs}
        log_config = logs.config(number)
        specs = [self._spec(role, output, log_config) for role, output in outputs.items()]
        messages = Messages(application.programs, keeps_log=logs.directory is not None)
        for handles in system.nodes.values():
            handles.cnpu.board.on_message = messages.note
        token = external.simulation.set(_Observer(system, self.options.on_close))
        try:
            with seeded(f"{self.options.seed}/{number}/programs"):
                outcome = network.attempt(specs, limits=self.options.limits)
        finally:
            external.simulation.reset(token)
        written = {role: output.text for role, output in outputs.items()}
        logs.round_done(number, written, messages)
        if self.options.trace_formats:
            logs.traces_done(number, self._traces(system), self.options.trace_formats)
        programs = {program.name: program for program in outcome.programs}
        return Round(
            number,
            {f"app_{role}": settled(one.result) for role, one in programs.items() if not one.error},
            {role: one.error for role, one in programs.items() if one.error is not None},
            outcome.problem,
            written,
            messages.received,
            outcome.ended_ns,
        )

    def _traces(self, system: NetworkSystem | TwoNodes) -> list[NodeTraces]:
        roles: dict[str, list[str]] = {name: [] for name in system.nodes}
        for role, node in self._application.allocation.items():
            roles[node].append(role)
        traces = []
        for name, handles in system.nodes.items():
            recorded = NodeTraces.from_recorders(name, handles.host_trace, handles.qnpu_trace)
            # With several programs on a node it is not known which process is whose.
            names = {pid: roles[name][0] for pid in recorded.processes() if len(roles[name]) == 1}
            traces.append(replace(recorded, programs=names))
        return traces

    def _spec(self, role: str, output: ProgramOutput, log_config: LogConfig) -> ProgramSpec:
        application = self._application
        entry = application.programs[role]
        given = application.inputs[role]
        inputs = dict(given)
        node = application.allocation[role]
        if self.options.use_app_config and takes(entry, CONFIG_PARAMETER):
            inputs.setdefault(
                CONFIG_PARAMETER, AppConfig(role, node, entry, log_config, dict(given))
            )

        def program(**arguments: Any) -> Any:
            current_output.set(output)  # in the context of this program alone
            try:
                return entry(**arguments)
            except SystemExit as request:  # it may end itself, but not the simulation
                raise ProgramError(
                    f"it called sys.exit({request.code!r}); return instead"
                ) from None
            finally:
                output.finish()

        return ProgramSpec(node, role, program, inputs)

    def _finish(self, system: NetworkSystem | TwoNodes) -> None:
        post_function = self.options.post_function or self._application.post_function
        if post_function is not None:
            assert isinstance(system, NetworkSystem)  # see `on_two_nodes`
            post_function(Backend(system))


@dataclass(frozen=True)
class _Observer:
    """See `qnodeos.cnpu.external.Simulation`."""

    system: NetworkSystem | TwoNodes
    closing: OnClose | None

    def qubit_state(self, connection: Any, virtual: int, *, is_reduced: bool) -> Any:
        if isinstance(self.system, TwoNodes):
            raise ProgramError("with a backend states cannot be looked at; measure the qubit")
        qubit = find_qubit(self.system, connection.node_name, connection.owner, virtual)
        return density_matrix(self.system, qubit, is_reduced=is_reduced)

    def on_close(self, connection: Any) -> None:
        if self.closing is not None:
            self.closing(connection.app_name, connection)


@contextmanager
def seeded(seed: str) -> Iterator[None]:
    """Seed the generators that all programs share; afterwards they are as they were."""
    before = random.getstate()
    numpy_before = np.random.get_state()
    random.seed(seed)
    np.random.seed(Random(f"{seed}/numpy").getrandbits(32))
    try:
        yield
    finally:
        random.setstate(before)
        np.random.set_state(numpy_before)
