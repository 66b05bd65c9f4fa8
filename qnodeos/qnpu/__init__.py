"""The QNPU kernel: a pure state machine.

Host messages, peer messages and ticks go in, each with its time; replies, peer messages
and at most one physical instruction per tick come out. Nothing in this package does I/O,
reads a clock, starts a thread or draws a random number: the service, the simulator, the
tests and the fault injection all drive the same `kernel.Kernel`.

    isa, decoder         NetQASM bytes -> instructions
    compiler, classical, quantum, execution
                         instructions -> closures, and running them
    programs, replies    what hosts ask for their programs, and what they are answered
    process, process_manager, scheduler
                         processes and their states, whose they are, who runs next
    processor, blocks, qubit_queue
                         running the chosen one; how long it may take; who waits for a qubit
    memory, qmmu         registers and arrays; virtual and physical qubits
    entanglement, requests, er_sockets, deliveries
                         ER sockets, requests, promises and pairs, and handing pairs over
    link_layer, link_queue, request_queues, link_terms, partners
                         agreement with a neighbour on requests and pairs
    network_process, schedule, time_bins, attempt_basis, measured_half
                         the kernel process that makes entanglement in its time bins
    handover, device_jobs
                         its pairs on their way to programs or the network layer; other work it does
    relocation, holders  making room for entanglement; programs that keep qubits for too long
    network_layer, routes
                         pairs between nodes that are no neighbours
    circuits, circuit_table, openings, attempts, turns, circuit_ends
                         the requests for these: states, opening, swapping, sharing qubits, ends
    segment_requests, far_sockets
                         their pairs with neighbours, and news from ER sockets far away
    kernel, kernel_config, services, status
                         all of it behind one front
"""
