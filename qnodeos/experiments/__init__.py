"""The paper's experiments on this system, and their analysis.

For delegated quantum computation (DQC): `dqc_segments` turns traces into latency
segments, `dqc_analysis` turns results into fidelities and statistics, and `dqc_table` shows
them. For pairs between the nodes of a network: `network_pairs` makes them, `network_prediction`
says what they should be like (from `network_times`, `network_sharing` and `network_fidelity`), and
`network_analysis` and `network_table` compare. `figures` draws the results of all experiments.
Experiments may import every other part of the project.
"""
