"""The QNPU kernel: a pure state machine.

Host messages, peer messages and ticks go in, each with its time; replies, peer messages
and at most one physical instruction per tick come out. Nothing in this package does I/O,
reads a clock, starts a thread or draws a random number: the service, the simulator, the
tests and the fault injection all drive the same `kernel.Kernel`.

    isa, decoder         NetQASM bytes -> instructions
    compiler, classical, quantum, execution
                         instructions -> closures, and running them
    process, process_manager, scheduler
                         processes and their states, whose they are, who runs next
    processor, blocks, qubit_queue
                         running the chosen one; how long it may take; who waits for a qubit
    memory, qmmu         registers and arrays; virtual and physical qubits
    entanglement         ER sockets, requests and their results
    link_layer, link_queue
                         agreement with the peer on requests and pairs
    network_process      the kernel process that makes entanglement in its time bins
    kernel               all of it behind one front
"""
