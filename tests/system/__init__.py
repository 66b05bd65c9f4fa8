"""Tests of the whole system: SDK programs on two simulated nodes in virtual time.

Importing this package makes `netqasm.sdk.external` mean this system, so that the programs
in the tests import its names at the top of the file, as any SDK program does.
"""

from qnodeos.cnpu.external import install

install()
