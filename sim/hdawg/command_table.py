"""The command table of a core: its schema, and the table as the core uses it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import jsonschema

from sim.hdawg.player import (
    MAX_PLAY_SAMPLES,
    MIN_PLAY_SAMPLES,
    PLAY_GRANULARITY_SAMPLES,
)

MAX_ENTRIES: Final = 1024
MAX_WAVE_INDEX: Final = 15_999
MAX_TABLE_BYTES: Final = 1 << 22

_BOOLEAN: Final = {"type": "boolean"}
_CHANGE_OF_PHASE: Final = {
    "type": "object",
    "properties": {"value": {"type": "number"}, "increment": _BOOLEAN},
    "additionalProperties": False,
    "required": ["value"],
}
_CHANGE_OF_AMPLITUDE: Final = {
    "type": "object",
    "properties": {
        "value": {"type": "number", "minimum": -1.0, "maximum": 1.0},
        "increment": _BOOLEAN,
    },
    "additionalProperties": False,
    "required": ["value"],
}
_WAVEFORM: Final = {
    "type": "object",
    "properties": {
        "index": {"type": "integer", "minimum": 0, "maximum": MAX_WAVE_INDEX},
        "length": {
            "type": "integer",
            "minimum": MIN_PLAY_SAMPLES,
            "maximum": MAX_PLAY_SAMPLES,
            "multipleOf": PLAY_GRANULARITY_SAMPLES,
        },
        "playZero": _BOOLEAN,
        "playHold": _BOOLEAN,
    },
    "additionalProperties": False,
    "oneOf": [
        {"required": ["index"]},
        {"required": ["playZero", "length"]},
        {"required": ["playHold", "length"]},
    ],
}

SCHEMA: Final[dict[str, Any]] = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "title": "Command table of the simulated HDAWG",
    "version": "1.2",
    "type": "object",
    "definitions": {
        "header": {
            "type": "object",
            "properties": {
                "version": {"type": "string", "pattern": r"^1\.[0-2](\.\d+)?$"},
                "partial": _BOOLEAN,
                "userString": {"type": "string", "maxLength": 30},
            },
            "additionalProperties": False,
            "required": ["version"],
        },
        "table": {
            "type": "array",
            "minItems": 0,
            "maxItems": MAX_ENTRIES,
            "items": {
                "type": "object",
                "properties": {
                    "index": {"type": "integer", "minimum": 0, "maximum": MAX_ENTRIES - 1},
                    "waveform": _WAVEFORM,
                    "phase0": _CHANGE_OF_PHASE,
                    "phase1": _CHANGE_OF_PHASE,
                    "amplitude0": _CHANGE_OF_AMPLITUDE,
                    "amplitude1": _CHANGE_OF_AMPLITUDE,
                },
                "additionalProperties": False,
                "required": ["index"],
            },
        },
    },
    "properties": {
        "$schema": {"type": "string"},
        "header": {"$ref": "#/definitions/header"},
        "table": {"$ref": "#/definitions/table"},
    },
    "additionalProperties": False,
    "required": ["header"],
}
"""What `/awgs/n/commandtable/schema` answers.

The structure follows schema 1.2 of the HDAWG (user manual, command table) as far as it is
simulated; sampling-rate divider, channel routing and precompensation are left out, so that
a table that needs them is refused.
"""

_VALIDATOR: Final = jsonschema.Draft4Validator(SCHEMA)


class TableRefused(ValueError):
    """The text is no command table of this schema."""


@dataclass(frozen=True)
class Change:
    """A new phase in degrees or amplitude factor, or what is added to the old one."""

    value: float
    is_increment: bool

    def apply(self, old: float) -> float:
        """The value afterwards."""
        return old + self.value if self.is_increment else self.value


@dataclass(frozen=True)
class Entry:
    """One entry of the table.

    Attributes:
        wave_index: to be played, None for none.
        n_samples: length if the entry says it.
        is_held: the last value is held; without this and without a wave index, zeros are
            played for that length.
        phases: changes for the two channels, None where there is none.
        amplitudes: the same.
    """

    wave_index: int | None
    n_samples: int | None
    is_held: bool
    phases: tuple[Change | None, Change | None]
    amplitudes: tuple[Change | None, Change | None]

    @property
    def changes_levels(self) -> bool:
        """Whether phases or amplitudes change."""
        return self.phases != (None, None) or self.amplitudes != (None, None)


def read_table(text: str) -> tuple[dict[int, Entry], bool]:
    """Read and validate a command table.

    Returns:
        Index -> entry, and whether the table only updates the one before.

    Raises:
        TableRefused: it is too long, no JSON, breaks the schema, or gives an index twice.
    """
    if len(text) > MAX_TABLE_BYTES:
        raise TableRefused(f"{len(text)} characters are more than {MAX_TABLE_BYTES}")
    try:
        document = json.loads(text)
    except ValueError as error:
        raise TableRefused(f"not JSON: {error}") from error
    problem = jsonschema.exceptions.best_match(_VALIDATOR.iter_errors(document))
    if problem is not None:
        raise TableRefused(f"{problem.json_path}: {problem.message}")
    entries: dict[int, Entry] = {}
    for item in document.get("table", ()):
        if item["index"] in entries:
            raise TableRefused(f"entry {item['index']} is given twice")
        entries[item["index"]] = _entry(item)
    return entries, bool(document["header"].get("partial", False))


def _entry(item: Mapping[str, Any]) -> Entry:
    waveform = item.get("waveform", {})
    return Entry(
        wave_index=waveform.get("index"),
        n_samples=waveform.get("length"),
        is_held=waveform.get("playHold", False),
        phases=(_change(item.get("phase0")), _change(item.get("phase1"))),
        amplitudes=(_change(item.get("amplitude0")), _change(item.get("amplitude1"))),
    )


def _change(item: Mapping[str, Any] | None) -> Change | None:
    return None if item is None else Change(item["value"], item.get("increment", False))
