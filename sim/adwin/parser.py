"""From a preprocessed source to the syntax tree, with lark and the grammar beside this file."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any, Final

from lark import Lark, Token, Tree
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken

from sim.adwin import tree
from sim.adwin.errors import AdbasicError, Location
from sim.adwin.preprocessor import SourceText, preprocess
from sim.adwin.tree import Kind

MAX_NESTING: Final = 60
"""Bound on operators within operators, and on blocks within blocks."""
_KINDS: Final = {
    "long": Kind.LONG,
    "integer": Kind.LONG,
    "float": Kind.FLOAT,
    "float32": Kind.FLOAT,
    "float64": Kind.FLOAT,
    "string": Kind.STRING,
}


def parse_file(path: Path, processor: str) -> tree.Source:
    """Read and parse an ADbasic source.

    Args:
        path: the ``.bas`` file.
        processor: for ``#IF PROCESSOR = ...``, for instance "T11".

    Raises:
        AdbasicError: the source is wrong or outside the subset.
    """
    return parse_text(preprocess(path, processor), path)


def parse_text(source: SourceText, path: Path) -> tree.Source:
    """Parse a source after the first pass; see `parse_file`."""
    try:
        parsed = _grammar().parse(source.text)
    except UnexpectedInput as error:
        raise _syntax_error(error, source) from None
    return _Builder(source, str(path)).source(parsed)


@cache
def _grammar() -> Lark:
    return Lark.open(
        "adbasic.lark",
        rel_to=__file__,
        parser="lalr",
        propagate_positions=True,
        maybe_placeholders=False,
    )


def _syntax_error(error: UnexpectedInput, source: SourceText) -> AdbasicError:
    last = len(source.locations) - 1
    line = error.line - 1 if error.line and error.line > 0 else last
    location = source.locations[min(line, last)] if source.locations else None
    if isinstance(error, UnexpectedCharacters):
        return AdbasicError(f"the character {error.char!r} makes no sense here", location)
    if isinstance(error, UnexpectedEOF) or (
        isinstance(error, UnexpectedToken) and error.token.type == "$END"
    ):
        return AdbasicError("the source ends inside a block; close it", location)
    assert isinstance(error, UnexpectedToken)
    found = "the end of the line" if error.token.type == "_NEWLINE" else repr(str(error.token))
    names = sorted(name.strip("_").lower() for name in error.accepts or error.expected)
    wanted = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return AdbasicError(f"did not expect {found}; possible here: {wanted}", location)


class _Builder:
    """Turns lark's tree into ours."""

    def __init__(self, source: SourceText, file: str) -> None:
        self._source = source
        self._file = file

    def source(self, parsed: Tree[Token]) -> tree.Source:
        declarations: list[tree.Declaration] = []
        macros: dict[str, tree.Macro] = {}
        sections: dict[str, tree.Block] = {}
        for item in _trees(parsed.children):
            if item.data == "dim":
                declarations += self._dim(item)
            elif item.data == "section":
                name = str(item.children[0]).lower()
                if name in sections:
                    raise AdbasicError(f"there are two {name.upper()} sections", self._at(item))
                sections[name] = self._block(_last_tree(item), 0)
            else:
                macro = self._macro(item)
                if macro.name in macros:
                    raise AdbasicError(f"{macro.name} is declared twice", macro.location)
                macros[macro.name] = macro
        return tree.Source(self._file, self._source.header, tuple(declarations), macros, sections)

    def _at(self, item: Tree[Token] | Token) -> Location:
        line = item.line if isinstance(item, Token) else item.meta.line
        assert line is not None
        return self._source.locations[line - 1]

    # --- declarations -----------------------------------------------------------------

    def _dim(self, item: Tree[Token]) -> Iterable[tree.Declaration]:
        for group in _trees(item.children):
            names = [child for child in _trees(group.children) if child.data == "dim_name"]
            (word,) = (child for child in group.children if isinstance(child, Token))
            kind = self._kind(word)
            places = [str(child.children[0]).lower() for child in group.find_data("place")]
            fifo = any(True for _ in group.find_data("fifo"))
            for name in names:
                sizes = tuple(self._expression(size, 0) for size in name.children[1:])
                yield tree.Declaration(
                    self._at(name),
                    str(name.children[0]).lower(),
                    kind,
                    sizes,
                    fifo,
                    places[0] if places else None,
                )

    def _kind(self, word: Token) -> Kind:
        kind = _KINDS.get(word.lower())
        if kind is None:
            raise AdbasicError(f"{word} is not a type; use LONG, FLOAT or STRING", self._at(word))
        return kind

    def _macro(self, item: Tree[Token]) -> tree.Macro:
        words = [child for child in item.children if isinstance(child, Token)]
        parameters: list[tree.Parameter] = []
        for given in item.find_data("parameter"):
            name = str(given.children[0]).lower()
            is_array = any(True for _ in given.find_data("array_mark"))
            if name in {known.name for known in parameters}:
                raise AdbasicError(f"two parameters are called {name}", self._at(item))
            parameters.append(tree.Parameter(name, is_array))
        # In a rule with several parts the name comes first and a FUNCTION's type second.
        kind = self._kind(words[1]) if item.data == "function" else None
        body = next(child for child in _trees(item.children) if child.data == "body")
        declarations: list[tree.Declaration] = []
        statements: list[tree.Statement] = []
        for child in _trees(body.children):
            if child.data == "dim":
                declarations += self._dim(child)
            else:
                statements.append(self._statement(child, 0))
        return tree.Macro(
            self._at(words[0]),
            str(words[0]).lower(),
            tuple(parameters),
            kind,
            tuple(declarations),
            tuple(statements),
        )

    # --- statements -------------------------------------------------------------------

    def _block(self, block: Tree[Token], depth: int) -> tree.Block:
        return tuple(self._statement(item, depth) for item in _trees(block.children))

    def _statement(self, item: Tree[Token], depth: int) -> tree.Statement:
        here = self._at(item)
        if depth > MAX_NESTING:
            raise AdbasicError(f"blocks are nested more than {MAX_NESTING} deep", here)
        parts = item.children
        if item.data == "assign":
            return tree.Assign(here, self._target(parts[0]), self._expression(parts[1], 0))
        if item.data in ("increment", "decrement"):
            by = 1 if item.data == "increment" else -1
            return tree.Step(here, self._target(parts[0]), by)
        if item.data == "call":
            arguments = self._arguments(parts[1]) if len(parts) > 1 else ()
            return tree.Call(here, str(parts[0]).lower(), arguments)
        if item.data == "end":
            return tree.End(here)
        if item.data == "exit":
            return tree.Exit(here)
        if item.data == "if_line":
            condition = self._expression(parts[0], 0)
            only = self._statement(_as_tree(parts[1]), depth + 1)
            return tree.If(here, (tree.Arm(here, (condition,), (only,)),), ())
        compound = {
            "if_block": self._if_block,
            "select_case": self._select,
            "for_loop": self._for,
            "do_loop": self._do,
        }
        return compound[item.data](item, here, depth + 1)

    def _if_block(self, item: Tree[Token], here: Location, depth: int) -> tree.If:
        parts = _parts(item)
        arms = [self._arm(here, parts[:2], depth)]
        otherwise: tree.Block = ()
        for part in parts[2:]:
            if part.data == "else_if":
                arms.append(self._arm(self._at(part), _parts(part), depth))
            else:
                otherwise = self._block(_last_tree(part), depth)
        return tree.If(here, tuple(arms), otherwise)

    def _arm(self, here: Location, parts: list[Tree[Token]], depth: int) -> tree.Arm:
        *tests, block = parts
        conditions = tuple(self._expression(test, 0) for test in tests)
        return tree.Arm(here, conditions, self._block(block, depth))

    def _select(self, item: Tree[Token], here: Location, depth: int) -> tree.Select:
        value, *cases = _parts(item)
        arms: list[tree.Arm] = []
        otherwise: tree.Block = ()
        for case in cases:
            if case.data == "case":
                arms.append(self._arm(self._at(case), _parts(case), depth))
            else:
                otherwise = self._block(_last_tree(case), depth)
        return tree.Select(here, self._expression(value, 0), tuple(arms), otherwise)

    def _for(self, item: Tree[Token], here: Location, depth: int) -> tree.For:
        parts = _parts(item)
        step = self._expression(parts[3], 0) if len(parts) == 5 else tree.Number(1)
        target = self._target(parts[0])
        closing = item.children[-1]
        if isinstance(closing, Token) and closing.lower() != target.name:
            raise AdbasicError(
                f"NEXT {closing} closes a loop over {target.name}", self._at(closing)
            )
        first, last = (self._expression(part, 0) for part in parts[1:3])
        block = next(part for part in parts if part.data == "block")
        return tree.For(here, target, first, last, step, self._block(block, depth))

    def _do(self, item: Tree[Token], here: Location, depth: int) -> tree.Do:
        block, until = _parts(item)
        return tree.Do(here, self._block(block, depth), self._expression(until, 0))

    # --- expressions ------------------------------------------------------------------

    def _target(self, item: Tree[Token] | Token) -> tree.Target:
        target = self._expression(item, 0)
        assert isinstance(target, tree.Name | tree.Element)
        return target

    def _arguments(self, item: Tree[Token] | Token) -> tuple[tree.Expression, ...]:
        return tuple(self._expression(one, 0) for one in _as_tree(item).children)

    def _expression(self, item: Tree[Token] | Token, depth: int) -> tree.Expression:
        item = _as_tree(item)
        if depth > MAX_NESTING:
            raise AdbasicError(f"more than {MAX_NESTING} operators deep", self._at(item))
        parts = item.children
        if item.data == "number":
            return self._number(parts[0])
        if item.data == "unary":
            return tree.Unary(str(parts[0]).lower(), self._expression(parts[1], depth + 1))
        if item.data == "binary":
            left = self._expression(parts[0], depth + 1)
            right = self._expression(parts[2], depth + 1)
            return tree.Binary(str(parts[1]).lower(), left, right)
        name = str(parts[0]).lower()
        if item.data == "name":
            return tree.Name(name)
        if item.data == "array":
            return tree.ArrayName(name)
        if item.data == "invoke":
            return tree.Invoke(name, self._arguments(parts[1]) if len(parts) > 1 else ())
        indices = tuple(self._expression(index, depth + 1) for index in parts[1:])
        return tree.Element(name, indices)

    def _number(self, item: Tree[Token] | Token) -> tree.Number:
        assert isinstance(item, Token)
        if item.type == "FLOAT":
            return tree.Number(float(item))
        base = {"HEX": 16, "BINARY": 2, "DECIMAL": 10}[item.type]
        value = int(item if base == 10 else item[:-1], base)
        if value > 0xFFFFFFFF:
            raise AdbasicError(f"{item} needs more than 32 bits", self._at(item))
        # Patterns such as 0FFFFFFFFh set the sign bit.
        return tree.Number(value - 0x1_0000_0000 if value > 0x7FFFFFFF else value)


def _trees(children: Iterable[Any]) -> Iterable[Tree[Token]]:
    return (child for child in children if isinstance(child, Tree))


def _parts(item: Tree[Token]) -> list[Tree[Token]]:
    return list(_trees(item.children))


def _last_tree(item: Tree[Token]) -> Tree[Token]:
    return _parts(item)[-1]


def _as_tree(item: Tree[Token] | Token) -> Tree[Token]:
    assert isinstance(item, Tree)
    return item
