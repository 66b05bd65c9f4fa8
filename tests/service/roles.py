"""Programs in processes of their own that can be made to die at a given step.

The processes are forked from a server that has imported everything, so they start in
milliseconds; to the QNPU they are what `qnodeos run` is.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import closing
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from qnodeos.cnpu.external import install

install()

from netqasm.sdk import EPRSocket  # noqa: E402
from netqasm.sdk.external import NetQASMConnection, Socket  # noqa: E402

from qnodeos.cli.programs import build_cnpu  # noqa: E402
from qnodeos.cnpu.runner import ProgramRunner, ProgramState, ProgramTask  # noqa: E402
from qnodeos.service.node_file import load_node  # noqa: E402

CLIENT_STEPS = (
    "connected",
    "created",
    "while flushing",
    "measured",
    "sent",
    "between circuits",
)
SERVER_STEPS = (
    "connected",
    "asked",
    "while flushing",
    "holding",
    "told",
    "while computing",
    "between circuits",
)

Reach = Callable[[str], None]

_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tests.service.roles"])


def client(circuits: int, reach: Reach) -> list[int]:
    """The delegating program (see `qnodeos.experiments.programs.dqc_client`), step by step."""
    epr_socket = EPRSocket("server")
    server = Socket("client", "server")
    outcomes: list[int] = []
    with NetQASMConnection("client", epr_sockets=[epr_socket], max_qubits=1) as connection:
        reach("connected")
        for _ in range(circuits):
            qubit = epr_socket.create_keep()[0]
            reach("created")
            qubit.rot_Y(n=8, d=4)
            qubit.rot_X(n=18, d=4)
            outcome = qubit.measure(store_array=False)
            reach("while flushing")
            connection.flush()
            reach("measured")
            outcomes.append(int(outcome))
            server.send(str(16 * outcomes[-1] % 32))
            reach("sent")
            reach("between circuits")
    return outcomes


def server(circuits: int, reach: Reach) -> list[int]:
    """The computing program, step by step."""
    epr_socket = EPRSocket("client")
    peer = Socket("server", "client")
    outcomes: list[int] = []
    with NetQASMConnection("server", epr_sockets=[epr_socket], max_qubits=1) as connection:
        reach("connected")
        for _ in range(circuits):
            qubit = epr_socket.recv_keep()[0]
            reach("asked")
            reach("while flushing")
            connection.flush()
            reach("holding")
            steps = int(peer.recv())
            reach("told")
            qubit.rot_Y(n=8, d=4)
            qubit.rot_X(n=(steps + 16) % 32, d=4)
            outcome = qubit.measure(store_array=False)
            reach("while computing")
            connection.flush()
            outcomes.append(int(outcome))
            reach("between circuits")
    return outcomes


ROLES = {"client": client, "server": server}


class Role:
    """One program, running in a process.

    Args:
        node: file of its node; the program is the one with the node's name.
        circuits: how many it does.
        result: file for what became of it.
        die_at: step at which the process kills itself, None to live.
        die_in: number of the circuit in which that happens.
        timeout_s: after which it is stopped.
    """

    def __init__(
        self,
        node: Path,
        circuits: int,
        result: Path,
        *,
        die_at: str | None = None,
        die_in: int = 0,
        timeout_s: float = 60.0,
    ) -> None:
        self._result = result
        result.unlink(missing_ok=True)
        self._process: BaseProcess = _CONTEXT.Process(
            target=_run, args=(node, circuits, result, die_at, die_in, timeout_s), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process.pid is not None
        return self._process.pid

    def wait(self, timeout_s: float) -> dict[str, Any] | None:
        """Wait for its end.

        Returns:
            ``state``, ``result`` and ``error`` (name of its class) of the program; None if the
            process died.
        """
        self._process.join(timeout_s)
        assert self._process.exitcode is not None, "the process does not end"
        if self._process.exitcode == -signal.SIGKILL:
            return None
        assert self._process.exitcode == 0
        outcome: dict[str, Any] = json.loads(self._result.read_text("utf-8"))
        return outcome

    def close(self) -> None:
        """End the process if it runs."""
        self._process.kill()
        self._process.join()
        self._process.close()


def _run(
    node_path: Path,
    circuits: int,
    result: Path,
    die_at: str | None,
    die_in: int,
    timeout_s: float,
) -> None:
    node = load_node(node_path)
    seen: dict[str, int] = {}
    dying = threading.Event()

    def reach(step: str) -> None:
        if dying.is_set():  # the flush was quicker
            threading.Event().wait()
        number = seen.get(step, 0)
        seen[step] = number + 1
        if step != die_at or number != die_in:
            return
        if step.startswith("while"):
            # In the midst of the flush that follows; when exactly does not matter.
            dying.set()
            threading.Thread(target=_die_soon, daemon=True).start()
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    with closing(build_cnpu(node, start_timeout_s=timeout_s)) as cnpu:
        task = ProgramTask(node.name, ROLES[node.name], {"circuits": circuits, "reach": reach})
        runner = ProgramRunner(cnpu, [task], pool=1)
        runner.run(timeout_s)
    (one,) = runner.runs
    outcome = {
        "state": ProgramState(one.state).value,
        "result": one.result,
        "error": None if one.error is None else type(one.error).__name__,
        "text": str(one.error),
    }
    result.write_text(json.dumps(outcome), "utf-8")


def _die_soon() -> None:
    time.sleep(0.003)
    os.kill(os.getpid(), signal.SIGKILL)
