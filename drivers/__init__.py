"""QDrivers: NetQASM's quantum instructions as physical instructions, one per kind of device.

A QDriver (`qnodeos.qdevice.protocols.QDriver`) is the only hardware-dependent part of the
QNPU. A driver here is pure: it knows which instructions a device can execute, how a gate
decomposes into them and what the device cannot do; it never talks to the device.
"""
