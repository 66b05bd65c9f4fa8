"""The tests of the project: `pytest`, or `pytest --pyargs tests` where it is installed.

`unit` tests one module each, `sim` the simulated physics, `conformance` what every
quantum device must pass. Everything is deterministic from a seed, nothing sleeps, and no
result depends on how fast the machine is.
"""
