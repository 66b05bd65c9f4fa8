"""QDrivers, and what stands between them and a quantum device.

=====================  ====================================================================
`drivers.nv`           the QDriver of NV centres: NetQASM's quantum instructions as physical
                       instructions; with `drivers.nv_pulses` for single spins, and
                       `drivers.nv_memory` for pairs of them
`drivers.trapped_ion`  the QDriver of a trapped ion
`drivers.generic`      the QDriver of a node for programs rather than for a piece of hardware
`drivers.angles`       rotation angles of NetQASM in the units of a device
`drivers.nv_setup`     from a node's instruments and settings to a device that answers frames
`drivers.ion_setup`    the same for a trapped-ion node
`drivers.spi`          the wire to it: frames over SPI
`drivers.pacer`        when frames are exchanged: at ticks of the clock
`drivers.errors`       errors of instruments as those of the operating system
=====================  ====================================================================

A QDriver (`qnodeos.qdevice.protocols.QDriver`) is the only hardware-dependent part of the
QNPU. It is pure: it knows which instructions a device can execute, how a gate decomposes
into them and what the device cannot do; it never talks to the device. `drivers.nv_setup`,
`drivers.ion_setup` and `drivers.spi` do, and have not been verified on hardware.
"""
