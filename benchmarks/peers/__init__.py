"""qnodeos beside other systems that run NetQASM programs: `python -m benchmarks peers`.

=======================  ==================================================================
`peers.programs`         the programs; the same file runs on both
`peers.environment`      SimulaQron in an environment of its own
`peers.theirs`           running a program there
`peers.worker`           what runs inside that environment
`peers.ours`             running a program here
`peers.comparison`       both in turn, and the ratios
=======================  ==================================================================
"""
