"""From a program's process to the QNPU service and back: an empty subroutine.

The service runs in a process of its own, as `qnodeos serve` starts it, event-paced and
without a priority; the client blocks in its socket. The reference is a process that echoes as
many bytes, served and asked the same way, in the same rounds.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from netqasm.backend.messages import InitNewAppMessage

from benchmarks.measure import GC_OFF, Effort, Figure, Outcome, Samples, Timing, Work, gc_off
from qnodeos.api.framing import frame
from qnodeos.api.host_wire import Netqasm, encode
from qnodeos.cnpu.qnpu_client import QnpuClient
from qnodeos.transport import Address

ROUND_TRIPS: Final = 2_000
WANTED_NS: Final = 60_000
"""Median round trip over TCP on loopback that is wanted at most."""
_START_S: Final = 30.0
_EMPTY: Final = bytes((2, 0, 10, 0, 0))
"""A subroutine message of the NetQASM SDK without an instruction, of application 0."""


@dataclass(frozen=True)
class Trips:
    """Times of the round trips of one round, sorted, in ns."""

    times_ns: list[int]

    def quantile(self, fraction: float) -> float:
        """The time that this fraction of them does not exceed."""
        return self.times_ns[min(int(fraction * len(self.times_ns)), len(self.times_ns) - 1)]


def timed(trip: Callable[[], object], number: int) -> Trips:
    """Make round trips, each timed by itself."""
    clock = time.perf_counter_ns
    times = []
    with gc_off():
        for _ in range(number):
            start_ns = clock()
            trip()
            times.append(clock() - start_ns)
    return Trips(sorted(times))


@contextmanager
def service(folder: Path) -> Iterator[tuple[Address, Address]]:
    """A service without a device that matters; its addresses, TCP and Unix."""
    unix = Address(path=str(folder / "api.sock"))
    node = {
        "name": "bench",
        "node_id": 0,
        "device": {"link": "loopback"},
        "api": {"listen": ["tcp:127.0.0.1:0", str(unix)]},
        "realtime": {
            "tick_priority": 0,
            "policy_priority": 0,
            "mode": "event-paced",
            "lock_memory": False,
        },
    }
    path = folder / "node.yaml"
    path.write_text(json.dumps(node), "utf-8")
    command = [sys.executable, "-m", "qnodeos", "serve", str(path)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                _, found, rest = line.partition("listening on ")
                if found:
                    yield Address.parse(rest.split(",")[0]), unix
                    return
            raise RuntimeError("the service has not started")
        finally:
            process.terminate()
            process.communicate(timeout=_START_S)


@contextmanager
def echo(folder: Path) -> Iterator[tuple[Address, Address]]:
    """A process that echoes; its addresses, TCP and Unix."""
    unix = Address(path=str(folder / "echo.sock"))
    command = [sys.executable, "-m", "benchmarks.echo", unix.path]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            yield Address(host="127.0.0.1", port=port), unix
        finally:
            process.terminate()
            process.communicate(timeout=_START_S)


def echo_trip(address: Address, stack: ExitStack) -> Callable[[], object]:
    """A round trip to the process that echoes, of as many bytes as the other's request."""
    family, place = address.resolve()
    connection = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
    connection.connect(place)
    if not address.is_unix:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    data = frame(encode(Netqasm(1_000, _EMPTY)))

    def trip() -> None:
        connection.sendall(data)
        if len(connection.recv(4_096)) != len(data):
            raise RuntimeError("the echo came in pieces")

    return trip


def qnpu_trip(address: Address, stack: ExitStack) -> Callable[[], object]:
    """A round trip to the service: an empty subroutine."""
    client = stack.enter_context(QnpuClient.connect(address, name="benchmark"))
    client.await_reply(client.submit(bytes(InitNewAppMessage(app_id=0, max_qubits=1))))

    def trip() -> None:
        if client.await_reply(client.submit(_EMPTY)).error is not None:
            raise RuntimeError("the empty subroutine has failed")

    return trip


def run(effort: Effort) -> Outcome:
    """Measure."""
    number = effort.of(ROUND_TRIPS)
    figures: list[Figure] = []
    with TemporaryDirectory(prefix="qn") as name, ExitStack() as stack:
        folder = Path(name)
        ours, references = stack.enter_context(service(folder)), stack.enter_context(echo(folder))
        for label, address, reference in zip(("TCP", "Unix socket"), ours, references, strict=True):
            figures += _compared(label, address, reference, number, effort.rounds)
    return Outcome(
        figures,
        GC_OFF + " at the client; frozen at the service",
        notes=[
            "wall-clock time, three processes: other programs on the machine count",
            "the service has no priority here and blocks between two requests (event-paced)",
        ],
    )


def _compared(
    label: str, address: Address, reference: Address, number: int, rounds: int
) -> list[Figure]:
    measured: list[tuple[Trips, Trips]] = []
    with ExitStack() as stack:
        trips = qnpu_trip(address, stack), echo_trip(reference, stack)
        for round_number in range(-1, rounds):  # one to warm up
            pair = timed(trips[0], number), timed(trips[1], number)
            if round_number >= 0:
                measured.append(pair)
    subroutine, raw = (
        Work(what, "round trip", number, lambda: lambda: None)
        for what in ("empty subroutine", "raw echo")
    )
    figures = []
    for quantile, fraction in (("p50", 0.5), ("p99", 0.99)):
        mine, other = (
            tuple(pair[which].quantile(fraction) for pair in measured) for which in (0, 1)
        )
        figures.append(Samples(subroutine, raw, mine, other).cost(f"QNPU over {label}, {quantile}"))
        if label == "TCP" and quantile == "p50":
            figures.append(
                Figure(
                    "QNPU over TCP, p50, absolutely",
                    "times",
                    Timing("empty subroutine", "round trip", median(mine)),
                    Timing(f"{WANTED_NS // 1_000} us", "round trip", WANTED_NS),
                    tuple(ns / WANTED_NS for ns in mine),
                    (0.0, 1.0),
                )
            )
    return figures
