"""Platforms by name, and devices that are not of the platform that a node file names."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace

import pytest

from drivers.trapped_ion import TrappedIonDriver
from qnodeos.api.netqasm import Flavour
from qnodeos.assembly import PLATFORMS, Platform, build_service, platforms
from qnodeos.assembly.platforms import platform_of
from qnodeos.errors import ConfigurationError
from qnodeos.qdevice.capabilities import Capabilities
from qnodeos.qdevice.instructions import Opcode
from qnodeos.service.doctor import Level, ThisSystem, check_node
from qnodeos.service.node_file import NodeFile
from tests.unit.kernel_programs import submit

NV, ION = PLATFORMS["nv"], PLATFORMS["ion"]


@pytest.mark.parametrize("name", PLATFORMS)
def test_a_platform_drives_its_own_devices(name):
    platform = platform_of(name)
    declared = replace(platform.capabilities, name="mine", tick_ns=12_345)
    driver = platform.driver_for(declared)
    assert driver.capabilities is declared
    assert driver.measure(0)


def test_the_flavours():
    assert NV.flavour is Flavour.NV
    assert ION.flavour is Flavour.VANILLA


def test_a_platform_that_does_not_exist():
    with pytest.raises(
        ConfigurationError, match="no platform 'atom'; choose one of: nv, ion, generic"
    ):
        platform_of("atom")


def test_an_ion_where_the_file_says_nv():
    with pytest.raises(ConfigurationError, match=r"\(trapped ion\) has no ENT, ENM, PMG; name"):
        NV.driver_for(ION.capabilities)


def test_an_nv_centre_where_the_file_says_ion():
    with pytest.raises(ConfigurationError, match=r"no link .* \(NV centre\) has 1; name"):
        ION.driver_for(NV.capabilities)


def test_a_device_may_do_more_than_its_driver_asks():
    more = replace(ION.capabilities, instructions=ION.capabilities.instructions | {Opcode.MOV})
    assert ION.driver_for(more).capabilities is more


def test_a_third_platform_is_an_entry_in_the_registry(monkeypatch, tmp_path):
    """A service takes driver, flavour and capabilities from there, and nothing else changes."""
    driven: list[Capabilities] = []

    class AtomDriver(TrappedIonDriver):
        def __init__(self, capabilities):
            driven.append(capabilities)
            super().__init__(capabilities)

    atom = Platform("atom", AtomDriver, replace(ION.capabilities, name="atom"), Flavour.VANILLA)
    monkeypatch.setattr(platforms, "PLATFORMS", {**PLATFORMS, "atom": atom})
    node = NodeFile.model_validate(
        {
            "name": "a",
            "node_id": 0,
            "platform": "atom",
            "device": {"link": "loopback", "tick_ns": 30_000},
            "api": {"listen": [f"unix:{tmp_path}/api.sock"]},
        }
    )
    with closing(build_service(node, incarnation=1)) as service:
        kernel = service.kernel
        assert kernel is not None
        assert service.trace.unit_ns == 30_000
        kernel.register(1, 0, 0, 1, 0, service.tick)
        kernel.host_outbox.clear()
        kernel.host_message(1, 1, submit(0, "qalloc Q0\ninit Q0\nh Q0\nqfree Q0\n"), service.tick)
        kernel.tick(service.tick)
        assert not kernel.host_outbox, "h is vanilla NetQASM, and no error"
    assert driven == [replace(atom.capabilities, tick_ns=30_000)]


def test_a_node_file_with_an_unknown_platform_starts_no_service(tmp_path):
    node = NodeFile.model_validate(
        {
            "name": "a",
            "node_id": 0,
            "platform": "atom",
            "device": {"link": "loopback"},
            "api": {"listen": [f"unix:{tmp_path}/api.sock"]},
        }
    )
    with pytest.raises(ConfigurationError, match="no platform 'atom'"):
        build_service(node, incarnation=1)
    assert not list(tmp_path.iterdir())


def test_the_doctor_knows_the_platforms(tmp_path):
    path = tmp_path / "node.yaml"
    path.write_text(
        "name: a\nnode_id: 0\nplatform: atom\ndevice: {link: loopback}\n"
        'api: {listen: ["unix:api.sock"]}\n'
    )
    (finding,) = check_node(path, ThisSystem(), 0.0, PLATFORMS)
    assert finding.level is Level.PROBLEM
    assert "no platform 'atom'" in finding.found
    assert finding.remedy == "choose one of: nv, ion, generic"
