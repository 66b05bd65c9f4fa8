"""Fixtures of the system tests: the command line, run in the process of a test."""

from __future__ import annotations

import sys
from typing import NamedTuple

import pytest

from qnodeos import cli


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `qnodeos` in this process, as its entry point does."""

    def run(*arguments: str) -> Result:
        monkeypatch.setattr(sys, "argv", ["qnodeos", *arguments])
        monkeypatch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as caught:
            cli.main()
            raise SystemExit(0)
        out, err = capsys.readouterr()
        code = caught.value.code
        assert code is None or isinstance(code, int)
        return Result(code or 0, out, err)

    return run
