"""QCoDeS drivers of the laboratory's instruments, and the sources they load.

`hdawg`: the Zurich Instruments HDAWG waveform generator. `adwin`: the Jaeger ADwin-Pro II
real-time controller. `ownership`: one process per instrument. Each driver runs on the real
instrument's software interface or on its simulated twin in `sim`, and none of them has been
verified on hardware. They are not connected to a node yet: that, and the other instruments,
arrive with the instrument-level simulation. May import `sequences` only. Needs the extra
`lab`.
"""
