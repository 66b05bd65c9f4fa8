"""Connections to a QNPU, for programs: the public name of `qnodeos.cnpu.backend`."""

from qnodeos.cnpu.backend import QNodeOSConnection

__all__ = ["QNodeOSConnection"]
