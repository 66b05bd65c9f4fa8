"""The paper's experiments on this system, and their analysis.

For delegated quantum computation (DQC): `dqc_segments` turns traces into latency
segments, `dqc_analysis` turns results into fidelities and statistics, and `dqc_table` shows
them. `figures` draws the results of all experiments. Experiments may import every other part
of the project.
"""
