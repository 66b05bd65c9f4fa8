"""The paper's experiments on this system, and their analysis.

For delegated quantum computation (DQC): `dqc_segments` turns traces into latency
segments, `dqc_analysis` turns results into fidelities and statistics, `dqc_plots` and
`dqc_table` show them. Experiments may import every other part of the project.
"""
