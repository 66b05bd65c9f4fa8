"""Programs written for the simulator SquidASM, run on this system without editing them.

=====================================  ====================================================
`applications.squidasm.names`          modules under the simulator's names
`applications.squidasm.program`        what a program is, and how one is run
`applications.squidasm.connection`     its connection to the QNPU
`applications.squidasm.csocket`        its classical sockets
`applications.squidasm.simulation`     running programs on a simulated network
`applications.squidasm.config`         network configurations, as scripts make and read them
`applications.squidasm.translation`    what these mean here
`applications.squidasm.networks`       helpers that make them
`applications.squidasm.routines`       protocols that programs call
`applications.squidasm.inspection`     the state of a qubit
`applications.squidasm.states`         reference states and fidelities
`applications.squidasm.log`            the logger that programs write to
`applications.squidasm.script`         running a script
=====================================  ====================================================

SquidASM itself is not needed, and nothing of it is in here.
"""
