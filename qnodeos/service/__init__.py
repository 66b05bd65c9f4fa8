"""The QNPU as a Linux service: sockets, supervision, real-time scheduling."""
