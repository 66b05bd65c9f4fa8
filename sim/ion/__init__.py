"""The trapped-ion node's instruments and its ion, simulated.

========================  ============================================================
`sim.ion.sequencer`       the FPGA pulse sequencer, executing its words cycle by cycle
`sim.ion.sequencer_line`  the line by which the sequencer's driver reaches it
========================  ============================================================
"""
