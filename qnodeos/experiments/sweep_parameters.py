"""The parameters of an experiment by name: its options, and every number of its network.

A name is the dotted path of a field, as in a configuration file:

* an option of the experiment: ``circuits_per_set``, ``backend``; ``link`` and ``profile``
  choose presets;
* a field of `qnodeos.assembly.NetworkConfig`: ``link.protocol.alpha_a``;
  ``nodes.noise.gate_depolarising`` is that field of both nodes;
* a field of the latency profile: ``profile.classical.mean_ms``.

Names without a dot are options, all others belong to the network or the profile.
"""

from __future__ import annotations

import difflib
import json
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Union, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from qnodeos.assembly import ROLES, NetworkConfig, load_profile
from qnodeos.cnpu.latency import LatencyProfile
from qnodeos.config.loader import changed

Value = bool | int | float | str
"""What a parameter may be set to."""

BOTH_NODES: Final = "nodes"
SEE_LIST: Final = "`qnodeos sweep --list EXPERIMENT` prints them all"
_PROFILE: Final = "profile"
_UNITS: Final = {
    **{name: name for name in ("ns", "us", "ms", "ticks")},
    "hz": "Hz",
    "deg": "degree",
    "rad": "radian",
    "s": "s",
    "seconds": "s",
}


class Options(BaseModel):
    """What every experiment can be told."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    link: Literal["paper", "fast", "prompt"] = Field("paper", description="link preset")
    profile: Literal["paper", "prepared", "zero"] = Field("paper", description="latency profile")
    backend: Literal["behavioural", "instrument"] = Field(
        "behavioural", description="depth of the simulation"
    )


@dataclass(frozen=True)
class Settings:
    """What an experiment is run with.

    Attributes:
        options: those of the experiment.
        network: nodes, link and schedule.
        latency: of the software.
    """

    options: Any
    network: NetworkConfig
    latency: LatencyProfile


@dataclass(frozen=True)
class Parameter:
    """One field that can be set.

    Attributes:
        path: its dotted path.
        fields: the fields of that path; more than one where it depends on a ``kind``.
    """

    path: str
    fields: tuple[FieldInfo, ...]

    @cached_property
    def _adapter(self) -> TypeAdapter[Any]:
        kinds: list[Any] = []
        for field in self.fields:
            kind: Any = field.annotation
            for constraint in field.metadata:
                kind = Annotated[kind, constraint]
            kinds.append(kind)
        either: Any = Union[tuple(kinds)]  # noqa: UP007 (their number is not known)
        return TypeAdapter(either)

    @property
    def is_integer(self) -> bool:
        """Whether it takes whole numbers only."""
        return all(field.annotation is int for field in self.fields)

    @property
    def unit(self) -> str:
        """Its unit, 1 for a number without."""
        return unit_of(self.path)

    @property
    def description(self) -> str:
        """What it is."""
        return self.fields[0].description or self.path

    def check(self, value: Value) -> Value:
        """The value as the field has it: a whole number becomes a float where that is meant.

        Raises:
            ValueError: it has the wrong type or is out of range; says which.
        """
        try:
            taken: Value = self._adapter.validate_json(json.dumps(value), strict=True)
        except ValidationError as error:
            texts = [
                each["msg"].removeprefix("Input ").removeprefix("Value error, ")
                for each in error.errors()
            ]
            raise ValueError(
                f"{' or '.join(dict.fromkeys(texts))}, not {reprlib.repr(value)}"
            ) from None
        return taken


class Parameters:
    """All parameters of an experiment.

    Args:
        options: the experiment's own.
    """

    def __init__(self, options: type[Options]) -> None:
        self.options = options
        found: dict[str, list[FieldInfo]] = {}
        for path, field in (
            *_leaves(options, ""),
            *_leaves(NetworkConfig, ""),
            *_leaves(LatencyProfile, f"{_PROFILE}."),
        ):
            found.setdefault(path, []).append(field)
        del found[f"{_PROFILE}.name"]
        self.by_path: Mapping[str, Parameter] = {
            path: Parameter(path, tuple(fields)) for path, fields in found.items()
        }
        first = f"{ROLES[0]}."
        shared = [path.removeprefix(first) for path in found if path.startswith(first)]
        self.names: Mapping[str, tuple[str, ...]] = {
            **{path: (path,) for path in found},
            **{f"{BOTH_NODES}.{rest}": tuple(f"{r}.{rest}" for r in ROLES) for rest in shared},
        }
        """What can be written, and the paths that are meant."""

    def paths(self, key: str) -> tuple[str, ...]:
        """The paths that a key means: a name, or several separated by commas.

        Raises:
            ValueError: there is no such parameter, or it is named twice; says what there is.
        """
        paths: list[str] = []
        for name in key.split(","):
            paths += self._paths_of(name.strip())
        if len(set(paths)) < len(paths):
            raise ValueError("names a parameter twice; name it once")
        return tuple(paths)

    def _paths_of(self, name: str) -> tuple[str, ...]:
        if name in self.names:
            return self.names[name]
        inside = [other for other in self.names if other.startswith(f"{name}.")]
        if name and inside:
            raise ValueError(f"is a group; name one of its fields: {_listed(inside)}")
        close = close_names(name, list(self.names))
        hint = f"did you mean {' or '.join(map(repr, close))}?" if close else SEE_LIST
        raise ValueError(f"there is no parameter {name[:200]!r}; {hint}")

    def settings(self, values: Mapping[str, Value], name: str) -> Settings:
        """The settings with some parameters set, by path; the others are as in the presets.

        Args:
            values: by path.
            name: where they come from, for messages.

        Raises:
            ConfigurationError: the values do not go together.
        """
        tree = nested({path: value for path, value in values.items() if "." in path})
        own = {path: value for path, value in values.items() if "." not in path}
        delays = tree.pop(_PROFILE, {})
        options = changed(self.options(), own, name)
        return Settings(
            options,
            changed(NetworkConfig.preset(options.link), tree, name),
            changed(load_profile(options.profile), delays, name),
        )


def unit_of(path: str) -> str:
    """The unit that the last word of a name says, 1 if none."""
    for part in reversed(path.split(".")):
        unit = _UNITS.get(part.rsplit("_", 1)[-1])
        if unit is not None:
            return unit
    return "1"


def nested(values: Mapping[str, Value]) -> dict[str, Any]:
    """Values by dotted path as dictionaries in dictionaries."""
    tree: dict[str, Any] = {}
    for path, value in values.items():
        *groups, last = path.split(".")
        place = tree
        for group in groups:
            place = place.setdefault(group, {})
        place[last] = value
    return tree


def _leaves(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, FieldInfo]]:
    for name, field in model.model_fields.items():
        inner = list(_models_in(field.annotation))
        for each in inner:
            yield from _leaves(each, f"{prefix}{name}.")
        if not inner:
            yield f"{prefix}{name}", field


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def close_names(name: str, names: Sequence[str]) -> list[str]:
    """Names that were probably meant: alike as a whole, or alike in their last word."""
    wrong = name[:200]
    close = difflib.get_close_matches(wrong, names, n=3, cutoff=0.75)
    if close:
        return close
    last = [each.rsplit(".", 1)[-1] for each in names]
    words = difflib.get_close_matches(wrong.rsplit(".", 1)[-1], list(dict.fromkeys(last)), n=1)
    return [each for each, word in zip(names, last, strict=True) if word in words][:3]


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
