"""What programs return, as it is kept and written."""

from __future__ import annotations

import math
from typing import Any


def settled(value: Any) -> Any:
    """The same with numbers in place of the SDK's futures, which are read while it is time.

    A future that has no value, because its subroutine was never flushed, is None.
    """
    if isinstance(value, bool) or not isinstance(value, int | list | tuple | dict):
        return value
    if isinstance(value, int):
        if type(value) is int:
            return value
        try:
            return int(value)
        except RuntimeError:
            return None
    if isinstance(value, dict):
        return {key: settled(item) for key, item in value.items()}
    items = [settled(item) for item in value]
    return items if isinstance(value, list) else tuple(items)


def plain(value: Any) -> Any:
    """The same as JSON has it: arrays as lists, complex numbers as [real, imaginary].

    What JSON does not know is its ``repr``.
    """
    value = settled(value)
    tolist = getattr(value, "tolist", None)  # of numpy's numbers and arrays
    if callable(tolist):
        value = tolist()
    if isinstance(value, dict):
        return {
            key if isinstance(key, str) else str(key): plain(item) for key, item in value.items()
        }
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, complex):
        return [value.real, value.imag]
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return repr(value)
