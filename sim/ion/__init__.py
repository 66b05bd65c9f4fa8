"""The trapped-ion node's instruments and its ion, simulated.

========================  ============================================================
`sim.ion.build`           the whole node, set up by its drivers
`sim.ion.node`            its instruments and its ion on one clock, and the QDevice
`sim.ion.board`           the board between SPI and TTL
`sim.ion.sequencer`       the FPGA pulse sequencer, executing its words cycle by cycle
`sim.ion.sequencer_line`  the line by which the sequencer's driver reaches it
`sim.ion.dds`             the AD9910 of the 729 nm laser
`sim.ion.pmt`             the photon counter
`sim.ion.ion`             the ion in the light of its lasers
`sim.ion.physics`         its numbers, and what follows from them in closed form
`sim.ion.bench`           an ion to be calibrated, without the instruments
`sim.ion.durations`       how long instructions take
========================  ============================================================
"""
