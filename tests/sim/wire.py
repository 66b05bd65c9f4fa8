"""The QNPU's end of a wire in virtual time, for tests of devices."""

from __future__ import annotations

from qnodeos.qdevice.endpoint import FrameMaster, Response
from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.protocols import SimulatedQDevice


class Wire:
    """Exchanges frames with a device tick by tick; its session is open.

    Args:
        device: that has just started.
    """

    def __init__(self, device: SimulatedQDevice) -> None:
        self.device = device
        self.master = FrameMaster()
        self.tick = 0
        self.exchange()
        self.exchange()

    def exchange(self) -> Response | None:
        frame = self.device.exchange(self.tick, self.master.outgoing())
        self.tick += 1
        return self.master.incoming(frame)

    def run(self, instruction: PhysicalInstruction) -> Response:
        """Have an instruction executed, skipping the ticks without news."""
        self.master.submit(instruction)
        response = self.exchange()
        while response is None:
            due = self.device.next_tick()
            assert due is not None, "the device says that it will never answer"
            self.tick = max(self.tick, due)
            response = self.exchange()
        return response
