"""The simulator's names mean this system while asked for, and what is missing is refused."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest

from qnodeos.applications.squidasm.names import ROOTS, UnavailableNameError, installed
from qnodeos.applications.squidasm.states import KETS, dm_fidelity, get_reference_state


@pytest.fixture
def names():
    with installed():
        yield


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("squidasm.run.stack.run", "run"),
        ("squidasm.run.stack.config", "StackNetworkConfig"),
        ("squidasm.run.stack.config", "DepolariseLinkConfig"),
        ("squidasm.sim.stack.program", "ProgramContext"),
        ("squidasm.sim.stack.csocket", "ClassicalSocket"),
        ("squidasm.sim.stack.common", "LogManager"),
        ("squidasm.util", "get_qubit_state"),
        ("squidasm.util.util", "create_two_node_network"),
        ("squidasm.util.routines", "distributed_CNOT_control"),
        ("pydynaa", "EventExpression"),
        ("netsquid", "sim_time"),
        ("netsquid.qubits.ketstates", "b00"),
        ("netsquid.util.simtools", "MILLISECOND"),
        ("netsquid_netbuilder.modules.qlinks.perfect", "PerfectQLinkConfig"),
        ("netsquid_netbuilder.util.network_generation", "create_simple_network"),
        ("netsquid_driver.classical_socket_service", "ClassicalSocket"),
    ],
)
def test_what_programs_import_is_there(names, module, name):
    assert hasattr(importlib.import_module(module), name)


def test_a_module_that_is_not_there_is_refused_by_name(names):
    with pytest.raises(UnavailableNameError, match=r"netsquid\.components is not to be had"):
        importlib.import_module("netsquid.components")
    with pytest.raises(ImportError, match=r"netsquid\.protocols"):
        importlib.import_module("netsquid.protocols.nodeprotocols")


def test_a_name_that_is_not_there_is_refused_when_it_is_imported_or_used(names):
    with pytest.raises(UnavailableNameError, match=r"netsquid\.qubits\.qubitapi"):
        exec("from netsquid.qubits import qubitapi")
    netsquid = importlib.import_module("netsquid")
    with pytest.raises(UnavailableNameError, match=r"netsquid\.sim_run"):
        netsquid.sim_run()


def test_afterwards_the_names_mean_what_they_did():
    before = dict(sys.modules), list(sys.meta_path)
    with installed():
        assert "squidasm" in sys.modules
    assert not [name for name in sys.modules if name.partition(".")[0] in ROOTS]
    assert sys.meta_path == before[1]
    with pytest.raises(ModuleNotFoundError) as refused:
        importlib.import_module("squidasm.run")
    assert not isinstance(refused.value, UnavailableNameError)


def test_a_package_that_was_imported_before_comes_back(monkeypatch):
    real = type(sys)("netsquid")
    monkeypatch.setitem(sys.modules, "netsquid", real)
    with installed():
        assert sys.modules["netsquid"] is not real
    assert sys.modules["netsquid"] is real


def test_states_of_qubits_and_pairs():
    for name, ket in KETS.items():
        assert np.vdot(ket, ket) == pytest.approx(1), name
    assert get_reference_state(0, np.pi / 2) == pytest.approx(KETS["h0"] @ KETS["h0"].conj().T)
    assert get_reference_state(np.pi / 2, np.pi / 2) == pytest.approx(
        KETS["y0"] @ KETS["y0"].conj().T
    )
    assert get_reference_state(1.0, np.pi) == pytest.approx(KETS["s1"] @ KETS["s1"].T)


@pytest.mark.parametrize(("squared", "expected"), [(True, 0.85), (False, 0.85**0.5)])
def test_the_fidelity_of_a_noisy_pair(squared, expected):
    pair = 0.8 * KETS["b00"] @ KETS["b00"].conj().T + 0.2 * np.eye(4) / 4
    assert dm_fidelity(pair, KETS["b00"], squared=squared) == pytest.approx(expected, abs=1e-6)


def page_rows():
    """Modules and names of each row of the page's table."""
    text = (Path(__file__).parents[2] / "docs" / "squidasm.md").read_text("utf-8")
    table = text.partition("## The names there are")[2].partition("\n\n")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        left, right = (re.findall(r"`([\w.]+)`", cell) for cell in row.split("|")[1:3])
        whole = left[0]
        modules = [
            whole.rpartition(".")[0] + name if name.startswith(".") else name for name in left
        ]
        yield modules, right


def test_the_page_lists_what_there_is(names):
    rows = list(page_rows())
    assert len(rows) > 8
    for modules, listed in rows:
        if modules[0] == "netsquid_netbuilder":  # whose modules the page does not list
            continue
        loaded = [importlib.import_module(module) for module in modules]
        there = {name for module in loaded for name in vars(module)}
        assert set(listed) <= there, modules
