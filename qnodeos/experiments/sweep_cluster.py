"""Running the points of a sweep on dask workers: of this machine, or of a cluster.

Only this module knows dask. Its processes exchange pickles, so whoever can talk to them can
make them do anything: workers of our own listen on 127.0.0.1 only and talk to nobody without
the certificate made for this one run, and a scheduler on another machine has to show a
certificate. Connecting to a scheduler is trusting it.
"""

from __future__ import annotations

import logging
import signal
import ssl
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import resource_tracker
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from qnodeos.errors import ConfigurationError, ConnectionLostError
from qnodeos.experiments.pool import counted_interrupts
from qnodeos.experiments.sweep_results import MESSAGE_MAX, PointResult, run_point, versions
from qnodeos.experiments.sweep_spec import PointTask
from qnodeos.transport import Address, TlsFiles
from qnodeos.transport.address import PORT_MAX

if TYPE_CHECKING:
    from distributed import Client, Future

CONNECT_S: Final = 10
"""How long to try to reach a scheduler."""
NO_WORKERS_S: Final = 60
"""How long to go on without any worker."""
RESULT_S: Final = 10
"""How long fetching a result may take."""
ATTEMPTS: Final = 3
"""How often a point is given out again after dask has given up on it."""
DEATHS: Final = 4
"""Workers that may die of a point before dask gives up on it, in clusters of our own."""
_POLL_S: Final = 1.0
_PER_THREAD: Final = 3
"""Points given out per thread: one runs, and the next are there when it is done."""

_Task = Callable[[PointTask], PointResult]


@dataclass(frozen=True)
class _Outcome:
    """What a worker answers."""

    result: PointResult
    versions: Mapping[str, str]


def _work(task: PointTask) -> _Outcome:
    return _Outcome(run_point(task), versions())


class SweepCluster:
    """Workers that points can be given to.

    Args:
        client: of their scheduler; stays the caller's.
        address: of their scheduler.
    """

    def __init__(self, client: Client, address: str) -> None:
        self.client = client
        self.address = address

    def check(self) -> None:
        """Wait for a worker, and see that all of them give the results that we would.

        Raises:
            ConnectionLostError: no worker came, or one cannot be asked.
            ConfigurationError: a worker has other versions, or runs points side by side in
                threads, which share what has to be separate.
        """
        try:
            self.client.wait_for_workers(1, timeout=NO_WORKERS_S)
        except TimeoutError:
            raise self._no_workers() from None
        for worker, threads in self.client.nthreads().items():
            if threads != 1:
                raise ConfigurationError(
                    f"the worker {worker} has {threads} threads; start workers with --nthreads 1, "
                    "and as many of them as it has cores"
                )
        for worker, found in self.client.run(versions, on_error="return").items():
            if isinstance(found, BaseException):
                raise ConfigurationError(
                    f"the worker {worker} cannot run points: {found}; install the same qnodeos "
                    "there as here"
                )
            _check_versions(worker, found)

    def run(self, tasks: Iterator[PointTask]) -> Iterator[PointResult]:
        """Run points; yields each result as it comes, in any order.

        A point whose worker is lost is run again elsewhere. One that keeps killing its
        workers has failed.

        Raises:
            ConnectionLostError: the scheduler is gone, or all workers are and none comes.
            ConfigurationError: a worker has other versions.
            KeyboardInterrupt: there was a Ctrl-C; points that run are given up.
        """
        # A name of its own for each point: dask would take two of one name for the same.
        run = uuid4().hex
        finished: SimpleQueue[Future[_Outcome]] = SimpleQueue()
        running: dict[Future[_Outcome], tuple[PointTask, int]] = {}
        waiting = iter(tasks)
        room = _Room(self.client)

        def start(task: PointTask, attempt: int) -> None:
            key = f"qnodeos-{run}-{task.number}-{attempt}"
            future = self.client.submit(_work, task, key=key, pure=False)
            running[future] = task, attempt
            future.add_done_callback(finished.put)

        # Raised anywhere, Ctrl-C could be lost in a callback or a finaliser of dask.
        with counted_interrupts() as interrupts:
            while not interrupts.count:
                while len(running) < room.places and (task := next(waiting, None)) is not None:
                    start(task, 0)
                if not running:
                    return
                try:
                    future = finished.get(timeout=_POLL_S)
                except Empty:
                    if room.empty_s() > NO_WORKERS_S:
                        raise self._no_workers() from None
                    continue
                task, attempt = running[future]
                try:
                    result = self._result(future, task, last=attempt == ATTEMPTS)
                except TimeoutError:
                    future.add_done_callback(finished.put)
                    continue
                del running[future]
                if result is None:
                    start(task, attempt + 1)
                else:
                    yield result
            raise KeyboardInterrupt

    def _result(
        self, future: Future[_Outcome], task: PointTask, *, last: bool
    ) -> PointResult | None:
        """The result of a point; None if it should be tried again.

        Raises:
            TimeoutError: it went with the worker that had it; dask runs the point again.
        """
        from distributed import KilledWorker

        if future.status in {"cancelled", "lost"}:
            raise ConnectionLostError(
                "the connection to the scheduler is lost; when it is there again, run the same "
                "command again"
            )
        try:
            outcome = future.result(timeout=RESULT_S)
        except KilledWorker as error:
            text = f"KilledWorker: its worker died, again and again: {error}"
            return PointResult(task.number, error=text[:MESSAGE_MAX]) if last else None
        except ModuleNotFoundError as error:
            raise ConfigurationError(
                f"a worker cannot run points: {error}; install the same qnodeos there as here"
            ) from error
        _check_versions("that ran a point", outcome.versions)
        return outcome.result

    def _no_workers(self) -> ConnectionLostError:
        return ConnectionLostError(
            f"the scheduler {self.address} had no workers for {NO_WORKERS_S} s; "
            "start some with `dask worker`, then run the same command again"
        )


class _Room:
    """How many points to have given out, by the workers there are."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._asked_s = 0.0
        self._seen_s = time.monotonic()
        self._places = 1

    @property
    def places(self) -> int:
        """Most points to have given out."""
        now = time.monotonic()
        if now - self._asked_s >= _POLL_S:
            self._asked_s = now
            threads = sum(_threads(self._client))
            if threads:
                self._seen_s = now
                self._places = _PER_THREAD * threads
        return self._places

    def empty_s(self) -> float:
        """For how long there has been no worker."""
        return time.monotonic() - self._seen_s


def _threads(client: Client) -> list[int]:
    """Threads of each worker; none if the scheduler does not answer."""
    with suppress(OSError, TimeoutError):
        return list(client.nthreads().values())
    return []


def _check_versions(worker: str, found: Mapping[str, str]) -> None:
    if found != versions():
        differing = [
            f"{name} {found.get(name)} there, {version} here"
            for name, version in versions().items()
            if found.get(name) != version
        ]
        raise ConfigurationError(
            f"the worker {worker} has other versions: {'; '.join(differing)}; results would "
            "differ: install the same there as here"
        )


# --- where the workers are --------------------------------------------------------------


@contextmanager
def local_cluster(workers: int) -> Iterator[SweepCluster]:
    """Workers that are processes of this machine, for as long as this is entered.

    Args:
        workers: how many; one that dies is replaced.
    """
    import dask.config
    from distributed import Client, LocalCluster, Security

    security = Security.temporary()
    quiet: dict[str, Any] = {
        "distributed.scheduler.http.routes": [],
        "distributed.worker.http.routes": [],
    }
    with dask.config.set(quiet), ExitStack() as cleanup:
        with _interrupts_later():
            cluster = cleanup.enter_context(
                LocalCluster(
                    n_workers=workers,
                    threads_per_worker=1,
                    processes=True,
                    host="127.0.0.1",
                    protocol="tls://",
                    security=security,
                    dashboard_address="127.0.0.1:0",
                    scheduler_kwargs={"dashboard": False, "allowed_failures": DEATHS - 1},
                    silence_logs=logging.CRITICAL,
                )
            )
            client = cleanup.enter_context(Client(cluster, security=security, set_as_default=False))
        yield SweepCluster(client, cluster.scheduler_address)


@contextmanager
def _interrupts_later() -> Iterator[None]:
    """Hold Ctrl-C back, here until this is left, in threads and processes begun for good.

    It reaches the whole group of processes, and workers that are only beginning would each
    end with a traceback.
    """
    # It is started with the first process, and would let Ctrl-C through again.
    resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    with counted_interrupts() as interrupts:
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if interrupts.count:
        raise KeyboardInterrupt


@contextmanager
def remote_cluster(address: str, tls: TlsFiles | None) -> Iterator[SweepCluster]:
    """The workers of a scheduler that somebody started.

    Args:
        address: ``tcp://HOST:PORT`` on this machine, ``tls://HOST:PORT`` anywhere.
        tls: certificate, key and authority, for ``tls``.

    Raises:
        ConfigurationError: the address is none, or not safe.
        ConnectionLostError: there is no scheduler.
    """
    check_address(address, tls)
    from distributed import Client, Security

    security = None
    if tls is not None:
        tls.client_context()
        security = Security(
            require_encryption=True,
            tls_min_version=ssl.TLSVersion.TLSv1_3,
            tls_ca_file=str(tls.authority),
            tls_client_cert=str(tls.certificate),
            tls_client_key=str(tls.key),
        )
    try:
        client = Client(address, security=security, timeout=CONNECT_S, set_as_default=False)
    except (OSError, TimeoutError) as error:
        raise ConnectionLostError(
            f"no scheduler answers at {address}: start it with `dask scheduler`, or leave out "
            f"--scheduler ({error})"
        ) from error
    with client:
        yield SweepCluster(client, address)


def check_address(address: str, tls: TlsFiles | None) -> None:
    """See that an address is one, and that nobody else can read or change what is sent there.

    Raises:
        ConfigurationError: it is not so.
    """
    kind, separator, place = address.partition("://")
    refusal = ConfigurationError(
        f"{address!r} is no address of a scheduler; write tcp://HOST:PORT or tls://HOST:PORT, "
        f"with PORT up to {PORT_MAX} and the host of IPv6 in brackets"
    )
    if not separator or kind not in {"tcp", "tls"}:
        raise refusal
    try:
        host = Address.parse(f"tcp:{place}")
    except ConfigurationError:
        raise refusal from None
    if kind == "tls" and tls is None:
        raise ConfigurationError("tls:// needs --tls-ca, --tls-cert and --tls-key")
    if kind == "tcp" and tls is not None:
        raise ConfigurationError("--tls-ca, --tls-cert and --tls-key need tls://HOST:PORT")
    if kind == "tcp" and not host.is_local:
        raise ConfigurationError(
            f"{address} is another machine, and what dask sends there can make it, and us, do "
            "anything: use tls:// with --tls-ca, --tls-cert and --tls-key"
        )
