"""The QNPU as a Linux service: sockets, supervision, real-time scheduling.

One policy thread runs the kernel, the sockets and the timers; the tick engine
(`qnodeos.engine`) has a thread of its own. These modules are:

    node_file, limits_config
                         what one node's service has to know, and its bounds
    service, loop        one node's QNPU, and the loop it runs in
    realtime, rehearsal  cores, priorities and memory; code that is warm when it is needed
    server, clients, client_requests, listeners, events
                         the API for programs: connections, requests, sockets, the trace
    self_description, operator, metrics
                         what a QNPU tells of itself, and asking it
    peers, neighbour, network_control, peer_session
                         the peer protocol at a node, without I/O
    controller, controller_file, common_bins, node_view, tick_grid, schedule_plan, route_plan
                         the same at the controller, which gives all nodes their bins and routes
    peer_sockets, dialling, peer_connections, controller_run
                         both on sockets
    notify, voice, unit_files, units, doctor
                         supervision, what is said to people, and installation
"""
