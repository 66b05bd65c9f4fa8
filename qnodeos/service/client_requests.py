"""What programs ask on their connections: answered here, or passed on to the QNPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec.structs import replace

from qnodeos.api.host import is_registration
from qnodeos.api.host_wire import (
    Cancel,
    Failure,
    GetStatistics,
    ListProcesses,
    Message,
    Netqasm,
    Ping,
    Pong,
    ProcessInfo,
    ProcessList,
    Register,
    Reply,
    Statistics,
    Subscribe,
    encode,
)
from qnodeos.errors import ErrorCode, LimitError, MalformedMessageError, QNodeOSError
from qnodeos.service.clients import Client, ServerCounters
from qnodeos.service.events import Subscriptions
from qnodeos.service.limits_config import LimitsConfig


class Qnpu(Protocol):
    """What the server asks of the QNPU behind it."""

    def host_message(self, client: int, request: int, raw: bytes) -> None:
        """Take a message of the NetQASM SDK; `ApiServer.reply` will bring the answer."""
        ...

    def register(
        self, client: int, request: int, app_id: int, max_qubits: int, priority: int
    ) -> None:
        """Register a program; `ApiServer.reply` will bring the answer."""
        ...

    def cancel(self, client: int, request: int, target: int) -> None:
        """Withdraw a subroutine; `ApiServer.reply` will bring the answer."""
        ...

    def client_closed(self, client: int) -> None:
        """A connection has ended."""
        ...

    def process_list(self, client: int | None) -> tuple[ProcessInfo, ...]:
        """The processes of a connection, of all if it is None."""
        ...

    def statistics(self) -> dict[str, dict[str, Any]]:
        """All counters."""
        ...


class ClientRequests:
    """Takes the messages of connections that are served.

    Args:
        limits: all bounds.
        qnpu: takes what concerns programs.
        subscriptions: to the trace.
        served: the connections that are served, by number.
        counters: of the server.
        send: sends a payload to a connection.

    Attributes:
        handlers: what takes a message, by its type. A Hello has none: it is the first message only.
    """

    def __init__(
        self,
        limits: LimitsConfig,
        qnpu: Qnpu,
        subscriptions: Subscriptions,
        served: Mapping[int, Client],
        counters: ServerCounters,
        send: Callable[[Client, bytes], None],
    ) -> None:
        self._limits = limits
        self._qnpu = qnpu
        self._subscriptions = subscriptions
        self._served = served
        self._counters = counters
        self._send = send
        self.handlers: dict[type[Message], Callable[[Client, Any], None]] = {
            Netqasm: self._netqasm,
            Register: self._register,
            Cancel: self._cancel,
            ListProcesses: self._list_processes,
            GetStatistics: self._get_statistics,
            Subscribe: self._subscribe,
            Ping: self._ping,
        }

    def answer(self, client: Client, message: Message) -> None:
        """Send an answer."""
        self._counters.replies += 1
        self._send(client, encode(message))

    def _netqasm(self, client: Client, message: Netqasm) -> None:
        if is_registration(message.raw) and self._refuse_program(client, message.request):
            return
        if self._open_request(client, message.request):
            self._qnpu.host_message(client.number, message.request, message.raw)

    def _register(self, client: Client, message: Register) -> None:
        if message.priority > self._limits.client_priority and not client.is_operator:
            error = LimitError(
                f"client_priority={self._limits.client_priority} is the highest priority here; "
                "more is for the user that runs the service, or root, on a Unix socket"
            )
            self.answer(client, Reply(message.request, error=failure_of(error)))
        elif not self._refuse_program(client, message.request) and self._open_request(
            client, message.request
        ):
            self._qnpu.register(
                client.number,
                message.request,
                message.app_id,
                message.max_qubits,
                message.priority,
            )

    def _cancel(self, client: Client, message: Cancel) -> None:
        if self._open_request(client, message.request):
            self._qnpu.cancel(client.number, message.request, message.target)

    def _refuse_program(self, client: Client, request: int) -> bool:
        """Refuse a program beyond those its user may have; returns whether it was refused."""
        if client.is_operator:
            return False
        user, most = client.user, self._limits.processes_per_user
        mine = {each.number for each in self._served.values() if each.user == user}
        if sum(info.client in mine for info in self._qnpu.process_list(None)) < most:
            return False
        self._counters.refused_requests += 1
        whose = "on TCP" if user is None else f"of user {user}"
        error = LimitError(
            f"processes_per_user={most} programs {whose} are running, the limit; stop one first"
        )
        self.answer(client, Reply(request, error=failure_of(error)))
        return True

    def _open_request(self, client: Client, request: int) -> bool:
        """Whether a request may be passed on; it is answered here if not."""
        self._counters.requests += 1
        if request in client.open:
            # Its number stands for the other one, which will be answered.
            raise MalformedMessageError(f"request {request} is still open; number them uniquely")
        if len(client.open) >= self._limits.requests_per_client:
            self._counters.refused_requests += 1
            error = LimitError(
                f"requests_per_client={self._limits.requests_per_client} wait for their reply, "
                "the limit; wait for one of them"
            )
            self.answer(client, Reply(request, error=failure_of(error)))
            return False
        client.open.add(request)
        return True

    def _list_processes(self, client: Client, message: ListProcesses) -> None:
        whose = None if client.is_operator else client.number
        processes = tuple(self._named(info) for info in self._qnpu.process_list(whose))
        self.answer(client, ProcessList(message.request, processes))

    def _named(self, info: ProcessInfo) -> ProcessInfo:
        owner = self._served.get(info.client)
        return info if owner is None else replace(info, client_name=owner.name)

    def _get_statistics(self, client: Client, message: GetStatistics) -> None:
        self.answer(client, Statistics(message.request, self._qnpu.statistics()))

    def _subscribe(self, client: Client, message: Subscribe) -> None:
        if not client.is_operator:
            error = LimitError(
                "the events of all programs are for the user that runs the service, or root, on a "
                "Unix socket"
            )
            self.answer(client, Reply(message.request, error=failure_of(error)))
            return
        self._subscriptions.set(client, message)
        self.answer(client, Reply(message.request))
        if message.on:
            self._subscriptions.start()

    def _ping(self, client: Client, message: Ping) -> None:
        self.answer(client, Pong(message.nonce))


def failure_of(error: QNodeOSError) -> Failure:
    """An error as it travels."""
    return Failure(int(ErrorCode(error.code)), type(error).__name__, str(error)[:4096])
