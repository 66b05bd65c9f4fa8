"""The generated node tree against the published one, and what clients may do with it.

`tests/data/hdawg8_nodes.json` holds, for each family, the number of its nodes, type,
properties, unit and keywords. It is an extract of the HDAWG8 node documentation in the test
data of zhinst-toolkit (MIT licence).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import pytest
from zhinst.core.errors import (
    InvalidArgumentError,
    InvalidKeywordError,
    NotFoundError,
    ReadOnlyError,
)

from sim.hdawg import SimulatedHdawg
from sim.hdawg.families import DEVICE_FAMILIES, counts
from sim.hdawg.nodes import NodeTree, expand

PUBLISHED = Path(__file__).parents[1] / "data" / "hdawg8_nodes.json"
NOT_PUBLISHED = {"awgs/N/commandtable/schema"}


def family_of(path: str) -> str:
    return re.sub(r"/\d+", "/N", path)


def test_the_tree_is_the_published_one():
    published = json.loads(PUBLISHED.read_text("utf-8"))
    generated = list(expand(DEVICE_FAMILIES, counts(8), ""))
    assert Counter(family_of(node.path) for node in generated) == {
        **{family: entry["count"] for family, entry in published.items()},
        **dict.fromkeys(NOT_PUBLISHED, 4),
    }
    for node in generated:
        family = family_of(node.path)
        if family in NOT_PUBLISHED:
            continue
        entry = {
            "count": published[family]["count"],
            "type": node.type.value,
            "properties": node.properties,
            "unit": node.unit,
        }
        if node.keywords:
            entry["keywords"] = {str(value): name for value, name in node.keywords.items()}
        assert entry == published[family], family


@pytest.fixture
def nodes() -> NodeTree:
    return SimulatedHdawg("DEV8001").nodes


@pytest.mark.parametrize(("device_type", "cores"), [("HDAWG4", 2), ("HDAWG8", 4)])
def test_the_type_says_how_many_there_are(device_type, cores):
    device = SimulatedHdawg("dev8001", device_type)
    assert len(device.cores) == cores
    assert len(device.nodes.match("/dev8001/awgs/*/enable")) == cores
    assert len(device.nodes.match("/dev8001/sigouts/*/on")) == 2 * cores


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("/dev8001/awgs/0/enable", 1),
        ("/DEV8001/AWGS/0/ENABLE", 1),
        ("/dev8001/awgs/*/enable", 4),
        ("/dev8001/awgs/0/userregs", 16),
        ("/dev8001/awgs/0/userregs/*", 16),
        ("/dev8001/awgs/*/userregs/1*", 4 * 7),
        ("/dev8001/awgs/9/enable", 0),
        ("/dev8001/awgs/0/enab", 0),
        ("/dev800", 0),
    ],
)
def test_patterns(nodes, pattern, count):
    assert len(nodes.match(pattern)) == count


def test_everything_is_in_the_whole_tree(nodes):
    assert len(nodes.match("/dev8001/*")) == len(list(expand(DEVICE_FAMILIES, counts(8), "")))


@pytest.mark.parametrize(
    ("path", "value", "error", "problem"),
    [
        ("awgs/0/ready", 1, ReadOnlyError, "read-only"),
        ("awgs/0/nothing", 1, NotFoundError, "no node"),
        ("dios/0/mode", "sideways", InvalidKeywordError, "no keyword 'sideways'"),
        ("dios/0/mode", 7, InvalidArgumentError, "cannot be 7"),
        ("dios/0/mode", "qccs", InvalidArgumentError, "'qccs' is not simulated"),
        ("system/awg/channelgrouping", 1, InvalidArgumentError, "only 0 is simulated"),
        ("system/clocks/sampleclock/freq", 2e9, InvalidArgumentError, "only 2400000000.0"),
        ("system/clocks/referenceclock/source", "zsync", InvalidArgumentError, "'zsync'.*simul"),
        ("dios/0/interface", 1, InvalidArgumentError, "only 0 is simulated"),
        ("dios/0/drive", 15, InvalidArgumentError, "only 0 is simulated"),
        ("triggers/out/7/source", "trigin3", InvalidArgumentError, "'trigin3'.*not simulated"),
        ("triggers/out/0/source", 16, InvalidArgumentError, "cannot be 16"),
        ("triggers/out/8/source", 0, NotFoundError, "no node"),
        ("sigouts/0/range", "wide", InvalidArgumentError, "'wide'"),
        ("awgs/0/userregs/0", None, InvalidArgumentError, "None"),
    ],
)
def test_refused(nodes, path, value, error, problem):
    with pytest.raises(error, match=problem) as caught:
        nodes.write(f"/dev8001/{path}", value)
    # What clients of the vendor's library catch.
    assert isinstance(caught.value, RuntimeError)


def test_values_become_what_the_node_holds(nodes):
    assert nodes.write("/dev8001/dios/0/mode", "awg_sequencer_commands") == 1
    assert nodes.write("/dev8001/awgs/0/dio/valid/polarity", 2.0) == 2
    assert nodes.write("/dev8001/sigouts/0/range", 0.7) == 0.8
    assert nodes.write("/dev8001/sigouts/0/range", 100) == 5.0
    assert nodes.write("/dev8001/sigouts/0/offset", 1) == 1.0
    assert nodes.write("/dev8001/triggers/out/4/source", "output1_marker0") == 6
    assert nodes.write("/dev8001/system/clocks/referenceclock/source", "external") == 1
    assert nodes.read("/dev8001/sigouts/0/range") == 5.0


@pytest.mark.parametrize(
    ("serial", "device_type"), [("8001", "HDAWG8"), ("dev8001", "HDAWG16"), ("dev1", "MFLI")]
)
def test_there_are_no_other_instruments(serial, device_type):
    with pytest.raises(ValueError, match=f"{serial}|{device_type}"):
        SimulatedHdawg(serial, device_type)


@pytest.mark.parametrize("observed", [(4,), (-1, 0)])
def test_there_are_no_other_cores(observed):
    with pytest.raises(ValueError, match="HDAWG8, which has 4"):
        SimulatedHdawg("dev8001", observed=observed)
