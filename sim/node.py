"""A node in virtual time: a kernel and its device, joined by frames, tick by tick.

Only the ticks at which something happens are run; the device and the kernel say which is
next. At a tick, frames are exchanged first, then the messages that have arrived since are
taken in, then the kernel acts; what it wants to send goes out with the next tick's frame.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from qnodeos.api.host import HostReply
from qnodeos.api.peer import PeerMessage
from qnodeos.cnpu.virtual import Clock
from qnodeos.qdevice.endpoint import FrameMaster, Response
from qnodeos.qdevice.protocols import SimulatedQDevice
from qnodeos.qnpu.kernel import Kernel
from qnodeos.qnpu.routes import Route

_NEVER: Final = 1 << 62


class VirtualNode:
    """Runs one QNPU kernel against one simulated device; is the `QnpuPort` of its CNPU.

    Args:
        send_peer: carries a message to the node with that id.
    """

    def __init__(
        self,
        name: str,
        kernel: Kernel,
        device: SimulatedQDevice,
        clock: Clock,
        send_peer: Callable[[int, PeerMessage], None],
    ) -> None:
        self.name = name
        self.kernel = kernel
        self.device = device
        self._clock = clock
        self._send_peer = send_peer
        self._tick_ns = device.capabilities.tick_ns
        self._master = FrameMaster()
        self._inbox: list[Callable[[int], None]] = []
        self._callbacks: dict[tuple[int, int], Callable[[HostReply], None]] = {}
        self._next_client = 0
        self._last_tick = -1
        self._exchanged_tick = -1
        self._early: Response | None = None
        self._scheduled_tick = _NEVER
        # Whatever else a device may have, the behavioural ones tell when a neighbour's
        # request has changed their next news.
        if hasattr(device, "on_wake"):
            device.on_wake = self._schedule

    # --- messages ---------------------------------------------------------------------

    def open_client(self) -> int:
        """See `qnodeos.cnpu.virtual.QnpuPort`."""
        self._next_client += 1
        return self._next_client

    def close_client(self, client: int) -> None:
        """See `qnodeos.cnpu.virtual.QnpuPort`."""
        self._arrive(lambda tick: self.kernel.client_closed(client, tick))

    def host_message(
        self, client: int, request: int, raw: bytes, on_reply: Callable[[HostReply], None]
    ) -> None:
        """See `qnodeos.cnpu.virtual.QnpuPort`."""
        self._callbacks[client, request] = on_reply
        self._arrive(lambda tick: self.kernel.host_message(client, request, raw, tick))

    def peer_message(self, peer: int, message: PeerMessage) -> None:
        """A message of another node's QNPU arrives now."""
        self._arrive(lambda tick: self.kernel.peer_message(peer, message, tick))

    def peer_lost(self, peer: int) -> None:
        """The connection to another node ends now."""
        self._arrive(lambda tick: self.kernel.peer_lost(peer, tick))

    def peer_connected(self, peer: int) -> None:
        """There is a connection to another node again, from now on."""
        self._arrive(lambda tick: self.kernel.peer_connected(peer, tick))

    def install_routes(self, routes: Mapping[int, Route]) -> None:
        """Routes to other nodes come into force now; see `Kernel.install_routes`."""
        self._arrive(lambda tick: self.kernel.install_routes(routes))

    def _arrive(self, deliver: Callable[[int], None]) -> None:
        self._inbox.append(deliver)
        self._schedule(-(-self._clock.now_ns // self._tick_ns))

    # --- ticks ------------------------------------------------------------------------

    @property
    def tick(self) -> int:
        """The last tick that was run."""
        return self._last_tick

    def _schedule(self, tick: int) -> None:
        tick = max(tick, self._last_tick + 1)
        if tick < self._scheduled_tick:
            self._scheduled_tick = tick
            self._clock.call_at(tick * self._tick_ns, self._run, tick)

    def _run(self, tick: int) -> None:
        if tick != self._scheduled_tick:
            return  # an earlier tick was scheduled after this one, and rescheduled it
        self._scheduled_tick = _NEVER
        self._last_tick = tick
        kernel, device = self.kernel, self.device
        response, self._early = self._early, None
        if tick > self._exchanged_tick:
            due = device.next_tick()
            if (due is not None and due <= tick) or self._master.has_news:
                response = self._exchange(tick)
        if self._inbox:
            arrived, self._inbox = self._inbox, []
            for deliver in arrived:
                deliver(tick)
        instruction = kernel.tick(tick) if response is None else kernel.tick(tick, *response)
        if instruction is not None:
            self._master.submit(instruction)
            # The instruction goes out with the frame of the next tick. The device is idle
            # and nothing that may arrive until then can change that frame, so it is sent
            # now; running the next tick for it alone would cost as much as all the rest.
            # An answer in the same exchange says that the device has restarted.
            self._early = self._exchange(tick + 1)
        if kernel.peer_outbox or kernel.host_outbox:
            self._send()
        following = kernel.next_tick(tick)
        due = device.next_tick()
        if following is None or (due is not None and due < following):
            following = due
        if self._master.has_news:
            following = tick + 1
        if following is not None:
            self._schedule(following)

    def _exchange(self, tick: int) -> Response | None:
        self._exchanged_tick = tick
        return self._master.incoming(self.device.exchange(tick, self._master.outgoing()))

    def _send(self) -> None:
        kernel = self.kernel
        messages, kernel.peer_outbox[:] = list(kernel.peer_outbox), []
        for peer, message in messages:
            self._send_peer(peer, message)
        replies, kernel.host_outbox[:] = list(kernel.host_outbox), []
        for reply in replies:
            on_reply = self._callbacks.pop((reply.client, reply.request), None)
            if on_reply is not None:
                on_reply(reply)
