"""The CNPU: where programs run.

A program is a Python function written with the NetQASM SDK. Its classical blocks run here;
its quantum blocks go to the QNPU as subroutines. What a program needs from the machine it
runs on is a `host.ProgramHost`: `virtual` runs programs as greenlets in virtual time, `remote`
as threads in real time, with a QNPU service and the programs of other processes.
"""
