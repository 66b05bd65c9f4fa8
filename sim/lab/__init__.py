"""A simulated laboratory of NV nodes, instrument by instrument."""
