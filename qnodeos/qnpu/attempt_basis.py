"""In which basis attempts measure our half, and telling the device."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from qnodeos.qdevice.instructions import PhysicalInstruction
from qnodeos.qdevice.protocols import QDriver
from qnodeos.qnpu.link_queue import LinkRequest
from qnodeos.qnpu.measured_half import creator_basis, receiver_basis
from qnodeos.qnpu.requests import Rotations


class AttemptBasis:
    """Chooses bases, and programs the device only if they change.

    Args:
        driver: the QDriver of the device.
        random_choice: returns a random integer below its argument.

    Attributes:
        code: of the basis chosen last, None if it is no Pauli basis.
    """

    def __init__(self, driver: QDriver, random_choice: Callable[[int], int]) -> None:
        self._driver = driver
        self._random_choice = random_choice
        self._rotations: Rotations = ()
        self._chosen_for: tuple[LinkRequest, int] | None = None
        self._programmed: tuple[int, Rotations] | None = None  # the qubit, and its basis
        self.code: int | None = None

    def prepare(self, request: LinkRequest, physical: int) -> Sequence[PhysicalInstruction]:
        """What the device has to be told before it attempts the next pair of a request."""
        if self._chosen_for != (request, request.done):  # anew for every pair, if random
            self._choose(request)
        if self._programmed == (physical, self._rotations):
            return ()
        self._programmed = physical, self._rotations
        return self._driver.measurement_basis(self._rotations, physical)

    def forget(self) -> None:
        """The device may have forgotten its basis."""
        self._programmed = None

    def _choose(self, request: LinkRequest) -> None:
        basis = (
            receiver_basis(request.terms, self._random_choice)
            if request.user is None
            else creator_basis(request.user, self._random_choice)
        )
        assert basis is not None, "the half is to be measured"
        self._chosen_for = request, request.done
        self._rotations, self.code = basis.rotations, basis.code
