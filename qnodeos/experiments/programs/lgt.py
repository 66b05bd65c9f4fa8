"""Local gate tomography: prepare a state and measure it in six bases (paper, Fig. 5a)."""

from collections.abc import Callable
from functools import partial
from itertools import count

from netqasm.sdk import Qubit
from netqasm.sdk.external import NetQASMConnection
from netqasm.sdk.futures import RegFuture

Rotation = tuple[str, int]
"""An axis, and an angle in units of pi/16."""

STATES = {
    "+Z": ("X", 0),
    "-Z": ("X", 16),
    "+X": ("Y", 8),
    "-X": ("Y", 24),
    "+Y": ("X", 24),
    "-Y": ("X", 8),
}
"""The input states, and the rotations that make them from |0>."""

BASES = {
    "+X": ("Y", 24),
    "-X": ("Y", 8),
    "+Y": ("X", 8),
    "-Y": ("X", 24),
    "+Z": None,
    "-Z": ("X", 16),
}
"""The bases, by the state that reads 0 in them, and the rotation that turns it to |0>."""


def main(
    node: str,
    repetitions: int | None,
    queue_ahead: int = 0,
    on_result: Callable[[int, list[int]], None] | None = None,
) -> list[list[int]]:
    """Measure every input state in every basis, repeatedly.

    One subroutine does all bases for one state; the states take turns.

    Args:
        node: where to run.
        repetitions: how often; None for until it is stopped.
        queue_ahead: how many further subroutines are sent before the result of the oldest
            is waited for. With 0 nothing is asked of the backend but `flush`.
        on_result: called after every subroutine with the number of the state and the
            outcomes in the order of `BASES`.

    Returns:
        How often each state gave 0 in each basis.
    """
    zeros = [[0] * len(BASES) for _ in STATES]
    unanswered = 0
    with NetQASMConnection(node, max_qubits=1) as connection:
        # Backends that can wait for all results only are right too, just not as quick.
        wait = getattr(connection, "block_oldest", connection.block)

        def take(state: int, futures: list[RegFuture]) -> None:
            nonlocal unanswered
            unanswered -= 1
            outcomes = [int(future) for future in futures]
            for basis, outcome in enumerate(outcomes):
                zeros[state][basis] += 1 - outcome
            if on_result is not None:
                on_result(state, outcomes)

        for _ in count() if repetitions is None else range(repetitions):
            for state, preparation in enumerate(STATES.values()):
                futures = [_measured(connection, preparation, each) for each in BASES.values()]
                unanswered += 1
                if queue_ahead == 0:
                    connection.flush()
                    take(state, futures)
                    continue
                connection.flush(block=False, callback=partial(take, state, futures))
                while unanswered > queue_ahead:
                    wait()
        while unanswered:
            wait()
    return zeros


def _measured(
    connection: NetQASMConnection, preparation: Rotation, basis: Rotation | None
) -> RegFuture:
    qubit = Qubit(connection)
    for rotation in (preparation, basis):
        if rotation is not None:
            axis, steps = rotation
            rotate = qubit.rot_X if axis == "X" else qubit.rot_Y
            rotate(n=steps, d=4)
    return qubit.measure(store_array=False)
