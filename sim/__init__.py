"""The simulated laboratory: quantum physics, links and behavioural QDevices.

Everything here is simulated. The behavioural NV device answers the frames of a QNPU from
a quantum state and a timing table, in virtual time and deterministically from the random
generators it is given; the instrument-level twins of the laboratory live beside it.
"""
