"""A system of real processes, in a directory: laboratory, one service per node, controller.

The directory holds `lab.yaml`, for each of its nodes a file `NODE.yaml`, and, if there is a
controller, `controller.yaml`. `qnodeos up` runs such a directory; `running_two_nodes` makes one
for a test or a measurement, with ports that are free.
"""

from __future__ import annotations

import copy
import json
import random
import signal
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from qnodeos.cli.lab_file import load_lab
from qnodeos.cli.processes import READY_S, STOP_S, Child, ChildSpec, Processes
from qnodeos.errors import CallerError, ConfigurationError
from qnodeos.service.node_file import NodeFile, load_node

LAB: Final = "lab"
CONTROLLER: Final = "controller"
RUN: Final = "run"
LAB_RESULT: Final = "lab.json"
"""What the laboratory has counted, in the directory of the logs."""

_NODES: Final = ("client", "server")
_BINS: Final[Mapping[str, Mapping[str, float]]] = {
    # Nearly all of a bin is attempts, and a batch may begin 0.5 ms late, as happens on a machine
    # that does other things too.
    "fast": {"bin_ms": 10.5, "guard_ms": 0.1, "batch_ms": 9.845},
    # Published, see `LinkParameters.paper`.
    "paper": {"bin_ms": 10.0, "guard_ms": 1.0, "batch_ms": 8.8},
}
"""Time bins in which a batch of a link preset fits."""
_PORTS_PER_NODE: Final = 3
_FREE_PORTS: Final = range(20_000, 32_000)
"""Where free ports are looked for: below those that the kernel gives to outgoing connections."""
_ATTEMPTS: Final = 1_000


def system_specs(directory: Path) -> list[ChildSpec]:
    """The processes of a directory, in the order of their start.

    Raises:
        ConfigurationError: a file is missing or wrong.
    """
    if directory.is_file():
        raise ConfigurationError(
            f"is a file; name the directory that it is in: {directory.parent}", file=str(directory)
        )
    lab = directory / f"{LAB}.yaml"
    nodes = load_lab(lab).all_nodes
    specs = [ChildSpec(LAB, (LAB, str(lab), "--json", str(directory / RUN / LAB_RESULT)))]
    for node in nodes:
        if node in {LAB, CONTROLLER}:
            raise ConfigurationError(
                f"a node cannot be called {node!r} here: {node}.yaml is another file",
                file=str(lab),
                field="nodes",
            )
        path = directory / f"{node}.yaml"
        if load_node(path).name != node:
            raise ConfigurationError(
                f"must be {node!r}, as the file and the node in {lab} are called",
                file=str(path),
                field="name",
            )
        specs.append(ChildSpec(node, ("serve", str(path))))
    controller = directory / f"{CONTROLLER}.yaml"
    if controller.exists():
        specs.append(ChildSpec(CONTROLLER, (CONTROLLER, str(controller))))
    return specs


def two_node_files(ports: Sequence[int], preset: str = "fast") -> dict[str, dict[str, Any]]:
    """Contents of the files of two nodes, client and server, on this machine.

    Args:
        ports: six TCP ports: for programs, peers and applications, of the client, then of
            the server.
        preset: of the laboratory, "fast" or "paper"; the time bins are made for it.

    Returns:
        By the name of the file without its ending.
    """
    places = {
        name: [f"tcp:127.0.0.1:{port}" for port in ports[first : first + _PORTS_PER_NODE]]
        for name, first in zip(_NODES, (0, _PORTS_PER_NODE), strict=True)
    }
    files: dict[str, dict[str, Any]] = {LAB: {"preset": preset, "nodes": list(_NODES)}}
    for number, name in enumerate(_NODES):
        other = _NODES[1 - number]
        api, peer, applications = places[name]
        files[name] = {
            "name": name,
            "node_id": number,
            "device": {"link": "shm", "path": f"{RUN}/{name}.channel"},
            "api": {"listen": [f"unix:{RUN}/{name}-api.sock", api]},
            "peers": {
                other: {
                    "node_id": 1 - number,
                    "address": places[other][1],
                    "applications": places[other][2],
                }
            },
            "peer": {"listen": peer},
            "applications": {"listen": applications},
        }
    files[CONTROLLER] = {
        "nodes": {
            name: {"node_id": number, "address": places[name][1]}
            for number, name in enumerate(_NODES)
        },
        "links": [list(_NODES)],
        **_BINS[preset],
    }
    return files


class TwoNodes:
    """A running system of two nodes; made by `running_two_nodes`.

    Attributes:
        directory: with its files; logs, sockets and channels are in `run` there.
        nodes: names of the nodes.
        processes: the children: `lab`, the nodes, and the controller.
    """

    def __init__(self, directory: Path, processes: Processes) -> None:
        self.directory = directory
        self.nodes = _NODES
        self.processes = processes

    def node_path(self, node: str) -> Path:
        """The file of a node, for `qnodeos run --node`."""
        return self.directory / f"{node}.yaml"

    def node_file(self, node: str) -> NodeFile:
        """What the file of a node says; paths are absolute."""
        return load_node(self.node_path(node))

    def api_address(self, node: str, kind: str = "unix") -> str:
        """Where programs reach a node's QNPU.

        Args:
            node: its name.
            kind: "unix" or "tcp".

        Raises:
            CallerError: it has no such address.
        """
        addresses = [str(address) for address in self.node_file(node).api.listen]
        for address in addresses:
            if address.startswith(f"{kind}:"):
                return address
        raise CallerError(f"{node} has no {kind} address for programs, only {addresses}")

    def log(self, name: str) -> str:
        """Everything a process has written so far."""
        return self.processes[name].log.read_text("utf-8", "replace")

    def pid(self, name: str) -> int | None:
        """Of a process, None if it does not run."""
        return self.processes[name].pid

    def poll(self, timeout_s: float = 0.0) -> list[Child]:
        """See `Processes.poll`."""
        return self.processes.poll(timeout_s)

    def wait_ready(self, name: str, timeout_s: float = READY_S) -> None:
        """See `Processes.wait_ready`."""
        self.processes.wait_ready(name, timeout_s)

    def kill(self, name: str) -> None:
        """End a process at once (SIGKILL), and wait until it is gone."""
        self.processes.kill(name)

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal, for instance SIGSTOP, to a process."""
        self.processes.signal(name, number)

    def start(self, name: str, timeout_s: float = READY_S) -> None:
        """Start a process that has ended, and wait until it is ready."""
        self.processes.start(name)
        self.processes.wait_ready(name, timeout_s)

    def restart(self, name: str, timeout_s: float = READY_S) -> None:
        """End a process in order, if it runs, start it again, and wait until it is ready."""
        self.processes.stop(name)
        self.start(name, timeout_s)

    def stop(self, name: str | None = None, timeout_s: float = STOP_S) -> None:
        """End one process in order, or all, the last one first."""
        if name is None:
            self.processes.stop_all(timeout_s)
        else:
            self.processes.stop(name, timeout_s)

    def lab_result(self) -> dict[str, Any]:
        """What the laboratory has counted; written when it ends in order."""
        result: dict[str, Any] = json.loads((self.directory / RUN / LAB_RESULT).read_text("utf-8"))
        return result


def write_two_nodes(
    directory: Path,
    *,
    lab: Mapping[str, Any] | None = None,
    node: Mapping[str, Any] | None = None,
    controller: Mapping[str, Any] | None = None,
) -> None:
    """Write the files of two nodes on free ports; arguments as for `running_two_nodes`.

    Raises:
        CallerError: the laboratory's preset does not exist.
    """
    preset = str((lab or {}).get("preset", "fast"))
    if preset not in _BINS:
        raise CallerError(f"there is no preset {preset!r}; choose one of {', '.join(_BINS)}")
    files = two_node_files(free_ports(2 * _PORTS_PER_NODE), preset)
    changes = {LAB: lab, CONTROLLER: controller} | dict.fromkeys(_NODES, node)
    (directory / RUN).mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = directory / f"{name}.yaml"
        # JSON is YAML.
        path.write_text(json.dumps(_changed(content, changes[name] or {}), indent=1), "utf-8")


@contextmanager
def running_two_nodes(
    directory: Path,
    *,
    lab: Mapping[str, Any] | None = None,
    node: Mapping[str, Any] | None = None,
    controller: Mapping[str, Any] | None = None,
    without: Sequence[str] = (),
    timeout_s: float = READY_S,
) -> Iterator[TwoNodes]:
    """Client and server as real processes, in a directory of their own.

    Args:
        directory: for files, logs, sockets and channels; its path should be short, for a Unix
            socket's may have 107 bytes.
        lab: what is different in lab.yaml, field by field.
        node: what is different in both node files.
        controller: what is different in controller.yaml.
        without: processes that are not started; `start` does that later.
        timeout_s: how long each may take to be ready.

    Yields:
        The system, every process of it ready.

    Raises:
        ChildProcessFailedError: a process died, or did not become ready in time.
        ConfigurationError: the files with these changes are wrong.
    """
    write_two_nodes(directory, lab=lab, node=node, controller=controller)
    with Processes(system_specs(directory), directory / RUN) as processes:
        system = TwoNodes(directory, processes)
        for child in processes.children:
            if child.name not in without:
                system.start(child.name, timeout_s)
        yield system


def free_ports(count: int) -> list[int]:
    """TCP ports of 127.0.0.1 on which nobody listens now.

    Raises:
        CallerError: too few were found.
    """
    found: list[int] = []
    rng = random.SystemRandom()
    for _ in range(_ATTEMPTS):
        port = rng.choice(_FREE_PORTS)
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        if port not in found:
            found.append(port)
        if len(found) == count:
            return found
    raise CallerError(f"found only {len(found)} of {count} free TCP ports of 127.0.0.1")


def _changed(content: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with changes, field by field."""
    changed = copy.deepcopy(dict(content))
    for name, value in changes.items():
        old = changed.get(name)
        if isinstance(value, Mapping) and isinstance(old, dict):
            changed[name] = _changed(old, value)
        else:
            changed[name] = value
    return changed
