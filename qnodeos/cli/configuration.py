"""`qnodeos config`: the reference of all configuration fields, made from the models.

`docs/configuration.md` is what this command prints.
"""

from __future__ import annotations

import enum
import json
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import typer
from annotated_types import Ge, Gt, Le, Lt, MaxLen, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from qnodeos.transport import Address

Values = Mapping[str, BaseModel]
"""Instances of one model by name; the first has the defaults."""

_TYPE_NAMES: Final = {
    bool: "true or false",
    int: "integer",
    float: "number",
    str: "text",
    Path: "path",
    Address: "address",
    types.NoneType: "null",
    Any: "value",
}
_UNITS: Final = {
    "ns": "ns",
    "us": "µs",
    "ms": "ms",
    "hz": "Hz",
    "deg": "degrees",
    "rad": "radians",
    "ticks": "ticks",
}
_INTRODUCTION: Final = """\
# Configuration

All fields of configuration files, latency profiles, and the files of nodes, laboratory and
controller. `qnodeos config` prints this page, and `qnodeos config --json` the defaults as a
configuration file. Where a value came from, or that it is assumed, stands in the description;
"published" is the paper, Nature 639, 321 (2025).

## Configuration files: `--config FILE`

YAML or JSON with any of these fields; the others are as in the preset that `--link` names. The
default column is that of `--link paper`, and names what `--link fast` has instead where that
differs. A wrong field, type or range is an error that names file, line and field. A number without
end is written `.inf`.
"""
_ION: Final = """\
## Trapped-ion nodes: `qnodeos experiment ion --config FILE`

The same fields stand under `ions.NAME` of a laboratory file.
"""
_PROFILE: Final = """\
## Latency profiles: `--profile NAME`

How long the software of a node takes, `qnodeos.cnpu.latency.LatencyProfile`. The command line knows
`zero`, which has the defaults, and `paper`; in Python any other can be given to
`qnodeos.assembly.build_two_nodes`. Each delay is a mapping of its own, `Delay`, and so are the
`spikes`.
"""


_NODE_FILES: Final = """\
## Node files: `qnodeos serve NODE.yaml`

One file per node, read by the QNPU service and by everything that talks to it. Relative paths, also
those of Unix sockets, are taken from the folder of the file. An address is `unix:PATH` or
`tcp:HOST:PORT`; one that other machines can reach needs `tls`.
"""

_LAB_FILES: Final = """\
## Laboratory files: `qnodeos lab LAB.yaml`

The simulated laboratory that the devices of the nodes are in. The fields of `network` and of
`ions.NAME` are those of configuration files and trapped-ion nodes, above; `registers` has `nodes`
and `links` with the fields of network files, below.
"""
_CONTROLLER_FILES: Final = """\
## Controller files: `qnodeos controller CONTROLLER.yaml`

The network as a whole: who is in it, which nodes are neighbours, and the time bins.
"""
_NETWORK_FILES: Final = """\
## Network files: `qnodeos network`, `qnodeos run --network`

Networks of many simulated nodes; [networks.md](networks.md) shows them by example. A `schedule` has
the fields of the one above, but its bins are short; a `link` has the fields of the one above, and
what it does not name is as in the default link here.
"""


def config(
    json_: Annotated[
        bool, typer.Option("--json", help="Print the defaults as a configuration file.")
    ] = False,
) -> None:
    """Print all configuration fields as Markdown, or their defaults as JSON."""
    from qnodeos.assembly import NetworkConfig

    if json_:
        typer.echo(json.dumps(NetworkConfig.preset("paper").model_dump(mode="json"), indent=1))
    else:
        typer.echo(reference(), nl=False)


def reference() -> str:
    """The reference of all fields, as Markdown."""
    from qnodeos.assembly import LINKS, NetworkConfig, load_profile
    from qnodeos.assembly.ion import IonNodeConfig
    from qnodeos.cnpu.latency import Delay, LatencyProfile, Spikes

    presets: dict[str, BaseModel] = {name: NetworkConfig.preset(name) for name in LINKS}
    profiles = {"zero": load_profile("zero"), "paper": load_profile("paper")}
    sections = [
        _INTRODUCTION,
        *_sections([""], presets),
        _ION,
        *_sections([""], {"": IonNodeConfig()}),
        _PROFILE,
        _table(LatencyProfile, profiles),
        _section("`Delay`", {"": Delay()}),
        _section("`Spikes`", {"": Spikes()}),
        *_node_sections(),
        *_system_sections(),
        *_network_sections(),
    ]
    return "\n".join(sections)


def _sections(prefixes: Sequence[str], values: Values) -> Iterator[str]:
    """The table of a configuration, then a section for each model in it.

    Args:
        prefixes: where the configuration may stand, for example ``client.``, ``server.``.
        values: of it.
    """
    first = next(iter(values.values()))
    yield _table(type(first), values)
    done: list[BaseModel] = []
    for name, field in type(first).model_fields.items():
        part = getattr(first, name)
        if not isinstance(part, BaseModel) or part in done:
            continue
        done.append(part)
        equal = [other for other in type(first).model_fields if getattr(first, other) == part]
        paths = [f"{prefix}{other}" for prefix in prefixes for other in equal]
        title = " and ".join(f"`{path}`" for path in paths)
        yield f"### {title}\n{_kind(part)}"
        inner = {label: getattr(value, name) for label, value in values.items()}
        yield from _sections([f"{path}." for path in paths], inner)
        for other_kind in get_args(field.annotation):
            if other_kind is not type(part):
                yield _section(f"{title} of another kind", {"": other_kind()})


def _node_sections() -> Iterator[str]:
    """The reference of node files."""
    from qnodeos.service import node_file
    from qnodeos.service.limits_config import LimitsConfig
    from qnodeos.transport import TlsFiles

    parts: dict[str, type[BaseModel]] = {
        "`device` with `link: shm`": node_file.ShmDevice,
        "`device` with `link: spidev`": node_file.SpiDevice,
        "`device` with `link: loopback`": node_file.LoopbackDevice,
        "`api`": node_file.ApiConfig,
        "`peers.NAME`": node_file.PeerConfig,
        "`far_nodes.NAME`": node_file.FarNodeConfig,
        "`peer`": node_file.PeerListenConfig,
        "`applications`": node_file.ApplicationsConfig,
        "`tls`": TlsFiles,
        "`realtime`": node_file.RealtimeConfig,
        "`limits`": LimitsConfig,
        "`trace`": node_file.TraceConfig,
    }
    yield _NODE_FILES
    yield _table(node_file.NodeFile, _defaults(node_file.NodeFile))
    for title, model in parts.items():
        yield _section(title, _defaults(model))


def _system_sections() -> Iterator[str]:
    """The reference of the files of laboratory and controller."""
    from qnodeos.cli.lab_file import LabFile
    from qnodeos.service import controller_file

    yield _LAB_FILES
    yield _table(LabFile, _defaults(LabFile))
    yield _CONTROLLER_FILES
    yield _table(controller_file.ControllerFile, _defaults(controller_file.ControllerFile))
    yield _section("`nodes.NAME`", _defaults(controller_file.ControlledNode))
    yield _section("`synchronisation`", _defaults(controller_file.SynchronisationConfig))


def _network_sections() -> Iterator[str]:
    """The reference of network files."""
    from qnodeos.assembly import description
    from sim.register_physics import QubitPhysics, RegisterPhysics

    yield _NETWORK_FILES
    yield _table(description.NetworkDescription, _defaults(description.NetworkDescription))
    parts: dict[str, type[BaseModel]] = {
        "`nodes.NAME`": description.NodeDescription,
        "`nodes.NAME.device` with `kind: generic`": description.GenericDevice,
        "`nodes.NAME.device` with `kind: nv`": description.NVDevice,
        "`links[N]`": description.LinkDescription,
    }
    for title, model in parts.items():
        yield _section(title, _defaults(model))
    yield _section("`physics` of a device (generic)", {"": RegisterPhysics.generic()})
    yield _section("`physics.communication` and `physics.memory` (generic)", {"": QubitPhysics()})


def _defaults(model: type[BaseModel]) -> Values:
    """An instance that has only the fields with a default; the others are not asked for."""
    return {"": model.model_construct()}


def _section(title: str, values: Values) -> str:
    model = type(next(iter(values.values())))
    return f"### {title}\n{_kind(model)}\n{_table(model, values)}"


def _kind(model: BaseModel | type[BaseModel]) -> str:
    """What a model is: the first line of its docstring."""
    text = (model.__doc__ or "").strip().splitlines()
    return f"\n{text[0]}\n" if text else ""


def _table(model: type[BaseModel], values: Values) -> str:
    lines = ["| field | type | unit, range | default | description |", "|---|---|---|---|---|"]
    for name, field in model.model_fields.items():
        cells = (
            f"`{name}`",
            _type_name(field.annotation),
            ", ".join(filter(None, (_UNITS.get(name.rsplit("_", 1)[-1]), _range(field)))),
            _default(name, field, values),
            (field.description or "").replace("|", "\\|"),
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _type_name(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{each}`" for each in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(each) for each in arguments)
    if origin is tuple:
        return f"list of {_type_name(arguments[0])}"
    if origin is dict:
        return f"{_type_name(arguments[1])} by {_type_name(arguments[0])}"
    if annotation is not Any and issubclass(annotation, enum.Enum):
        return ", ".join(f"{each.value} ({each.name})" for each in annotation)
    return _TYPE_NAMES.get(annotation, f"`{annotation.__name__}`")


def _range(field: FieldInfo) -> str:
    """The bounds, as comparisons."""
    signs = {Ge: ("≥", "ge"), Gt: (">", "gt"), Le: ("≤", "le"), Lt: ("<", "lt")}
    bounds = []
    for item in field.metadata:
        if type(item) in signs:
            sign, name = signs[type(item)]
            bounds.append(f"{sign} {_number(getattr(item, name))}")
        elif isinstance(item, MinLen):
            bounds.append(f"length ≥ {item.min_length}")
        elif isinstance(item, MaxLen):
            bounds.append(f"length ≤ {item.max_length}")
    return ", ".join(bounds)


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:g}"


def _default(name: str, field: FieldInfo, values: Values) -> str:
    """The default, and the values of the others that differ from it."""
    if field.is_required():
        return "required"
    shown = {label: _shown(getattr(value, name)) for label, value in values.items()}
    (_, default), *others = shown.items()
    differing = [f"{label}: {text}" for label, text in others if text != default]
    return "; ".join([default, *differing])


def _shown(value: Any) -> str:
    if not isinstance(value, BaseModel):
        return f"`{json.dumps(value, default=str)}`"
    plain = value.model_dump(mode="json")
    if any(isinstance(each, dict) for each in plain.values()) or len(plain) > 3:
        return "see below"
    return f"`{{{', '.join(f'{name}: {each:g}' for name, each in plain.items())}}}`"
