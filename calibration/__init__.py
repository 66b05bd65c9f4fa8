"""Measurements that find a device's parameters, and the analysis of results.

`readout` corrects counts for imperfect single-shot readout, `fidelity` turns corrected
counts into fidelities and latency bounds, `tomography` reconstructs single-qubit states.
They work on counts, whoever produced them: nothing here imports `sim`. The measurements
themselves (readout, Rabi, pulse amplitude, coherence time) arrive with the instruments.
"""
