"""Initialise an ion, do a sequence of rotations and measure (paper, Supplementary Information)."""

from collections.abc import Callable

from netqasm.sdk import Qubit
from netqasm.sdk.external import NetQASMConnection

from qnodeos.experiments.ion_circuits import SEQUENCES


def main(
    node: str,
    repetitions: int,
    on_result: Callable[[int, int], None] | None = None,
) -> list[int]:
    """All sequences in turn, repeatedly; each is a subroutine of its own.

    Args:
        node: where to run.
        repetitions: of each sequence.
        on_result: called after every circuit with the number of the sequence and the outcome.

    Returns:
        How often each sequence gave 1, that is dark.
    """
    dark = [0] * len(SEQUENCES)
    with NetQASMConnection(node, max_qubits=1) as connection:
        for _ in range(repetitions):
            for number, rotations in enumerate(SEQUENCES.values()):
                qubit = Qubit(connection)
                for axis, steps in rotations:
                    rotate = qubit.rot_X if axis == "X" else qubit.rot_Y
                    rotate(n=steps, d=4)
                measured = qubit.measure(store_array=False)
                connection.flush()
                outcome = int(measured)
                dark[number] += outcome
                if on_result is not None:
                    on_result(number, outcome)
    return dark
