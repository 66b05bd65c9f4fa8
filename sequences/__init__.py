"""Pulse sequences as pure data and mathematics.

Pulse shapes, decoupling sequences, the waveform table and the sequencer programs. Nothing
is here yet: the content arrives with the instrument-level simulation. Imports nothing of
this project, so a sequence can be computed and drawn anywhere.
"""
