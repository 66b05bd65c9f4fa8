"""`qnodeos lab` as a process: its channels, its end, and what a killed one leaves behind."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from qnodeos.cli.lab_file import load_lab
from qnodeos.cli.processes import ChildSpec, ChildState, Processes
from qnodeos.engine import TickEngine, open_engine, read_channel
from qnodeos.engine.links import ShmLink
from qnodeos.errors import ChannelError, ChildProcessFailedError, ConfigurationError
from qnodeos.qdevice import instructions
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.outcomes import Outcome
from sim.link import LinkParameters
from sim.realtime.loop import may_spin

DEADLINE_S = 60.0
NAMES = ("client", "server")


@contextmanager
def running_lab(directory: Path, *arguments: str) -> Iterator[Processes]:
    (directory / "lab.yaml").write_text("preset: fast\npriority: 0\n", "utf-8")
    spec = ChildSpec("lab", ("lab", str(directory / "lab.yaml"), *arguments))
    with Processes([spec], directory) as processes:
        processes.start("lab")
        processes.wait_ready("lab", DEADLINE_S)
        yield processes


@contextmanager
def engines(directory: Path) -> Iterator[dict[str, TickEngine]]:
    with ExitStack() as cleanup:
        opened: dict[str, TickEngine] = {}
        for name in NAMES:
            engine = open_engine(ShmLink(directory / "run" / f"{name}.channel"), mode="event-paced")
            cleanup.callback(engine.close)
            engine.start()
            opened[name] = engine
        yield opened


def until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline_s, "it takes too long"
        time.sleep(0.001)  # a poll, whose end is the condition


def outcomes_of(
    opened: dict[str, TickEngine], given: dict[str, PhysicalInstruction]
) -> dict[str, Outcome]:
    """Have each engine carry out an instruction at about the same time."""
    found: dict[str, Outcome] = {}
    for name, instruction in given.items():
        opened[name].submit(instruction)

    def is_done() -> bool:
        for name in given:
            event = opened[name].poll()
            if event is not None:
                found[name] = event.outcome
        return len(found) == len(given)

    until(is_done)
    return found


def test_two_engines_get_their_outcomes_from_one_laboratory(tmp_path):
    result = tmp_path / "counted.json"
    with running_lab(tmp_path, "--json", str(result)) as processes:
        with engines(tmp_path) as opened:
            both = dict.fromkeys(NAMES, instructions.ini(0))
            assert set(outcomes_of(opened, both).values()) == {Outcome.SUCCESS_ZERO}
            lone = outcomes_of(opened, {"client": instructions.ent(0, 0)})
            assert lone == {"client": Outcome.ENTANGLEMENT_SYNC_FAILURE}
            for _ in range(3):
                flip = {name: instructions.sqg(instructions.Axis.X, 16, 0) for name in NAMES}
                assert set(outcomes_of(opened, both).values()) == {Outcome.SUCCESS_ZERO}
                assert all(outcome.is_success for outcome in outcomes_of(opened, flip).values())
                assert all(
                    outcome in {Outcome.SUCCESS_ZERO, Outcome.SUCCESS_ONE}
                    for outcome in outcomes_of(
                        opened, dict.fromkeys(NAMES, instructions.msr(0))
                    ).values()
                )
        processes.stop("lab")
        assert processes["lab"].ended_well
    counted = json.loads(result.read_text("utf-8"))
    assert counted["nodes"]["client"]["attached"] >= 1
    # A session, and an instruction each: the lone request is the client's only.
    assert counted["nodes"]["client"]["answers"] == 1 + 1 + 1 + 9
    assert counted["nodes"]["server"]["answers"] == 1 + 1 + 9
    assert counted["batches"] == counted["heralds"] == 0
    assert not list((tmp_path / "run").iterdir())


def test_a_killed_laboratory_is_taken_over(tmp_path):
    with running_lab(tmp_path) as processes:
        channel = tmp_path / "run" / "client.channel"
        before = read_channel(channel)
        with engines(tmp_path) as opened:
            assert outcomes_of(opened, {"client": instructions.ini(0)})
            processes.kill("lab")
            assert processes["lab"].exit_code == -signal.SIGKILL
            assert channel.exists()
            processes.start("lab")
            processes.wait_ready("lab", DEADLINE_S)
            after = read_channel(channel)
            assert after.generation != before.generation
            assert after.epoch_ns > before.epoch_ns

            def is_back() -> bool:
                opened["client"].poll()
                return opened["client"].statistics().device_restarts > 0

            until(is_back)
            # One that is handed over before the new session has begun may be given up.
            again = [outcomes_of(opened, {"client": instructions.ini(0)}) for _ in range(3)]
            assert again[-1] == {"client": Outcome.SUCCESS_ZERO}
        processes.stop("lab")
        assert processes["lab"].ended_well
    assert not list((tmp_path / "run").iterdir())


def test_a_second_laboratory_in_the_same_place_is_refused(tmp_path):
    with running_lab(tmp_path):
        second = subprocess.run(
            [sys.executable, "-m", "qnodeos", "lab", str(tmp_path / "lab.yaml")],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            check=False,
        )
        assert second.returncode == 1
        assert ChannelError.__name__ in second.stderr
        assert "client.channel" in second.stderr
        with engines(tmp_path) as opened:
            assert outcomes_of(opened, {"client": instructions.ini(0)})


def test_a_child_that_dies_says_why(tmp_path):
    (tmp_path / "lab.yaml").write_text("sede: 1\n", "utf-8")
    spec = ChildSpec("lab", ("lab", str(tmp_path / "lab.yaml")))
    with Processes([spec], tmp_path) as processes:
        processes.start("lab")
        with pytest.raises(ChildProcessFailedError, match="exit code 2") as caught:
            processes.wait_ready("lab", DEADLINE_S)
    assert "did you mean 'seed'" in str(caught.value)


def test_only_a_child_can_say_that_it_is_ready_and_one_that_hangs_is_killed(tmp_path):
    (tmp_path / "lab.yaml").write_text("priority: 0\n", "utf-8")
    spec = ChildSpec("lab", ("lab", str(tmp_path / "lab.yaml")))
    with Processes([spec], tmp_path) as processes:
        processes.start("lab")
        processes.signal("lab", signal.SIGSTOP)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as stranger:
            stranger.sendto(b"READY=1\nSTATUS=fine", processes.notify_address)
        with pytest.raises(ChildProcessFailedError, match="was not ready after"):
            processes.wait_ready("lab", 0.3)
        assert processes["lab"].status == ""
        processes.stop("lab", timeout_s=0.1)
        assert processes["lab"].state is ChildState.STOPPED
        assert processes["lab"].exit_code == -signal.SIGKILL
        assert not processes["lab"].ended_well


def test_children_end_with_their_parent(tmp_path):
    (tmp_path / "lab.yaml").write_text("priority: 0\n", "utf-8")
    parent = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "import sys, time; from pathlib import Path\n"
            "from qnodeos.cli.processes import ChildSpec, ChildState, Processes\n"
            "place = Path(sys.argv[1])\n"
            "children = Processes([ChildSpec('lab', ('lab', str(place / 'lab.yaml')))], place)\n"
            "children.start('lab'); children.wait_ready('lab')\n"
            "print(children['lab'].pid, flush=True); time.sleep(1000)",
            str(tmp_path),
        ],
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        handle = os.pidfd_open(child)
        try:
            parent.kill()
            until(lambda: not (tmp_path / "run" / "client.channel").exists())
            until(lambda: not _runs(handle))
        finally:
            os.close(handle)


def _runs(handle: int) -> bool:
    return not select.select([handle], (), (), 0)[0]


# --- the file -----------------------------------------------------------------------------


def test_a_laboratory_file_says_what_differs_from_its_preset(tmp_path):
    path = tmp_path / "lab.yaml"
    path.write_text(
        "preset: fast\nnetwork: {client: {noise: {readout_fidelity_0: 0.9}}}\n", "utf-8"
    )
    file = load_lab(path)
    assert file.network.client.noise.readout_fidelity_0 == 0.9
    assert file.network.link == LinkParameters.fast()
    assert file.channel("client") == tmp_path / "run" / "client.channel"
    path.write_text("seed: 4\n", "utf-8")
    assert load_lab(path).network.link == LinkParameters.paper()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("preset: quick\n", "preset"),
        ("nodes: [a, a]\n", "two names"),
        ("nodes: [a, ../b]\n", "nodes"),
        ("network: {link: {sync_window: 3}}\n", "sync_window_ticks"),
        ("grace_ticks: 0\n", "grace_ticks"),
    ],
)
def test_a_wrong_laboratory_file_is_refused(tmp_path, text, message):
    path = tmp_path / "lab.yaml"
    path.write_text(text, "utf-8")
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_lab(path)
    assert caught.value.file == str(path)


def test_it_spins_where_nodes_that_spin_leave_a_core():
    assert not may_spin(2, cores=5)
    assert may_spin(2, cores=6)
