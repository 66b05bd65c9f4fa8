"""Applications of two roles on the experiments' two nodes, at both depths."""

from __future__ import annotations

import pytest

from qnodeos.applications import Application, load_application, run_application
from qnodeos.applications.template import write_application
from qnodeos.assembly import BACKENDS
from qnodeos.cnpu.external import get_qubit_state
from qnodeos.cnpu.host import find_host
from qnodeos.errors import ConfigurationError, ProgramError


def nothing():
    return None


@pytest.mark.parametrize(("backend", "pairs"), [(BACKENDS[0], 8), (BACKENDS[1], 1)])
def test_an_application_runs_at_both_depths(tmp_path, backend, pairs):
    write_application(tmp_path / "new")
    (results,) = run_application(
        load_application(tmp_path / "new"),
        backend=backend,
        inputs={role: {"pairs": pairs} for role in ("alice", "bob")},
    )
    assert set(results["app_alice"]) == {"X", "Y", "Z", "fidelity"}
    assert results["app_bob"]["of"] == 3 * pairs


def test_the_first_role_is_at_the_client_wherever_it_was_to_run():
    def where():
        return find_host().node_name

    application = Application.from_functions(
        {"one": where, "two": where}, allocation={"one": "delft", "two": "leiden"}
    )
    (results,) = run_application(application, backend=BACKENDS[0])
    assert results == {"app_one": "client", "app_two": "server"}


@pytest.mark.parametrize(
    "application",
    [
        Application.from_functions({"alice": nothing}),
        Application.from_functions({"a": nothing, "b": nothing, "c": nothing}),
        Application.from_functions(
            {"alice": nothing, "bob": nothing}, allocation={"alice": "n", "bob": "n"}
        ),
    ],
)
def test_it_needs_two_roles_on_two_nodes(application):
    with pytest.raises(ConfigurationError, match="two roles, on a node each"):
        run_application(application, backend=BACKENDS[0])


def test_what_looks_at_states_is_refused():
    application = Application.from_functions({"alice": nothing, "bob": nothing})
    with pytest.raises(ConfigurationError, match="post function"):
        run_application(application, backend=BACKENDS[0], post_function=print)

    def curious():
        from netqasm.sdk import Qubit
        from netqasm.sdk.external import NetQASMConnection

        with NetQASMConnection("alice", max_qubits=1) as connection:
            get_qubit_state(Qubit(connection))

    application = Application.from_functions({"alice": curious, "bob": nothing})
    with pytest.raises(ProgramError, match="states cannot be looked at"):
        run_application(application, backend=BACKENDS[0])


def test_a_depth_that_is_not_there():
    application = Application.from_functions({"alice": nothing, "bob": nothing})
    with pytest.raises(ConfigurationError, match="no backend 'atoms'"):
        run_application(application, backend="atoms")
