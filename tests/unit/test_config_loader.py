"""Configuration files: what loads, and what each mistake is told."""

from __future__ import annotations

import enum
import json
import math
import os
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, field_validator

from qnodeos.config import load_config, parse_config
from qnodeos.config.document import (
    MAX_BYTES,
    MAX_DEPTH,
    MAX_NODES,
    MAX_NUMBER_LENGTH,
    parse_document,
)
from qnodeos.config.loader import MAX_PROBLEMS
from qnodeos.errors import ConfigurationError


class Colour(enum.Enum):
    RED = "red"


class Model(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Link(Model):
    visibility: float = Field(ge=0, le=1)
    attempt_period_ns: int = Field(default=5_500, gt=0)


class Perfect(Model):
    kind: Literal["perfect"]


class Noisy(Model):
    kind: Literal["noisy"]
    strength: float = 0.5


class Node(Model):
    name: str = "alice"
    links: list[Link] = []
    neighbours: dict[int, str] = {}
    window: tuple[int, int] = (0, 1)
    colour: Colour = Colour.RED
    noise: Perfect | Noisy = Field(default=Perfect(kind="perfect"), discriminator="kind")
    limit_ms: float = 1.0
    enabled: bool = True
    from_: str = Field(default="", alias="from")
    link_to: Link | None = Field(default=None, alias="to")

    @field_validator("name")
    @classmethod
    def _lower_case(cls, name: str) -> str:
        if name != name.lower():
            raise ValueError("node names are written in lower case")
        return name


def failure(text: str, model: type[BaseModel] = Node) -> ConfigurationError:
    with pytest.raises(ConfigurationError) as caught:
        parse_config(text, model, "node.yaml")
    assert caught.value.file == "node.yaml"
    return caught.value


# --- what loads -----------------------------------------------------------------------

YAML_TEXT = """\
# a node
name: bob
links:
  - visibility: 0.9
    attempt_period_ns: 0x10
  - {visibility: 1}
neighbours: {1: carol, 2: "dave"}
window: [3, 4]
colour: red
noise: {kind: noisy, strength: 1e-3}
limit_ms: .inf
from: 2024-03-04
"""


def test_yaml_becomes_the_model():
    node = parse_config(YAML_TEXT, Node, "node.yaml")
    assert node.name == "bob"
    assert [link.attempt_period_ns for link in node.links] == [16, 5_500]
    assert node.neighbours == {1: "carol", 2: "dave"}
    assert node.window == (3, 4)
    assert node.noise == Noisy(kind="noisy", strength=1e-3)
    assert math.isinf(node.limit_ms)
    assert node.from_ == "2024-03-04"


def test_yaml_1_2_words():
    """In YAML 1.1 these are a boolean, a number in base 8 and one in base 60."""
    words = parse_document("[no, 010, 1:30, ~, true, 0o10, '1', <<, -_, 0x_]", "f").data
    assert words == ["no", 10, "1:30", None, True, 8, "1", "<<", "-_", "0x_"]


def test_a_file_is_read(tmp_path):
    file = tmp_path / "node.yaml"
    file.write_bytes(b"\xef\xbb\xbfname: zo\xc3\xab\r\nlimit_ms: 2\r\n")
    assert load_config(file, Node).name == "zoë"
    assert load_config(str(file), Node).limit_ms == 2


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    lambda children: (
        st.lists(children, max_size=4)
        | st.dictionaries(
            st.text(st.characters(exclude_categories=["Cs"]), max_size=8), children, max_size=4
        )
    ),
    max_leaves=12,
)


@given(json_values, st.sampled_from([None, 2, "\t"]))
@example({"a": "\U0001f600"}, None)
def test_json_is_accepted(value, indent):
    text = json.dumps(value, indent=indent)
    read = parse_document(text, "f.json").data
    assert read == value
    assert json.dumps(read) == json.dumps(value)


# --- what is refused, and where the message points ------------------------------------


@pytest.mark.parametrize(
    ("text", "line", "field", "message"),
    [
        ("name: bob\nnmae: x", 2, "nmae", "is not a known field; did you mean 'name'?"),
        ("links:\n- visibilty: 1\n  visibility: 1", 2, "links[0].visibilty", "mean 'visibility'"),
        ("zzz: 1", 1, "zzz", "use one of name, links, neighbours"),
        ("form: x", 1, "form", "did you mean 'from'?"),
        ("to: {visibility: 1, visibilty: 1}", 1, "to.visibilty", "did you mean 'visibility'?"),
        ("noise:\n  kind: noisy\n  strenght: 1", 3, "noise.strenght", "did you mean 'strength'?"),
        ("noise: {kind: loud}", 1, "noise", "'noisy'"),
        ("links:\n- {}", 2, "links[0].visibility", "is required but missing; add it"),
        ("\nlimit_ms: '3'", 2, "limit_ms", "should be a valid number, not '3'"),
        ("enabled: yes", 1, "enabled", "should be a valid boolean, not 'yes'"),
        ("window: [1, true]", 1, "window[1]", "should be a valid integer, not true"),
        ("window: [1, 2.0]", 1, "window[1]", "should be a valid integer, not 2.0"),
        ("links:\n- visibility: 1.5", 2, "links[0].visibility", "less than or equal to 1, not 1.5"),
        ("links: {a: 1}", 1, "links", "should be a valid array, not a mapping"),
        ("links: [3]", 1, "links[0]", "should be a mapping, not 3"),
        ("name: [1]", 1, "name", "should be a valid string, not a list of 1"),
        ("name: Bob", 1, "name", "node names are written in lower case, not 'Bob'"),
        ("colour: blue", 1, "colour", "should be 'red', not 'blue'"),
        (": 1", 1, "''", "is not a known field"),
        ("name: a\n\nname: b", 3, "name", "duplicate key; it was given on line 1"),
        ("neighbours:\n  1: a\n  '1': b", 3, "neighbours.1", "duplicate key"),
        ("name: &a x", 1, None, "anchors and aliases"),
        ("name: x\nfrom: *a", 2, None, "anchors and aliases"),
        ("name: !!str x", 1, None, "tags (!) are not read"),
        ("name: !!python/object:os.system x", 1, None, "tags (!) are not read"),
        ("links: !mine []", 1, None, "tags (!) are not read"),
        ("name: a\n---\nname: b", 2, None, "a second document starts here"),
        ("%YAML 1.1\n---\nname: a", 2, None, "only YAML 1.2"),
        ("? [a, b]\n: c", 1, None, "a key must be a name"),
        ("? {a: b}\n: c", 1, None, "a key must be a name"),
        ("name: [1, 2", 1, None, "not valid YAML"),
        ("name: a\n\tlimit_ms: 1", 2, None, "not valid YAML"),
        ("name: a\nfrom: '\x07'", 2, None, "contains a control character"),
        ('name: "\\ud83d"', 1, None, "lone surrogate"),
        ("limit_ms: " + "9" * (MAX_NUMBER_LENGTH + 1), 1, None, "shorten it"),
        ("- name: bob", 1, None, "the top level must be a mapping"),
        ("bob", 1, None, "the top level must be a mapping"),
        ("", None, None, "is empty; give at least one field of name, links"),
        ("# only a comment\n", None, None, "is empty"),
        ("~", None, None, "is empty"),
    ],
)
def test_each_mistake_is_named(text, line, field, message):
    error = failure(text)
    assert (error.line, error.field) == (line, field)
    assert message in str(error)
    place = "node.yaml" if line is None else f"node.yaml:{line}"
    assert str(error).startswith(f"{place}: ")


def test_all_problems_are_listed_in_the_order_of_the_file():
    error = failure("limit_ms: x\nlinks:\n- visibility: 2\nnmae: a")
    assert str(error).splitlines() == [
        "node.yaml: 3 problems:",
        "  line 1: limit_ms: should be a valid number, not 'x'",
        "  line 3: links[0].visibility: should be less than or equal to 1, not 2",
        "  line 4: nmae: is not a known field; did you mean 'name'?",
    ]


def test_the_list_of_problems_is_bounded():
    error = failure("links:\n" + "- {visibility: 2}\n" * (MAX_PROBLEMS + 3))
    lines = str(error).splitlines()
    assert len(lines) == 1 + MAX_PROBLEMS + 1
    assert lines[-1] == "  and 3 more"


def test_a_long_value_is_cut():
    assert len(str(failure("limit_ms: " + "x" * 10_000))) < 200


@pytest.mark.parametrize("opening", ["[", "{a: ", "- "])
def test_depth_is_bounded(opening):
    error = failure("name: \n  " + opening * (MAX_DEPTH + 2))
    assert f"nested deeper than {MAX_DEPTH} levels" in str(error)
    assert error.line == 2
    deepest = parse_document("[" * MAX_DEPTH + "]" * MAX_DEPTH, "f").data
    assert json.dumps(deepest) == "[" * MAX_DEPTH + "]" * MAX_DEPTH


def test_size_is_bounded(tmp_path):
    text = "name: bob\n#" + "x" * (MAX_BYTES - 11)
    assert parse_config(text, Node, "f").name == "bob"
    file = tmp_path / "large.yaml"
    file.write_text(text + "x")
    for attempt in (
        lambda: parse_config(text + "x", Node, str(file)),
        lambda: load_config(file, Node),
    ):
        with pytest.raises(ConfigurationError, match=f"larger than {MAX_BYTES} bytes") as caught:
            attempt()
        assert caught.value.file == str(file)


def test_size_is_counted_in_bytes(tmp_path):
    file = tmp_path / "large.yaml"
    file.write_text("name: bob\n#" + "é" * (MAX_BYTES // 2), encoding="utf-8")
    with pytest.raises(ConfigurationError, match="larger than"):
        load_config(file, Node)


def test_the_number_of_nodes_is_bounded(monkeypatch):
    assert MAX_NODES == 50_000
    monkeypatch.setattr("qnodeos.config.document.MAX_NODES", 10)
    assert len(parse_document("[1, 2, 3, 4, 5, 6, 7, 8, 9]", "f").data) == 9
    with pytest.raises(ConfigurationError, match="more than 10 keys and values"):
        parse_document("[1, 2, 3, 4, 5, 6, 7, 8, 9, 10]", "f")


def test_files_that_cannot_be_read(tmp_path):
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: a\nfrom: Zoë\n".encode("latin-1"))
    os.mkfifo(tmp_path / "pipe")
    cases = {
        str(tmp_path / "none.yaml"): (None, "there is no such file"),
        str(tmp_path): (None, "is a directory"),
        str(tmp_path / "pipe"): (None, "is a pipe; name a file"),
        str(latin): (2, "is not UTF-8 text (byte 16 is 0xeb)"),
        str(latin / "under.yaml"): (None, "cannot be read"),
        "nul\0.yaml": (None, "cannot be read"),
    }
    for path, (line, message) in cases.items():
        with pytest.raises(ConfigurationError) as caught:
            load_config(path, Node)
        assert (caught.value.file, caught.value.line) == (path, line)
        assert message in str(caught.value)


def test_a_file_without_permission(tmp_path, mocker):
    """Simulated: the superuser may read everything."""
    mocker.patch("pathlib.Path.open", side_effect=PermissionError(13, "denied"))
    with pytest.raises(ConfigurationError, match="may not be read; check its permissions"):
        load_config(tmp_path / "secret.yaml", Node)


# --- anything at all ------------------------------------------------------------------

WORDS = (
    "name links visibility neighbours noise kind : - ? , [ ] { } ' \" | > & * ! % @ ` # \\ --- "
    "... %YAML %TAG !! !<x> << ~ true 1 0x 0b _ 1e9 .inf .nan 2024-01-01 \\u \\x4 |2- >+ é"
)
SPACES = (" ", "  ", "\n", "\n  ", "\n- ", ": ", "\t", "\r", "\x00", "\x85", "\u2028", "\ufeff")
FRAGMENTS = st.sampled_from([*WORDS.split(), *SPACES])


def loads_or_refuses(text: str) -> None:
    try:
        parse_config(text, Node, "any.yaml")
    except ConfigurationError as error:
        assert str(error).startswith("any.yaml")


@given(st.lists(FRAGMENTS, max_size=25).map("".join))
@settings(max_examples=600)
def test_yaml_like_text_loads_or_is_refused(text):
    loads_or_refuses(text)


@given(st.text(st.characters(), max_size=60))
@settings(max_examples=300)
def test_any_text_loads_or_is_refused(text):
    loads_or_refuses(text)


@given(st.integers(0, len(YAML_TEXT)), FRAGMENTS)
@settings(max_examples=300)
def test_a_damaged_file_loads_or_is_refused(position, fragment):
    loads_or_refuses(YAML_TEXT[:position] + fragment + YAML_TEXT[position:])


def test_a_choice_without_its_kind_says_which_field_is_missing():
    error = failure("name: a\nnoise: {strength: 0.5}\n")
    assert "line 2" in str(error) or error.line == 2
    assert "noise: needs the field 'kind'" in str(error)
