"""The connection of a SquidASM-style program to its QNPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from qnodeos.cnpu.backend import QNodeOSConnection


class StackConnection(QNodeOSConnection):
    """A connection whose waiting methods are generators, for `yield from`.

    As in the simulator, a flush without `yield from` does nothing, and what was built but not
    flushed when the program ends is not executed.
    """

    def flush(self, block: bool = True, callback: Callable[[], None] | None = None) -> Any:
        """Send what was built, and wait for it; a generator."""
        super().flush(block=block, callback=callback)
        yield from ()

    def commit_protosubroutine(
        self,
        protosubroutine: Any,
        block: bool = True,
        callback: Callable[[], None] | None = None,
    ) -> Any:
        """Assemble and send, and wait for it at once; may be used with `yield from`."""
        # Not a generator: the SDK's own flush calls it.
        super().commit_protosubroutine(protosubroutine, block, callback)
        return ()

    def commit_subroutine(
        self, subroutine: Any, block: bool = True, callback: Callable[[], None] | None = None
    ) -> Any:
        """Send a compiled subroutine, and wait for it; a generator."""
        super().commit_subroutine(subroutine, block, callback)
        yield from ()
