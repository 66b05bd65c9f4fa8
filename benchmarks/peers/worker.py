"""Runs one of the programs on SimulaQron: `python worker.py PROGRAM CIRCUITS [--tuned]`.

Started by `benchmarks.peers.theirs` with the interpreter of the environment that has
SimulaQron, in a directory of its own, which is the home directory too: that is where
SimulaQron keeps its settings. Prints one line of JSON: what alice returned.

SimulaQron's servers listen on all interfaces of the machine and ask nobody who they are, and no
setting changes that. So they are made to listen on the loopback interface here.

`--tuned` makes three waits shorter: the pause of 0.1 s before a client reads a reply and the one
between two looks for a pair are 1 ms, and Nagle's algorithm is off. Other pauses of 0.1 s stay:
without them it locks itself up more often.
"""

from __future__ import annotations

import functools
import json
import os
import socket
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import Any

os.environ["NETQASM_SIMULATOR"] = "simulaqron"
os.environ["OMP_NUM_THREADS"] = "1"  # as SimulaQron's own runner does

LOOK_S = 0.001
SETTLE_S = 1.0
"""From the start of the servers to that of the programs."""
WAIT_S = 600.0
"""For the programs."""


def main(program: str, circuits: int, is_tuned: bool) -> dict[str, Any]:
    """Start SimulaQron, run a program, stop it; returns what alice returned."""
    roles = ("alice", "bob")
    network_file = Path("simulaqron_network.json").resolve()
    network_file.write_text(json.dumps([_network(roles)]), "utf-8")
    from simulaqron.network import Network
    from simulaqron.reactor import reactor
    from simulaqron.settings import network_config, simulaqron_settings

    network_config.read_from_file(network_file)
    reactor.listenTCP = functools.partial(reactor.listenTCP, interface="127.0.0.1")
    if is_tuned:
        _tune(simulaqron_settings)
    network = Network(nodes=list(roles), network_config_file=network_file)
    network.start(wait_until_running=True)
    # When the connection ends by which that was seen, its server forgets everything, and must not
    # do so when the programs are there.
    time.sleep(SETTLE_S)
    try:
        with get_context("fork").Pool(len(roles)) as pool:
            alice, bob = (pool.apply_async(_run, (program, role, circuits)) for role in roles)
            bob.get(WAIT_S)
            return alice.get(WAIT_S)
    finally:
        network.stop()


def _network(roles: tuple[str, ...]) -> dict[str, Any]:
    sockets = ("app_socket", "qnodeos_socket", "vnode_socket")
    ports = iter(_free_ports(len(roles) * len(sockets)))
    return {
        "name": "default",
        "nodes": [{role: {name: ["localhost", next(ports)] for name in sockets}} for role in roles],
        "topology": None,
    }


def _free_ports(count: int) -> list[int]:
    listening = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [server.getsockname()[1] for server in listening]
    for server in listening:
        server.close()
    return ports


def _tune(settings: Any) -> None:
    from simulaqron.sdk import connection as client
    from simulaqron.sdk.socket import Socket

    class Time:
        """The module `time` of the client, for whom no pause is long."""

        @staticmethod
        def sleep(seconds: float) -> None:
            time.sleep(min(seconds, LOOK_S))

    settings.recv_retry_time = LOOK_S
    client.time = Time

    def without_nagle(connect: Any) -> Any:
        @functools.wraps(connect)
        def connected(*arguments: Any, **options: Any) -> Any:
            made = connect(*arguments, **options)
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return made

        return connected

    client.SimulaQronConnection._setup_socket = staticmethod(
        without_nagle(client.SimulaQronConnection._setup_socket)
    )
    Socket._connect = without_nagle(Socket._connect)


def _run(program: str, role: str, circuits: int) -> dict[str, Any]:
    # The directory of this file is on the path: the one of the script.
    from programs import PROGRAMS

    return getattr(PROGRAMS[program], role)(circuits)


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], int(sys.argv[2]), "--tuned" in sys.argv[3:])))
