"""Messages between CNPU and QNPU, and between QNPUs.

The host messages are the NetQASM SDK's own bytes; the peer messages are ours. Both are
plain data here: who carries them (a queue in virtual time, a socket in real time) is
somebody else's business.
"""
