"""Sweeps as a whole: on workers that are killed, on the command line, and when things go wrong."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import psutil
import pytest
import trustme
import xarray
from distributed import Client, KilledWorker, LocalCluster, Security

from qnodeos.cli import sweep_run
from qnodeos.errors import ConfigurationError, ConnectionLostError
from qnodeos.experiments import sweep_cluster, sweep_experiments
from qnodeos.experiments.sweep import run_here, run_sweep
from qnodeos.experiments.sweep_cluster import (
    ATTEMPTS,
    DEATHS,
    SweepCluster,
    _Outcome,
    check_address,
    local_cluster,
    remote_cluster,
)
from qnodeos.experiments.sweep_experiments import (
    DqcOptions,
    SweepExperiment,
    number_at,
    sweep_experiment,
)
from qnodeos.experiments.sweep_journal import Journal
from qnodeos.experiments.sweep_results import PointResult, Status, run_point, versions
from qnodeos.experiments.sweep_spec import PointTask, parse_sweep
from qnodeos.transport import TlsFiles

# As examples/sweeps/quick.yaml.
QUICK = """\
experiment: dqc
seed: 7
settings:
  circuits_per_set: 2
  link: prompt
  profile: zero
  link.protocol.kind: perfect
grid:
  nodes.noise.gate_depolarising: {start: 0, stop: 0.2, num: 10}
  server.noise.readout_fidelity_0: {start: 0.9, stop: 1, num: 20}
outputs: [mean_fidelity.ssro.*, live_time_ms.mean]
"""
KILL_AFTER = 30
"""Points that are done before a worker is killed."""


def swept(path, plan, runner, on_point=lambda result: None):
    with Journal(path, plan, versions()) as journal:
        run_sweep(plan, journal, runner, on_point)
        return journal.results


def swept_with_a_kill(path, plan, cluster: SweepCluster):
    """The results; one of two workers is killed when some points are done."""
    cluster.check()
    workers = cluster.client.run(os.getpid)
    assert len(workers) == 2
    done: list[PointResult] = []

    def on_point(result: PointResult) -> None:
        done.append(result)
        if len(done) == KILL_AFTER:
            os.kill(min(workers.values()), signal.SIGKILL)

    results = swept(path, plan, cluster.run, on_point)
    assert len(done) == plan.points
    return results


@contextmanager
def started(*arguments: str):
    """A process of dask, as one would start it by hand."""
    command = [sys.executable, "-m", "dask", *arguments]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def by_hand():
    """A scheduler and two workers; gives the scheduler's address."""
    quiet = ("--host", "127.0.0.1", "--no-dashboard", "--dashboard-address", "127.0.0.1:0")
    with started("scheduler", "--port", "0", *quiet) as head:
        assert head.stderr is not None
        found = (re.search(r"Scheduler at: +(tcp://\S+)", line) for line in head.stderr)
        address = next(match[1] for match in found if match)
        worker = ("worker", address, "--nthreads", "1", "--no-nanny", *quiet)
        with started(*worker), started(*worker):
            yield address


def test_two_hundred_points_survive_a_killed_worker_bit_by_bit(tmp_path):
    plan = parse_sweep(QUICK, "quick.yaml")
    assert plan.points == 200
    alone = swept(tmp_path / "alone", plan, run_here)
    assert alone.count(Status.DONE) == 200
    assert len(np.unique(alone.values[:, 0])) > 20
    with local_cluster(2) as cluster:
        local = swept_with_a_kill(tmp_path / "local", plan, cluster)
    with by_hand() as address, remote_cluster(address, None) as cluster:
        cluster.client.wait_for_workers(2, timeout=60)
        hand = swept_with_a_kill(tmp_path / "hand", plan, cluster)
    for results in (local, hand):
        assert results.values.tobytes() == alone.values.tobytes()
        assert results.status.tobytes() == alone.status.tobytes()


# --- workers and schedulers that are not as they should be ------------------------------


class Toy:
    """An experiment that takes no time, and what happened to it."""

    def __init__(self) -> None:
        self.runs: list[int] = []

    def run(self, settings, seed):
        self.runs.append(seed)
        if settings.network.schedule.bin_ms == 13:
            raise ZeroDivisionError("13")
        return {"circuits": settings.network.schedule.bin_ms + seed % 7}


@pytest.fixture
def toy(monkeypatch):
    made = Toy()
    experiment = SweepExperiment("dqc", DqcOptions, made.run, ("circuits",), ("circuits",))
    monkeypatch.setattr(sweep_experiments, "EXPERIMENTS", {"dqc": experiment})
    return made


TOY = "experiment: dqc\ngrid:\n  schedule.bin_ms: [11, 12, 13, 14]\n"


@contextmanager
def threads(security: Security | None = None):
    """A scheduler and a worker in this process; gives a cluster as one connects to it."""
    kind = "tcp://" if security is None else "tls://"
    with LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        processes=False,
        host="127.0.0.1",
        protocol=kind,
        security=security,
        dashboard_address="127.0.0.1:0",
        scheduler_kwargs={"dashboard": False},
    ) as cluster:
        yield cluster


def test_local_workers_cannot_be_reached_from_elsewhere():
    with local_cluster(1) as cluster:
        assert cluster.address.startswith("tls://127.0.0.1:")
        for worker in cluster.client.nthreads():
            assert worker.startswith("tls://127.0.0.1:")
        us = psutil.Process()
        listening = {
            connection.laddr.ip
            for process in (us, *us.children(recursive=True))
            for connection in process.net_connections("inet")
            if connection.status == psutil.CONN_LISTEN
        }
        assert listening == {"127.0.0.1"}
        with pytest.raises((OSError, TimeoutError)):
            Client(cluster.address.replace("tls", "tcp"), timeout=5, set_as_default=False)


def test_ctrl_c_waits_until_workers_are_there():
    begun = False
    with pytest.raises(KeyboardInterrupt), sweep_cluster._interrupts_later():
        os.kill(os.getpid(), signal.SIGINT)
        mask = "import signal; print(*signal.pthread_sigmask(signal.SIG_BLOCK, []))"
        command = [sys.executable, "-c", mask]
        child = subprocess.run(command, capture_output=True, text=True, check=True)
        begun = True
    assert begun
    assert child.stdout.split() == [str(signal.SIGINT.value)]
    assert signal.SIGINT not in signal.pthread_sigmask(signal.SIG_BLOCK, [])


def test_ctrl_c_while_the_result_is_written_is_told(here, command, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sweep_run, "write_dataset", interrupted)
        done = command("sweep", "toy.yaml", "--workers", "0")
    assert done.code == 130
    assert "Interrupted: the same command goes on" in done.out
    assert not (here / "results" / "toy.nc").exists()
    command("sweep", "toy.yaml", "--workers", "0")
    assert (here / "results" / "toy.nc").exists()


def test_pipes_are_neither_read_nor_replaced(here, command):
    os.mkfifo("pipe")
    for arguments, told in (
        (["pipe"], "pipe: is a pipe; name a file"),
        (["toy.yaml", "--out", "pipe"], "it is a pipe; choose another --out"),
        (["toy.yaml", "--out", "pipe", "--restart"], "it is a pipe; choose another --out"),
    ):
        done = command("sweep", *arguments)
        assert done.code == 2
        assert told in done.err
    assert [path for path in here.iterdir() if path.is_fifo()] == [here / "pipe"]


@pytest.fixture
def certificates(tmp_path):
    authority = trustme.CA()
    issued = authority.issue_cert("cluster")
    tls = TlsFiles(
        certificate=tmp_path / "us.pem", key=tmp_path / "us.key", authority=tmp_path / "ca.pem"
    )
    authority.cert_pem.write_to_path(str(tls.authority))
    issued.cert_chain_pems[0].write_to_path(str(tls.certificate))
    tls.key.touch(mode=0o600)
    issued.private_key_pem.write_to_path(str(tls.key))
    return tls


def test_a_scheduler_with_certificates(toy, tmp_path, certificates):
    files = {
        f"tls_{role}_{part}": str(path)
        for role in ("scheduler", "worker", "client")
        for part, path in (("cert", certificates.certificate), ("key", certificates.key))
    }
    security = Security(tls_ca_file=str(certificates.authority), require_encryption=True, **files)
    plan = parse_sweep(TOY, "toy.yaml")
    with (
        threads(security) as there,
        remote_cluster(there.scheduler_address, certificates) as cluster,
    ):
        cluster.check()
        results = swept(tmp_path / "j", plan, cluster.run)
    assert results.count(Status.DONE) == 3
    assert results.errors == {2: "ZeroDivisionError: 13"}


def test_a_key_that_others_can_read_is_refused(certificates):
    certificates.key.chmod(0o644)
    with (
        pytest.raises(ConfigurationError, match="chmod 600"),
        remote_cluster("tls://127.0.0.1:1", certificates),
    ):
        pass


@pytest.mark.parametrize(
    ("address", "told"),
    [
        ("127.0.0.1:8786", "no address of a scheduler; write tcp://HOST:PORT or tls://HOST:PORT"),
        ("ws://127.0.0.1:8786", "no address of a scheduler"),
        ("tcp://127.0.0.1", "no address of a scheduler"),
        ("tcp://127.0.0.1:99999999", "write tcp://HOST:PORT or tls://HOST:PORT, with PORT up to"),
        ("tcp://192.0.2.1:8786", "is another machine.*use tls://"),
        ("tcp://cluster:8786", "is another machine"),
        ("tls://192.0.2.1:8786", "needs --tls-ca, --tls-cert and --tls-key"),
    ],
)
def test_addresses_that_are_refused(address, told):
    with pytest.raises(ConfigurationError, match=told):
        check_address(address, None)


def test_certificates_without_tls_are_refused(certificates):
    with pytest.raises(ConfigurationError, match="need tls://"):
        check_address("tcp://127.0.0.1:8786", certificates)
    check_address("tls://192.0.2.1:8786", certificates)


def test_a_scheduler_that_goes_is_told_and_what_is_done_is_kept(toy, tmp_path):
    plan = parse_sweep("experiment: dqc\nrepetitions: 500\ngrid: {schedule.bin_ms: [11]}\n", "t")
    with threads() as there, remote_cluster(there.scheduler_address, None) as cluster:
        done: list[PointResult] = []

        def on_point(result: PointResult) -> None:
            done.append(result)
            if len(done) == 5:
                there.close()

        with pytest.raises(ConnectionLostError, match="connection to the scheduler is lost"):
            swept(tmp_path / "j", plan, cluster.run, on_point)
    with Journal(tmp_path / "j", plan, versions()) as journal:
        assert journal.results.count(Status.DONE) == len(done) < plan.points


def test_a_scheduler_without_workers(monkeypatch):
    monkeypatch.setattr(sweep_cluster, "NO_WORKERS_S", 0.2)
    with threads() as there, remote_cluster(there.scheduler_address, None) as cluster:
        there.scale(0)
        there.sync(there._correct_state)
        with pytest.raises(ConnectionLostError, match=r"no workers for 0\.2 s; start some"):
            cluster.check()
        with pytest.raises(ConnectionLostError, match="had no workers"):
            list(cluster.run(iter([PointTask(0, "dqc", 1, {}, ())])))


class FakeFuture:
    """A future of dask that is done at once."""

    status = "finished"

    def __init__(self, outcome):
        self.outcome = outcome

    def add_done_callback(self, function):
        function(self)

    def result(self, timeout):
        outcome = self.outcome() if callable(self.outcome) else self.outcome
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


class FakeClient:
    """A client of dask; what it is given comes out as the next of some outcomes."""

    def __init__(self, *outcomes):
        self.outcomes = list(outcomes)
        self.keys: list[str] = []

    def nthreads(self):
        return {"tcp://127.0.0.1:9": 1}

    def wait_for_workers(self, number, timeout):
        pass

    def run(self, function, on_error):
        return {"tcp://127.0.0.1:9": self.outcomes[0]}

    def submit(self, function, task, key, pure):
        self.keys.append(key)
        return FakeFuture(self.outcomes.pop(0))


TASK = PointTask(3, "dqc", 1, {}, ())
GOOD = _Outcome(PointResult(3, (1.0,)), versions())


def results_of(*outcomes) -> list[PointResult]:
    client = FakeClient(*outcomes)
    results = list(SweepCluster(client, "tcp://there").run(iter([TASK])))  # type: ignore[arg-type]
    assert not client.outcomes
    assert len(set(client.keys)) == len(outcomes)
    return results


def killed() -> KilledWorker:
    worker: Any = SimpleNamespace(address="tcp://127.0.0.1:9")
    return KilledWorker("key", worker, DEATHS)


def test_a_point_whose_workers_died_is_given_out_again():
    assert results_of(killed(), killed(), GOOD) == [GOOD.result]


def test_ctrl_c_gives_up_the_points_that_run():
    class Interrupted(FakeClient):
        def submit(self, function, task, key, pure):
            if not self.keys:
                with suppress(KeyboardInterrupt):  # as in a finaliser, where it would be lost
                    signal.raise_signal(signal.SIGINT)
            return super().submit(function, task, key, pure)

    client = Interrupted(*[GOOD] * 5)
    with pytest.raises(KeyboardInterrupt):
        list(SweepCluster(client, "tcp://there").run(iter([TASK] * 5)))  # type: ignore[arg-type]
    assert client.outcomes


def test_a_point_that_always_kills_its_worker_has_failed():
    (result,) = results_of(*(killed() for _ in range(ATTEMPTS + 1)))
    assert result.number == 3
    assert result.error is not None
    assert result.error.startswith("KilledWorker: its worker died, again and again")


def test_a_result_that_went_with_its_worker_is_waited_for():
    answers = iter([TimeoutError(), TimeoutError(), GOOD])
    assert results_of(lambda: next(answers)) == [GOOD.result]


def test_an_error_of_the_machine_ends_the_sweep():
    with pytest.raises(MemoryError):
        results_of(MemoryError())


def test_workers_that_differ_are_refused():
    other = {**versions(), "netqasm": "1.0"}
    missing = ModuleNotFoundError("No module named 'qnodeos'")
    with pytest.raises(ConfigurationError, match=r"netqasm 1\.0 there, .* here; .*install"):
        SweepCluster(FakeClient(other), "tcp://there").check()  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="No module named 'qnodeos'; install the same"):
        SweepCluster(FakeClient(missing), "tcp://there").check()  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="No module named 'qnodeos'; install the same"):
        results_of(missing)
    with pytest.raises(ConfigurationError, match=r"that ran a point .*netqasm 1\.0 there"):
        results_of(_Outcome(GOOD.result, other))


def test_workers_with_threads_are_refused(monkeypatch):
    client = FakeClient(versions())
    monkeypatch.setattr(client, "nthreads", lambda: {"tcp://127.0.0.1:9": 8})
    with pytest.raises(ConfigurationError, match=r"has 8 threads; .*--nthreads 1"):
        SweepCluster(client, "tcp://there").check()  # type: ignore[arg-type]


# --- the command ------------------------------------------------------------------------


@pytest.fixture
def here(tmp_path, monkeypatch, toy):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "toy.yaml").write_text(TOY, "utf-8")
    return tmp_path


def test_a_sweep_goes_on_where_it_was_and_tells_of_failed_points(here, toy, command):
    first = command("sweep", "toy.yaml", "--workers", "0", "--json", "s.json")
    assert first.code == 1
    assert "Point 2 failed: ZeroDivisionError: 13" in first.out
    assert "3 of 4 points done, 1 failed (simulated), 0 of them before" in first.out
    journal = here / "results" / "toy.nc.points.jsonl"
    lines = journal.read_text("utf-8").splitlines()
    journal.write_text("\n".join([*lines[:3], lines[3][:10]]), "utf-8")  # as a crash leaves it
    toy.runs.clear()
    second = command("sweep", "toy.yaml", "--workers", "0", "--json", "s.json")
    assert second.code == 1
    assert "Going on: 2 of 4 points are there." in second.out
    assert len(toy.runs) == 2
    assert journal.read_text("utf-8").splitlines() == lines
    summary = json.loads((here / "s.json").read_text("utf-8"))
    assert (summary["points"], summary["done"], summary["failed"]) == (4, 3, 1)
    assert summary["complete"] is True
    assert summary["points_known_before"] == 2
    assert summary["errors"] == [{"point": 2, "error": "ZeroDivisionError: 13"}]
    with xarray.open_dataset(here / "results" / "toy.nc", engine="h5netcdf") as read:
        assert read.attrs["complete"] == 1
        assert read["status"].values.tolist() == [1, 1, 2, 1]
    third = command("sweep", "toy.yaml", "--workers", "0", "--retry-failed")
    assert (third.code, len(toy.runs)) == (1, 3)


def test_a_changed_sweep_is_refused_and_restart_keeps_the_old_one(here, command):
    command("sweep", "toy.yaml", "--workers", "0")
    before = (here / "results" / "toy.nc").read_bytes()
    (here / "toy.yaml").write_text(TOY.replace(", 14", ""), "utf-8")
    refused = command("sweep", "toy.yaml", "--workers", "0")
    assert refused.code == 2
    assert "results of another sweep" in refused.err
    assert (here / "results" / "toy.nc").read_bytes() == before
    assert command("sweep", "toy.yaml", "--workers", "0", "--restart", "--quiet").code == 1
    assert sorted(each.name for each in (here / "results").iterdir()) == [
        "toy.nc",
        "toy.nc.old-1",
        "toy.nc.points.jsonl",
        "toy.nc.points.jsonl.old-1",
    ]
    assert (here / "results" / "toy.nc.old-1").read_bytes() == before


def test_ctrl_c_keeps_what_is_done(here, toy, command, monkeypatch):
    def interrupted(settings, seed):
        if settings.network.schedule.bin_ms == 12:
            raise KeyboardInterrupt
        return {"circuits": 1}

    experiment = sweep_experiments.EXPERIMENTS["dqc"]
    stopping = SweepExperiment("dqc", DqcOptions, interrupted, ("circuits",), ("circuits",))
    with monkeypatch.context() as patch:
        patch.setattr(sweep_experiments, "EXPERIMENTS", {"dqc": stopping})
        result = command("sweep", "toy.yaml", "--workers", "0")
    assert result.code == 130
    assert "Interrupted: the same command goes on" in result.out
    with xarray.open_dataset(here / "results" / "toy.nc", engine="h5netcdf") as read:
        assert (read.attrs["complete"], read.attrs["points_done"]) == (0, 1)
    assert sweep_experiments.EXPERIMENTS["dqc"] is experiment
    assert "Going on: 1 of 4 points" in command("sweep", "toy.yaml", "--workers", "0").out


def test_an_unreachable_scheduler_leaves_nothing(here, command, monkeypatch):
    monkeypatch.setattr(sweep_cluster, "CONNECT_S", 0.5)
    result = command("sweep", "toy.yaml", "--scheduler", "tcp://127.0.0.1:1")
    assert result.code == 1
    assert "no scheduler answers at tcp://127.0.0.1:1: start it with" in result.err
    assert len(result.err.splitlines()) == 1
    assert not list((here / "results").iterdir())


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing.yaml"], "nothing.yaml: there is no such file"),
        (
            ["toy.yaml", "--out", "no/such/folder.nc"],
            "no/such: No such file or directory; choose another --out",
        ),
        (["toy.yaml", "--out", "."], "it is a directory; choose another --out"),
        (["toy.yaml", "--out", "toy.yaml"], "it exists, and toy.yaml.points.jsonl"),
        (["toy.yaml", "--json", "no/such/s.json"], "cannot write the result there"),
        (["toy.yaml", "--out", "/proc/s.nc"], "/proc: No such file or directory; choose another"),
        (
            ["toy.yaml", "--json", "/proc/s.json"],
            "/proc: No such file or directory; choose another",
        ),
        (["toy.yaml", "--scheduler", "tcp://192.0.2.1:1"], "is another machine"),
        (["toy.yaml", "--scheduler", "tcp://[::1]:1", "--workers", "2"], "leave this out"),
        (["toy.yaml", "--tls-ca", "a"], "all three of them go together"),
        (["toy.yaml", "--workers", "257"], "less than or equal to 256"),
        (["--list", "dqk"], "choose one of: dqc"),
        ([], "name the file of a sweep"),
    ],
)
def test_mistakes_on_the_command_line(here, command, arguments, told):
    before = sorted(here.rglob("*"))
    result = command("sweep", *arguments)
    assert result.code == 2
    assert told in " ".join(result.err.replace("│", " ").split())
    left = [each for each in sorted(here.rglob("*")) if each not in before]
    assert left in ([], [here / "results"])


SAME_ALONE: dict[str, tuple[dict[str, Any], str]] = {
    "dqc": ({"circuits_per_set": 2, "link": "prompt"}, "mean_fidelity.ssro.value"),
    "lgt": ({"repetitions": 1, "scheduler": "queue-ahead"}, "mean_fidelity.multitasked.value"),
    "multitasking": ({"seconds": 1, "n": 1}, "alone.utilisation"),
}


@pytest.mark.parametrize("name", SAME_ALONE)
def test_a_point_is_the_experiment_with_the_seed_of_the_point(name, tmp_path, command):
    values, path = SAME_ALONE[name]
    point = run_point(
        PointTask(0, name, 12345, {**sweep_experiment(name).defaults, **values}, (path,))
    )
    options = [f"--{key.replace('_', '-')}={value}" for key, value in values.items()]
    file = tmp_path / "result.json"
    done = command("experiment", name, "--seed=12345", *options, f"--json={file}", "--workers=1")
    assert done.code == 0
    result = json.loads(file.read_text("utf-8"))
    if name == "multitasking":
        result = {"multitasked": result["runs"][0], "alone": result["runs"][1]}
    assert point.values == (number_at(result, path),)


def test_names_are_listed(command):
    listed = command("sweep", "--list", "dqc").out
    assert re.search(r"^  client\.noise\.coherence_time_ms +1/e time .*\[ms\]$", listed, re.M)
    assert re.search(r"^  profile\.classical\.mean_ms ", listed, re.M)
    assert "\n* mean_fidelity.latency.value\n" in listed
    assert "\n  live_time_ms.p90 [ms]\n" in listed


def test_dask_is_imported_only_when_it_is_used():
    code = "import sys, qnodeos.cli.sweep_run; sys.exit('distributed' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_example_is_the_sweep_of_this_file():
    example = Path(__file__).parents[2] / "examples" / "sweeps" / "quick.yaml"
    if not example.exists():
        pytest.skip("the examples are not installed with the package")
    plan = parse_sweep(example.read_text("utf-8"), "quick.yaml")
    assert plan.digest == parse_sweep(QUICK, "quick.yaml").digest
