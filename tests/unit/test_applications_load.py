"""Applications from directories: their files, their modules apart from others', their inputs."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest

from qnodeos.applications import Application, load_application
from qnodeos.applications.modules import ApplicationModules
from qnodeos.errors import ConfigurationError

ALICE = "def main(app_config=None, angle=0.0, name='x'):\n    return angle\n"
BOB = "def main(app_config=None):\n    pass\n"


def write(folder: Path, **files: str) -> Path:
    """An application directory; a name's last underscore is its dot."""
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        stem, _, suffix = name.rpartition("_")
        (folder / f"{stem}.{suffix}").write_text(dedent(text))
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "game", app_alice_py=ALICE, app_bob_py=BOB)


def test_roles_are_the_files_and_run_on_nodes_of_their_names(folder):
    application = load_application(folder)
    assert application.name == "game"
    assert not any(name.startswith("app_") for name in sys.modules)
    assert application.allocation == {"alice": "alice", "bob": "bob"}
    assert application.nodes == ["alice", "bob"]
    assert application.inputs == {"alice": {}, "bob": {}}
    assert (application.network, application.post_function) == (None, None)


def test_all_files_of_an_application(folder):
    write(
        folder,
        roles_yaml="{alice: delft, bob: delft}",
        alice_yaml="angle: 0.5",
        bob_yaml="",
        network_yaml="nodes: {delft: {}}",
        post_function_py="def main(backend):\n    return backend\n",
    )
    application = load_application(folder)
    assert application.nodes == ["delft"]
    assert application.inputs == {"alice": {"angle": 0.5}, "bob": {}}
    assert application.network == folder / "network.yaml"
    assert application.post_function is not None
    assert application.post_function(7) == 7


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"roles_yaml": "{alice: delft, bob: b, carol: c}"}, r"roles.yaml.*'carol'.*app_carol.py"),
        ({"roles_yaml": "{alice: delft}"}, "roles.yaml.*which node bob runs"),
        ({"roles_yaml": "{alice: 3, bob: b}"}, "alice to 3"),
        ({"roles_yaml": "[alice]"}, "roles.yaml.*the node of each role"),
        ({"alice_yaml": "angel: 0.5"}, r"alice.yaml.*'angel'.*did you mean 'angle'"),
        ({"alice_yaml": "{"}, "alice.yaml"),
        ({"bob_yaml": "app_config: 1\nangle: 2"}, r"bob.yaml.*'angle'.*takes nothing"),
        ({"app_carol_py": "main = 3"}, "app_carol.py.*no function 'main'"),
        ({"post_function_py": "x = 1"}, "post_function.py.*no function 'main'"),
    ],
)
def test_a_wrong_file_is_named(folder, files, words):
    write(folder, **files)
    with pytest.raises(ConfigurationError, match=words):
        load_application(folder)


def test_a_role_of_any_name(tmp_path):
    folder = write(tmp_path / "odd", **{"app_node-1_py": ALICE})
    assert list(load_application(folder).programs) == ["node-1"]
    assert "app_node-1" not in sys.modules


def test_what_is_no_application(tmp_path):
    with pytest.raises(ConfigurationError, match=r"there is no such directory"):
        load_application(tmp_path / "nothing")
    with pytest.raises(ConfigurationError, match=r"no file app_ROLE.py"):
        load_application(tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigurationError, match="is no directory"):
        load_application(tmp_path / "file")


def test_roles_given_go_before_those_of_the_file(folder):
    write(folder, roles_yaml="{alice: delft, bob: delft}")
    application = load_application(folder, roles={"alice": "a", "bob": "b"})
    assert application.nodes == ["a", "b"]
    assert application.placed({"alice": "c", "zoe": "z"}).nodes == ["c", "b"]


def test_inputs_are_checked_by_role_and_name(folder):
    application = load_application(folder)
    application.with_inputs({"alice": {"angle": 1.0}}).check_inputs()
    with pytest.raises(ConfigurationError, match=r"'alic', but game has alice, bob; did you mean"):
        application.with_inputs({"alic": {}})
    wrong = application.with_inputs({"bob": {"angle": 1.0}})
    with pytest.raises(ConfigurationError, match="program bob cannot start with these inputs"):
        wrong.check_inputs()


def test_inputs_of_one_role_leave_those_of_others(folder):
    write(folder, alice_yaml="angle: 0.5")
    application = load_application(folder)
    changed = application.with_inputs({"alice": {"name": "y"}})
    assert changed.inputs == {"alice": {"angle": 0.5, "name": "y"}, "bob": {}}
    assert application.inputs["alice"] == {"angle": 0.5}


def test_a_program_without_its_argument_is_refused():
    application = Application.from_functions({"alice": lambda needed: needed})
    with pytest.raises(ConfigurationError, match="needed"):
        application.check_inputs()


def test_a_callable_without_a_name_is_a_program_too():
    application = Application.from_functions({"alice": partial(lambda needed: needed)})
    with pytest.raises(ConfigurationError, match="program alice cannot start"):
        application.check_inputs()


def test_functions_have_roles_that_exist():
    with pytest.raises(ConfigurationError, match="at least one program"):
        Application.from_functions({})
    with pytest.raises(ConfigurationError, match="'bob'"):
        Application.from_functions({"alice": len}, allocation={"bob": "x"})


# --- modules ------------------------------------------------------------------------------


def two_with_the_same_names(tmp_path: Path) -> list[Path]:
    folders = []
    for name in ("one", "two"):
        folder = write(
            tmp_path / name,
            app_alice_py="""
                from src.place import WHERE
                import shared  # type: ignore[import-not-found]

                def main():
                    from src.late import LATE
                    return WHERE, shared.WHERE, LATE
            """,
            shared_py=f"WHERE = 'shared of {name}'",
        )
        write(
            folder / "src", __init___py="", place_py=f"WHERE = '{name}'", late_py=f"LATE = '{name}'"
        )
        folders.append(folder)
    return folders


def test_modules_of_the_same_names_do_not_meet(tmp_path):
    before, path = dict(sys.modules), list(sys.path)
    applications = [load_application(folder) for folder in two_with_the_same_names(tmp_path)]
    assert sys.path == path
    added = set(sys.modules) - set(before)
    assert not {name for name in added if name.split(".")[0] in {"src", "shared", "app_alice"}}
    for application in (*applications, applications[0]):
        with application.active():
            where, shared, late = application.programs["alice"]()
        assert where == late
        assert shared == f"shared of {where}"
        assert where == application.name
    assert sys.path == path
    assert "src" not in sys.modules


def test_modules_are_loaded_once(tmp_path):
    folder = write(
        tmp_path / "app",
        app_alice_py="""
            def main():
                import counter
                counter.CALLS.append(1)
                return len(counter.CALLS)
        """,
        counter_py="CALLS = []",
    )
    application = load_application(folder)
    for times in (1, 2, 3):
        with application.active():
            assert application.programs["alice"]() == times


def test_a_module_of_somebody_else_is_out_of_sight_and_comes_back(tmp_path, monkeypatch):
    other = type(sys)("shared")
    monkeypatch.setitem(sys.modules, "shared", other)
    folder = two_with_the_same_names(tmp_path)[0]
    with load_application(folder).active():
        import shared  # type: ignore[import-not-found]

        assert shared is not other
    assert sys.modules["shared"] is other


def test_all_is_as_before_after_an_error(tmp_path):
    folder = write(
        tmp_path / "bad", app_alice_py="import helper\nraise KeyError('no')", helper_py="x = 1"
    )
    before, path = set(sys.modules), list(sys.path)
    external, simulator = (
        sys.modules.get("netqasm.sdk.external"),
        os.environ.get("NETQASM_SIMULATOR"),
    )
    with pytest.raises(KeyError):
        load_application(folder)
    assert set(sys.modules) == before
    assert sys.path == path
    assert sys.modules.get("netqasm.sdk.external") is external
    assert os.environ.get("NETQASM_SIMULATOR") == simulator


def test_the_standard_library_and_numpy_are_never_an_applications_own(tmp_path):
    import random

    folder = write(tmp_path / "names", random_py="x = 1", numpy_py="x = 1")
    with ApplicationModules(folder).active():
        assert sys.modules["random"] is random
        assert "numpy" in sys.modules
    assert sys.modules["random"] is random


def test_within_itself_it_has_no_effect(tmp_path):
    modules = ApplicationModules(write(tmp_path / "app", only_py="x = 1"))
    with modules.active():
        import only  # type: ignore[import-not-found]

        with modules.active():
            assert sys.modules["only"] is only
        assert sys.modules["only"] is only
    assert "only" not in sys.modules
