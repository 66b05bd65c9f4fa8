"""Platforms by name, and devices that are not of the platform that a node file names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from qnodeos.api.netqasm import Flavour
from qnodeos.assembly import PLATFORMS
from qnodeos.assembly.platforms import platform_of
from qnodeos.errors import ConfigurationError
from qnodeos.qdevice.instructions import Opcode

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
    with pytest.raises(ConfigurationError, match="no platform 'atom'; choose one of: nv, ion"):
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
