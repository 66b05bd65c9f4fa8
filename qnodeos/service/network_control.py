"""What a controller asks of a node: its tick, and to use a network schedule and routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from qnodeos.api.peer_wire import Install, Installed, InstallRoutes, RoutesInstalled, TickReading
from qnodeos.errors import PeerProtocolError, QNodeOSError
from qnodeos.qnpu.routes import Route
from qnodeos.qnpu.schedule import NetworkSchedule


class ControlledKernel(Protocol):
    """The kernel, as far as controllers go."""

    def install_schedule(self, schedule: NetworkSchedule, from_bin: int | None = None) -> bool:
        """See `qnodeos.qnpu.kernel.Kernel.install_schedule`."""
        ...

    def install_routes(self, routes: Mapping[int, Route]) -> None:
        """See `qnodeos.qnpu.kernel.Kernel.install_routes`."""
        ...


class NetworkControl:
    """Carries out what a controller asks; a mistake in it is answered and costs nothing else.

    Args:
        kernel: gets the schedule and the routes.
        read_tick: the device's counter at this very moment.
        say: takes lines about what changes, for people.

    Attributes:
        schedule_number: of the schedule in use, 0 without one.
    """

    def __init__(
        self, kernel: ControlledKernel, read_tick: Callable[[], int], say: Callable[[str], None]
    ) -> None:
        self.schedule_number = 0
        self._schedule: NetworkSchedule | None = None
        self._kernel = kernel
        self._read_tick = read_tick
        self._say = say

    @property
    def epoch_tick(self) -> int:
        """When bin 0 of the schedule begins, 0 without one."""
        return 0 if self._schedule is None else self._schedule.epoch_tick

    def reading(self, nonce: int) -> TickReading:
        """The tick, and the bins in use.

        Args:
            nonce: of the question.
        """
        schedule = self._schedule
        return TickReading(
            nonce,
            self._read_tick(),
            self.schedule_number,
            self.epoch_tick,
            0 if schedule is None else schedule.bin_ticks,
        )

    def install(self, install: Install) -> tuple[Installed, bool]:
        """Use a schedule.

        Returns:
            The answer, and whether the bins are others than before: then nothing that was
            agreed with neighbours holds any more.
        """
        try:
            if install.schedule < self.schedule_number:
                raise PeerProtocolError(
                    f"schedule {install.schedule} is older than {self.schedule_number}, the one "
                    "in use"
                )
            schedule = NetworkSchedule(
                bin_ticks=install.bin_ticks,
                guard_ticks=install.guard_ticks,
                batch_ticks=install.batch_ticks,
                pattern=tuple(None if peer < 0 else peer for peer in install.pattern),
                epoch_tick=install.epoch_tick,
            )
            is_reset = False
            if schedule != self._schedule:
                is_reset = self._kernel.install_schedule(schedule, install.from_bin or None)
        except (ValueError, QNodeOSError) as error:
            return Installed(install.schedule, str(error)[:1_000]), False
        self._schedule, self.schedule_number = schedule, install.schedule
        self._say(f"network schedule {install.schedule}: bins of {schedule.bin_ticks} ticks")
        return Installed(install.schedule), is_reset

    def install_routes(self, install: InstallRoutes) -> RoutesInstalled:
        """Use routes; the answer says why if they cannot be used."""
        routes = {
            destination: Route(next_hop, hops, fidelity)
            for destination, next_hop, hops, fidelity in install.routes
        }
        try:
            self._kernel.install_routes(routes)
        except QNodeOSError as error:
            return RoutesInstalled(str(error)[:1_000])
        return RoutesInstalled("")
