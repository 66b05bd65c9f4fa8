"""`qnodeos bench live-time`: delegated computation over real processes, and where its time goes.

Laboratory, two services, controller and two programs run as processes on this machine, in
real time, on simulated devices. The traces of all four parts give the live time of the
server's qubit and the part of it that is not spent by the devices.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from calibration.readout import ReadoutFidelity
from qnodeos.assembly import NetworkConfig
from qnodeos.cli.two_nodes import TwoNodes, running_two_nodes
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.errors import ChildProcessFailedError, IncompleteTraceError
from qnodeos.experiments.dqc import SETS
from qnodeos.experiments.dqc_analysis import DqcSetData, analyse_dqc
from qnodeos.experiments.dqc_segments import NodeTrace, circuit_segments_ms
from qnodeos.experiments.live_time import (
    PUBLISHED_SOFTWARE_MS,
    distribution,
    shifted,
    software_ms,
)
from qnodeos.trace import Event
from qnodeos.trace.csvformat import read_trace_csv
from qnodeos.transport import Address

PROGRAMS: Final = Path(__file__).resolve().parent.parent / "experiments" / "programs"
LINK: Final = "fast"
"""Attempts without interruption: what is measured begins when a pair is there."""
LAB: Final[Mapping[str, Any]] = {"preset": LINK}
NODE: Final[Mapping[str, Any]] = {"limits": {"events": 1_000_000}}
PROGRAM_PRIORITY: Final = 20
"""SCHED_FIFO priority of the programs, below the services'. Without the privilege: none."""
PROGRAM_SPIN_MS: Final = 0.3
"""How long a program that waits for a message looks for it before it sleeps."""
TIMEOUT_PER_CIRCUIT_S: Final = 2.0
TIMEOUT_START_S: Final = 60.0
_QUIET_S: Final = 0.3
"""No event for this long means that all have been read; they are sent every 20 ms."""
_NS_PER_US: Final = 1_000


@dataclass(frozen=True)
class LiveTimeRun:
    """What a run has measured.

    Attributes:
        sets: results and latency segments, per pair of angles.
        software: the software's part of the live time per circuit, in ms, shape (n,).
        modes: how each node's engine paced its frames, by node.
    """

    sets: list[DqcSetData]
    software: NDArray[np.floating[Any]]
    modes: Mapping[str, str]


def measure(
    directory: Path,
    *,
    circuits_per_set: int,
    seed: int,
    prepared: bool,
    rehearse: bool = True,
    on_set: Callable[[], None] = lambda: None,
) -> LiveTimeRun:
    """Run all sets.

    Args:
        directory: for the files of the system; with a short path.
        circuits_per_set: circuits per pair of angles.
        seed: of the simulated physics.
        prepared: whether repeated quantum blocks are prepared, or assembled by the SDK each time.
        rehearse: whether services and programs keep their code warm while they wait.
        on_set: called after each set.

    Raises:
        ChildProcessFailedError: a process failed.
        IncompleteTraceError: the traces do not show what ran.
    """
    lab = {**LAB, "seed": seed}
    sets: list[DqcSetData] = []
    software = []
    node = dict(NODE) if rehearse else {**NODE, "realtime": {"rehearse_us": 0}}
    options = [
        f"--realtime={PROGRAM_PRIORITY}",
        f"--spin={PROGRAM_SPIN_MS}",
        "--prepared" if prepared else "--no-prepared",
        *([] if rehearse else ["--rehearse=0"]),
    ]
    with running_two_nodes(directory, lab=lab, node=node) as system:
        for alpha, theta in SETS:
            started_ns = time.monotonic_ns()
            outcomes = _run_set(system, alpha, theta, circuits_per_set, options)
            ended_ns = time.monotonic_ns()
            client, server = (_trace(system, node, started_ns, ended_ns) for node in system.nodes)
            segments = circuit_segments_ms(client, server, circuits_per_set)
            sets.append(
                DqcSetData(
                    alpha_steps=alpha,
                    theta_steps=theta,
                    orientation=np.arange(circuits_per_set, dtype=np.int8) % 2,
                    outcome=np.array(outcomes["server"], dtype=np.int8),
                    client_outcome=np.array(outcomes["client"], dtype=np.int8),
                    # Charge checks are the laboratory's own: no program can see them.
                    charge_ok=np.ones(circuits_per_set, dtype=bool),
                    segments=segments,
                )
            )
            software.append(software_ms(client, server, circuits_per_set))
            on_set()
        modes = {node: _engine_mode(system, node) for node in system.nodes}
    return LiveTimeRun(sets, np.concatenate(software), modes)


def report(
    run: LiveTimeRun, without: LiveTimeRun, *, seed: int, rehearse: bool, wall_s: float
) -> dict[str, Any]:
    """What was measured, ready for JSON; the fidelity is corrected for the server's readout."""
    noise = NetworkConfig.preset(LINK).server.noise
    readout = ReadoutFidelity(noise.readout_fidelity_0, noise.readout_fidelity_1, 0.0, 0.0)
    analysed = analyse_dqc(run.sets, readout, seed=seed, wall_s=wall_s)
    live = np.concatenate([data.segments["live_time"] for data in run.sets])
    return {
        "circuits": int(live.size),
        "software_ms": distribution(run.software),
        "live_time_ms": distribution(live),
        "segments_ms": analysed["segments_ms"],
        "fidelity": analysed["mean_fidelity"]["ssro"],
        "without_prepared": {
            "circuits": int(without.software.size),
            "software_ms": distribution(without.software),
        },
        "published": {"software_ms": PUBLISHED_SOFTWARE_MS, "live_time_ms": 4.82},
        "engine": dict(run.modes),
        "rehearse": rehearse,
        "seed": seed,
        "wall_s": wall_s,
    }


# --- running ----------------------------------------------------------------------------


def _run_set(
    system: TwoNodes, alpha: int, theta: int, circuits: int, options: Sequence[str]
) -> dict[str, list[int]]:
    """Run client and server, each in a process of its own; their results by node."""
    inputs = {
        "client": {"alpha_steps": alpha, "theta_steps": theta, "circuits": circuits},
        "server": {"alpha_steps": alpha, "circuits": circuits},
    }
    running = {
        node: subprocess.Popen(
            _command(system, node, inputs[node], options),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        for node in system.nodes
    }
    deadline_s = time.monotonic() + TIMEOUT_START_S + TIMEOUT_PER_CIRCUIT_S * circuits
    try:
        for node, process in running.items():
            try:
                words, _ = process.communicate(timeout=max(0.0, deadline_s - time.monotonic()))
            except subprocess.TimeoutExpired:
                # The directory with the logs goes with the error, so it says what there is.
                process.kill()
                words, _ = process.communicate()
                logs = "\n".join(
                    f"{child.name}: {line}"
                    for child in system.processes.children
                    for line in child.last_lines()
                )
                raise ChildProcessFailedError(
                    f"the program of the {node} did not end in time:\n"
                    f"{words.decode('utf-8', 'replace')}{logs}"
                ) from None
            if process.returncode:
                raise ChildProcessFailedError(
                    f"the program of the {node} ended with exit code {process.returncode}:\n"
                    + words.decode("utf-8", "replace")
                )
    finally:
        for process in running.values():
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()
    return {node: _result(system, node) for node in system.nodes}


def _trace(system: TwoNodes, node: str, started_ns: int, ended_ns: int) -> NodeTrace:
    """What a node recorded of the only program that ran in a span of time."""
    events, epoch_ns, tick_ns = _qnpu_events(system, node, started_ns)
    first, last = ((moment - epoch_ns) // tick_ns for moment in (started_ns, ended_ns))
    qnpu = shifted(events, 0, first, last)
    added = qnpu["event"] == Event.PROCMGR_SUBROUTINE_ADDED
    processes = np.unique(qnpu["process"][added])
    if processes.size != 1:
        raise IncompleteTraceError(
            f"the QNPU of the {node} ran {processes.size} programs instead of one; is somebody "
            "else using it?"
        )
    return NodeTrace(
        node,
        shifted(_host_events(system, node), epoch_ns // _NS_PER_US),
        _NS_PER_US,
        qnpu,
        tick_ns,
        process=int(processes[0]),
    )


def _qnpu_events(
    system: TwoNodes, node: str, since_ns: int
) -> tuple[dict[str, NDArray[Any]], int, int]:
    """Events of a QNPU, and its epoch and tick in nanoseconds."""
    address = Address.parse(system.api_address(node))
    rows: list[tuple[int, int, int, int]] = []
    epoch_ns = tick_ns = 0
    with QnpuClient.connect(address, name="live-time") as client:
        client.subscribe(past=int(client.welcome.limits["events"]))
        dropped = 0
        while (message := client.events(_QUIET_S)) is not None:
            epoch_ns, tick_ns = message.epoch_ns, message.tick_ns
            dropped += message.dropped
            rows += message.events
    if not rows or (dropped and epoch_ns + rows[0][0] * tick_ns > since_ns):
        raise IncompleteTraceError(
            f"the QNPU of the {node} has dropped events of this run; measure fewer circuits"
        )
    times, events, processes, details = (np.array(column) for column in zip(*rows, strict=True))
    columns = {"time": times, "event": events, "process": processes, "detail": details}
    return columns, epoch_ns, tick_ns


def _host_events(system: TwoNodes, node: str) -> dict[str, NDArray[Any]]:
    """What the program recorded; the n-th event of a kind is that of its n-th subroutine."""
    path = _out(system, node) / f"{node}-host.csv"
    with path.open(encoding="utf-8") as stream:
        columns = dict(read_trace_csv(stream).columns)
    numbers = np.zeros(columns["time"].shape, dtype=np.int32)
    for event in np.unique(columns["event"]):
        chosen = columns["event"] == event
        numbers[chosen] = np.arange(np.count_nonzero(chosen))
    return {**columns, "detail": numbers}


def _command(
    system: TwoNodes, node: str, inputs: Mapping[str, int], options: Sequence[str]
) -> list[str]:
    pairs = [f"--input={name}={value}" for name, value in inputs.items()]
    return [
        sys.executable,
        "-m",
        "qnodeos",
        "run",
        str(PROGRAMS / f"dqc_{node}.py"),
        "--node",
        str(system.node_path(node)),
        "--out",
        str(_out(system, node)),
        *options,
        *pairs,
    ]


def _out(system: TwoNodes, node: str) -> Path:
    return system.directory / f"{node}-run"


def _result(system: TwoNodes, node: str) -> list[int]:
    results = json.loads((_out(system, node) / "results.json").read_text("utf-8"))
    outcomes: list[int] = results["programs"][0]["result"]
    return outcomes


def _engine_mode(system: TwoNodes, node: str) -> str:
    with QnpuClient.connect(Address.parse(system.api_address(node)), name="live-time") as client:
        engine = client.statistics()["engine"]
    kind = "native" if engine["is_native"] else "pure Python"
    return f"{kind}, {engine['mode']} over {engine['link']}"
