"""QCoDeS drivers of the laboratory's instruments, and the sources they load.

For the waveform generator, the real-time controller, microwave source, lasers, heralding
station, the trapped-ion sequencer, frequency synthesiser and photon counter. Nothing is
here yet: the content arrives with the instrument-level simulation. May import
`sequences` only.
"""
