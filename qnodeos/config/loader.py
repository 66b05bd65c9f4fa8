"""Load a configuration file into a pydantic model, or say exactly what is wrong.

Values are validated as strictly as JSON allows: a number in quotes is not a number, and
true is not 1. Every failure is a `ConfigurationError` with file, line, field and remedy;
when several fields are wrong all are listed, up to MAX_PROBLEMS.
"""

from __future__ import annotations

import difflib
import json
import os
import reprlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from qnodeos.config.document import MAX_BYTES, Document, dotted, parse_document, too_large
from qnodeos.errors import ConfigurationError
from qnodeos.files import check_readable

MAX_PROBLEMS: Final = 10
"""Most problems listed in one error."""

ModelT = TypeVar("ModelT", bound=BaseModel)


class _Problem(NamedTuple):
    line: int | None
    field: str
    message: str


def load_config(
    path: str | os.PathLike[str], model: type[ModelT], base: ModelT | None = None
) -> ModelT:
    """Read a YAML or JSON file into a model.

    Args:
        path: the file.
        model: what the file must contain; should forbid extra fields.
        base: what holds for the fields that the file does not name; the model's own
            defaults if not given.

    Raises:
        ConfigurationError: the file cannot be read or its content is wrong.
    """
    return parse_config(read_text(path), model, os.fspath(path), base)


def parse_config(text: str, model: type[ModelT], name: str, base: ModelT | None = None) -> ModelT:
    """Read YAML or JSON text into a model.

    Args:
        text: the whole text.
        model: what the text must contain; should forbid extra fields.
        name: file name, for messages.
        base: as for `load_config`.

    Raises:
        ConfigurationError: the text is wrong.
    """
    document = parse_document(text, name)
    if document.data is None:
        raise ConfigurationError(
            f"is empty; give at least one field of {_names_text(_field_names([model]))}", file=name
        )
    if not isinstance(document.data, dict):
        raise ConfigurationError(
            f"the top level must be a mapping (`field: value` lines), not {_shown(document.data)}",
            file=name,
            line=document.lines.get(()),
        )
    return _validated(document, model, base)


def changed(base: ModelT, changes: Mapping[str, Any], name: str) -> ModelT:
    """A model with some fields changed, checked as strictly as if a file named them.

    Args:
        base: what holds for the other fields.
        changes: plain data: numbers, text, lists and dictionaries with text keys.
        name: where the changes come from, for messages.

    Raises:
        ConfigurationError: a field does not exist, or a value is wrong.
    """
    return _validated(Document(name, changes, {}), type(base), base)


def _validated(document: Document, model: type[ModelT], base: ModelT | None) -> ModelT:
    try:
        # By way of JSON because pydantic's strict mode for JSON is what a file needs: it
        # makes tuples of lists and enumerations of text, but no numbers of text.
        data = document.data
        if base is not None:
            data = _merged(base.model_dump(mode="json"), data)
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise _configuration_error(error, document, model) from error


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` with the values of ``changes``, field by field.

    A mapping that chooses another ``kind`` replaces the base's as a whole: the fields of
    one kind mean nothing to another.
    """
    merged = dict(base)
    for name, value in changes.items():
        old = merged.get(name)
        if (
            isinstance(value, dict)
            and isinstance(old, dict)
            and value.get("kind", old.get("kind")) == old.get("kind")
        ):
            merged[name] = _merged(old, value)
        else:
            merged[name] = value
    return merged


def read_text(path: str | os.PathLike[str]) -> str:
    """The text of a configuration file.

    Raises:
        ConfigurationError: it cannot be read, is too large, or is not UTF-8.
    """
    name = os.fspath(path)
    if not Path(path).is_dir():
        check_readable(Path(path))
    try:
        with Path(path).open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise ConfigurationError(
            "there is no such file; check the path and the directory it is relative to", file=name
        ) from None
    except IsADirectoryError:
        raise ConfigurationError("is a directory; name a file in it", file=name) from None
    except PermissionError:
        raise ConfigurationError("may not be read; check its permissions", file=name) from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise ConfigurationError(f"cannot be read: {error}; check the path", file=name) from error
    if len(raw) > MAX_BYTES:
        raise too_large(name)
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigurationError(
            f"is not UTF-8 text (byte {error.start} is 0x{raw[error.start]:02x}); save it as UTF-8",
            file=name,
            line=raw.count(b"\n", 0, error.start) + 1,
        ) from error


# --- from pydantic's errors to ours ---------------------------------------------------


def _configuration_error(
    error: ValidationError, document: Document, model: type[BaseModel]
) -> ConfigurationError:
    details = error.errors(include_url=False)
    problems = sorted(
        (_problem(detail, document, model) for detail in details), key=lambda item: item.line or 0
    )
    if len(problems) == 1:
        line, field, message = problems[0]
        return ConfigurationError(message, file=document.name, line=line, field=field or None)
    lines = [
        ": ".join(part for part in ("" if line is None else f"line {line}", field, message) if part)
        for line, field, message in problems[:MAX_PROBLEMS]
    ]
    if len(problems) > MAX_PROBLEMS:
        lines.append(f"and {len(problems) - MAX_PROBLEMS} more")
    return ConfigurationError(
        f"{len(problems)} problems:" + "".join(f"\n  {line}" for line in lines),
        file=document.name,
    )


def _problem(detail: ErrorDetails, document: Document, model: type[BaseModel]) -> _Problem:
    path = _path_in_data(detail["loc"], document.data)
    line = document.lines.get(path) if path else None
    if detail["type"] == "missing":
        missing = str(detail["loc"][-1])
        return _Problem(line, dotted((*path, missing)), "is required but missing; add it")
    if detail["type"] == "extra_forbidden":
        names = _field_names(_models_at(detail["loc"][:-1], model))
        return _Problem(line, dotted(path), f"is not a known field; {_hint(str(path[-1]), names)}")
    if detail["type"] == "union_tag_not_found":
        field = str(detail["ctx"]["discriminator"])
        return _Problem(line, dotted(path), f"needs the field {field}, which says what kind it is")
    message = detail["msg"].removeprefix("Value error, ")
    message = message.removeprefix("Input ").replace("an object", "a mapping")
    if detail["type"] == "value_error" and isinstance(detail["input"], dict):
        return _Problem(line, dotted(path), message)  # about several fields together
    return _Problem(line, dotted(path), f"{message}, not {_shown(detail['input'])}")


def _path_in_data(loc: Sequence[str | int], data: Any) -> tuple[str | int, ...]:
    """The steps of pydantic's location that exist in the file.

    Pydantic adds steps of its own, such as the branch of a union.
    """
    path: list[str | int] = []
    for step in loc:
        in_mapping = isinstance(data, dict) and step in data
        in_list = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if in_mapping or in_list:
            data = data[step]
            path.append(step)
    return tuple(path)


def _models_at(loc: Sequence[str | int], model: type[BaseModel]) -> list[type[BaseModel]]:
    """The models that may be meant by a location: several if a field is a union."""
    models = [model]
    for step in loc:
        annotations = [
            field.annotation
            for candidate in models
            for name, field in candidate.model_fields.items()
            if step in {name, field.alias}
        ]
        models = [found for item in annotations for found in _models_in(item)] or models
    return models


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _field_names(models: Sequence[type[BaseModel]]) -> list[str]:
    names = [field.alias or name for model in models for name, field in model.model_fields.items()]
    return list(dict.fromkeys(names))


def _hint(wrong: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(wrong, names, n=1)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"remove it, or use one of {_names_text(names)}"


def _names_text(names: Sequence[str]) -> str:
    shown = ", ".join(names[:20])
    return f"{shown}, ..." if len(names) > 20 else shown or "(none)"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a mapping"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if value is None or isinstance(value, bool):
        return json.dumps(value)
    return reprlib.repr(value)
