"""Classical sockets, for programs: the public name of `qnodeos.cnpu.sockets`."""

from qnodeos.cnpu.sockets import AppSocket

__all__ = ["AppSocket"]
