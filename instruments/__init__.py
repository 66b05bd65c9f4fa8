"""QCoDeS drivers of the laboratory's instruments, and the sources they load.

==============================  ==============================================================
`instruments.station`           opens all instruments of a node from a Station file
`instruments.adwin`             the Jaeger ADwin-Pro II real-time controller
`instruments.nv_controller`     the ADbasic program of an NV node on it, ``adbasic/*``
`instruments.hdawg`             the Zurich Instruments HDAWG waveform generator
`instruments.microwave`         the microwave source
`instruments.lasers`            lasers as powers, behind modulators
`instruments.heralding`         the heralding station between two nodes
`instruments.timetagger`        the time tagger beside it
`instruments.ion_board`         the board between SPI and TTL of a trapped-ion node
`instruments.pulse_sequencer`   its pulse sequencer
`instruments.ad9910`            its DDS, the Analog Devices AD9910; `instruments.ad9910_words`
`instruments.pmt_counter`       its photon counter
`instruments.ownership`         one process per instrument
`instruments.resources`         VISA resources, real and simulated
`instruments.serial_registers`  registers behind a serial port
`instruments.spi_port`          SPI ports of this computer
`instruments.errors`            what goes wrong
==============================  ==============================================================

Each driver runs on the real instrument's software interface or on its simulated twin, and
none of them has been verified on hardware. `drivers.nv_setup` and `drivers.ion_setup` make a
QDevice of them. May import `sequences` only. Needs the extra `lab`.
"""
