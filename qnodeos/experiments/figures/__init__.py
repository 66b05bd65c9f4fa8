"""The paper's figures, drawn from what the experiments wrote.

`style` is how they all look; `results` checks the JSON files; `dqc`, `live_times`, `lgt` and
`multitasking` draw results, `sequence` and `sequence_plot` one circuit from traces; `sources`
finds the data and `catalogue` lists the figures. Figures are made without pyplot, so nothing here
has global state, and the same data give the same bytes.
"""
