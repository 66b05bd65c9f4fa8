"""Tables of states as diagrams, for the documentation."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum


def state_diagram(transitions: Iterable[tuple[Enum, Enum, Enum]], first: Enum, last: Enum) -> str:
    """Transitions as a Mermaid state diagram.

    Args:
        transitions: from which state what leads to which.
        first: the state in which all begins.
        last: the state in which it ends.
    """
    lines = ["stateDiagram-v2", f"    [*] --> {first.value}"]
    lines += [
        f"    {state.value} --> {following.value}: {event.value}"
        for state, event, following in transitions
    ]
    return "\n".join([*lines, f"    {last.value} --> [*]"])
