"""The simulated laboratory: quantum physics, links, instruments and QDevices. All simulated.

=====================  ==================================================================
`sim.nv_device`        the behavioural device: answers frames from a quantum state and the
                       durations of `sim.nv_timing`; all of its kind are a `sim.frame_device`
`sim.register_device`  the same for several qubits and links: NV centres with memories, and
                       generic nodes; its state is `sim.register`, its numbers
                       `sim.register_physics`
`sim.link`             entanglement between two devices
`sim.lab`              nodes instrument by instrument, and what is between two of them
`sim.adwin`            the ADwin-Pro II, which runs ADbasic sources
`sim.hdawg`            the HDAWG, which runs what the vendor's compiler made
`sim.nv`               the NV centre that light and microwaves of these two reach
`sim.ion_device`       the behavioural device of a trapped ion, with `sim.ion_timing`
`sim.ion`              a trapped-ion node instrument by instrument, and its ion
`sim.node`             nodes of the operating system in virtual time
=====================  ==================================================================

Twins of the other instruments are `sim.heralding`, `sim.timetagger`, `sim.spi`,
`sim.serial_line` and `sim.visa`; states and what befalls them are `sim.pauli`,
`sim.entangled_state`, `sim.noise` and `sim.charge`; `sim.network` and `sim.clock` join the
nodes.

Everything runs in virtual time, and deterministically from the random generators it is
given. Nothing has been compared with hardware.
"""
