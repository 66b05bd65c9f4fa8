"""`qnodeos results`."""

from __future__ import annotations

import json

import pytest

from qnodeos.experiments.storage import DATABASE, Column, open_run


@pytest.fixture
def directory(tmp_path):
    place = tmp_path / "results"
    setpoints, columns = {"shot": Column("shot")}, {"outcome": Column("outcome")}
    for seed, name in ((70011, "one"), (70012, "\x1b[2Jtwo")):
        with open_run(place / DATABASE, "lgt", name, setpoints, columns, {"seed": seed}) as run:
            run.add(shot=[0, 1, 2], outcome=1)
    return place


@pytest.mark.parametrize("command_name", [(), ("list",)])
def test_runs_are_listed(command, directory, tmp_path, monkeypatch, command_name):
    monkeypatch.chdir(directory)
    report = tmp_path / "runs.json"
    for place in ((), (str(directory),), (str(directory / DATABASE),)):
        done = command("results", *command_name, *place, "--json", str(report))
        assert done.code == 0, done.err
        assert "one" in done.out
        assert "?[2Jtwo" in done.out
        runs = json.loads(report.read_text())["runs"]
        assert [(run["run"], run["seed"], run["rows"]) for run in runs] == [
            (1, 70011, 3),
            (2, 70012, 3),
        ]
    done = command("results", *command_name, str(directory), "--last", "1")
    assert "70012" in done.out
    assert "70011" not in done.out


def test_runs_are_exported(command, directory, tmp_path):
    assert command("results", "export", "2", str(directory), "--to", "csv").code == 0
    assert (directory / "run_2.csv").read_text().splitlines()[0] == "shot,outcome"
    target = tmp_path / "one.nc"
    done = command("results", "export", "1", str(directory), "--to", "netcdf", "--out", str(target))
    assert done.code == 0, done.err
    assert target.stat().st_size > 0
    assert f"3 rows: {target}" in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nowhere",), "nowhere: there is no such database"),
        (("results", "--last", "0"), "--last"),
        (("export",), "RUN"),
        (("export", "0", "results"), "RUN"),
        (("export", "3", "results"), "no run 3"),
        (("export", "1", "results", "--to", "xls"), "xls"),
        (("export", "1", "results", "--out", "results"), "a directory"),
        (("export", "1", "results", "--out", "results/qnodeos.db"), "is the database"),
        (("results", "--json", "results"), "a directory"),
        (("results", "--json", "/proc/x.json"), "cannot write the result there: /proc: No such"),
        (
            ("export", "1", "results", "--out", "/proc/x.csv"),
            "cannot write the result there: /proc",
        ),
        (("export", "1", "results", "--out", "no/such/x.csv"), "cannot write the result there: no"),
    ],
)
def test_what_cannot_be_done_is_said(command, directory, monkeypatch, arguments, said):
    monkeypatch.chdir(directory.parent)
    before = (directory / DATABASE).read_bytes()
    done = command("results", *arguments)
    assert done.code == 2
    assert said in done.err
    assert "Traceback" not in done.err
    assert (directory / DATABASE).read_bytes() == before


def test_without_arguments_the_current_directory_is_meant(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command("results")
    assert done.code == 2
    assert "no such database" in done.err
    assert "export" in command("results", "--help").out
