"""How fast it is, as ratios: `python -m benchmarks`, or `make bench`.

Machines differ and their speed drifts, so no time by itself means much. Every figure is
the ratio of two pieces of work that are done in turn in the same process: ours and a
reference that anybody has. What a benchmark measures stands in its module:

    classical   the processor against netqasm's reference executor
    decode      the decoder against netqasm's deserialiser
    circuit     a whole DQC circuit against a calibration loop, and where its time goes;
                a long program against short ones
    physics     a noisy gate on a pair against density matrices
    frames      a frame each way against a check computed bit by bit
    hdawg       the simulated AWG against real time, and what an instruction costs
    lab         two nodes instrument by instrument against real time; set-up and import
    scaling     decisions of the kernel, whole systems and memory, among many programs
    experiment  the DQC experiment, from the command line

`measure` does the timing, `report` the tables. See docs/benchmarks.md.
"""
