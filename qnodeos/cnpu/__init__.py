"""The CNPU: where programs run.

A program is a Python function written with the NetQASM SDK. Its classical blocks run here;
its quantum blocks go to the QNPU as subroutines. What a program needs from the machine it
runs on is a `host.ProgramHost`: `virtual` runs programs as greenlets in virtual time, `remote`
as threads in real time, with a QNPU service and the programs of other processes.

    external             what NetQASM's names mean to a program
    backend, nv_compiler, ranges
                         connections; compiling for NV; numbers that do not fit NetQASM's bytes
    prepared, building, markers, rehearsal, warm_up
                         blocks that repeat, and being quick with them
    sockets, message_board, app_network, app_session
                         classical messages, in virtual time and between processes
    inputs, results      what programs are called with, and what they return
    host, virtual, remote, runner, qnpu_client, latency
                         the machine a program runs on
"""
