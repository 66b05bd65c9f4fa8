"""NetQASM SDK programs of the experiments.

They import nothing of this project: any backend of the SDK can run them.
"""
