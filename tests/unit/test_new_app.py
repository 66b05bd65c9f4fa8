"""`qnodeos new-app` writes an application that runs, or says why it cannot."""

from __future__ import annotations

import pytest
from typer.testing import CliRunner

from qnodeos import cli
from qnodeos.applications import load_application, read_network, run_application
from qnodeos.applications.template import write_application
from qnodeos.errors import ConfigurationError


def test_the_application_runs_with_other_roles(tmp_path):
    write_application(tmp_path / "new", ("ada", "b2"))
    application = load_application(tmp_path / "new")
    assert dict(application.allocation) == {"ada": "client", "b2": "server"}
    network = read_network(tmp_path / "new" / "perfect.yaml")
    (results,) = run_application(
        application, network=network, inputs={role: {"pairs": 6} for role in ("ada", "b2")}
    )
    assert results["app_ada"] == {"X": 1.0, "Y": -1.0, "Z": 1.0, "fidelity": 1.0}
    assert results["app_b2"]["of"] == 18


def test_a_chain_shares_states_of_all(tmp_path):
    roles = ("zoe", "ada", "b2", "carl")
    write_application(tmp_path / "new", roles)
    application = load_application(tmp_path / "new")
    network = read_network(tmp_path / "new" / "perfect.yaml")
    inputs = {role: {"states": 8} for role in roles}
    (results,) = run_application(application, network=network, inputs=inputs)
    assert results["app_zoe"]["equal"] == 8
    assert {result["ones"] for result in results.values()} == {results["app_carl"]["ones"]}
    assert 0 < results["app_carl"]["ones"] < 8


def test_the_longest_chain_runs_with_noise(tmp_path):
    roles = tuple("abcdef")
    write_application(tmp_path / "new", roles)
    application = load_application(tmp_path / "new")
    (results,) = run_application(application, inputs={role: {"states": 12} for role in roles})
    assert set(results) == {f"app_{role}" for role in roles}
    assert 0 < results["app_a"]["equal"] < 12


@pytest.mark.parametrize("roles", [("ada", "b2"), ("ada", "b2", "carl")])
def test_no_placeholder_is_left(tmp_path, roles):
    for path in write_application(tmp_path / "new", roles):
        assert "$" not in path.read_text("utf-8"), path
        assert "creator" not in path.name


def test_the_command_writes_the_files_and_lists_them(tmp_path):
    done = CliRunner().invoke(cli.app, ["new-app", str(tmp_path / "new")])
    assert done.exit_code == 0
    listed = {line for line in done.output.splitlines() if line.startswith(str(tmp_path))}
    assert listed == {str(path) for path in (tmp_path / "new").iterdir()}
    assert f"qnodeos run --app-dir {tmp_path / 'new'}" in done.output


def test_what_is_there_is_not_overwritten(tmp_path):
    (tmp_path / "mine.py").write_text("", "utf-8")
    with pytest.raises(ConfigurationError, match="not an empty directory"):
        write_application(tmp_path)
    with pytest.raises(ConfigurationError, match="not an empty directory"):
        write_application(tmp_path / "mine.py")
    assert [path.name for path in tmp_path.iterdir()] == ["mine.py"]


@pytest.mark.parametrize(
    ("roles", "message"),
    [
        ("alice", "two to 6 different roles"),
        ("a,b,c,d,e,f,g", "two to 6 different roles"),
        ("alice,alice", "two to 6 different roles"),
        ("alice,bob,alice", "two to 6 different roles"),
        ("alice,", "'' cannot be a role"),
        ("Alice,bob", "'Alice' cannot be a role"),
        ("alice,../bob", "cannot be a role"),
        ("alice,network", "not one of network, perfect, roles"),
    ],
)
def test_roles_that_cannot_be(tmp_path, roles, message):
    done = CliRunner().invoke(cli.app, ["new-app", str(tmp_path / "new"), "--roles", roles])
    assert isinstance(done.exception, ConfigurationError)
    assert message in str(done.exception)
    assert not (tmp_path / "new").exists()
