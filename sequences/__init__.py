"""Pulse sequences as pure data and mathematics.

===============================  ============================================================
`sequences.pulses`               Hermite microwave pulses, calibrated, as samples
`sequences.hyperfine`            what pulses do to the three 14N lines
`sequences.decoupling`           XY8 with a pulse spacing exact to one sample
`sequences.waveform_table`       the 170 entries an NV node's AWG plays, as typed columns
`sequences.nv_seqc`              the sequencer program that plays them, and its DIO words
`sequences.program`              what is loaded into an AWG core, and the limits of that core
`sequences.sequencer_isa`        the words of the FPGA pulse sequencer of an ion node
`sequences.sequencer_assembler`  its assembler, disassembler and listing
`sequences.ion`                  an ion node's pulses, and the loop that waits for codes
===============================  ============================================================

The way from a calibration to an AWG::

    table = build_table(TableSettings(calibration=PulseCalibration()))
    program = nv_program(table)     # to be compiled and uploaded by an instrument driver

`drivers.nv_setup` does this for a node, real or simulated. Imports nothing of this project,
so a sequence can be computed and drawn anywhere. None of it has been verified on hardware.
"""
