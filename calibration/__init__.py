"""Measurements that find a device's parameters, and the analysis of results.

===========================  ==============================================================
`calibration.bench`          what a measurement needs of a node, or of a pair of them
`calibration.file`           a node's calibration and the file that keeps it
`calibration.measurement`    what all measurements share: points, data, result
`calibration.measure_*`      the measurements, by name in `calibration.registry`
`calibration.runner`         record, analyse, draw, and use what was found
`calibration.dataset`        runs in a QCoDeS database
`calibration.fits`           maximum likelihood fits of counts
`calibration.ion_bench`      what a measurement needs of a trapped-ion node
`calibration.ion_file`       a trapped-ion node's calibration
`sequences.hyperfine`        what calibrated pulses do to a spin with hyperfine lines
`sequences.thermal_rabi`     what light on a narrow transition does to an ion that moves
`sequences.fluorescence`     how many photons a fluorescing ion gives
`calibration.readout`        correction of counts for imperfect readout
`calibration.fidelity`       fidelities from corrected counts, and latency bounds
`calibration.tomography`     single-qubit states
===========================  ==============================================================

All of it works on counts, whoever produced them: nothing here imports `sim`. None of the
measurements has been made on hardware.
"""
