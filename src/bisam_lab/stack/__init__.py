"""Several runs at once in one process: their passes are computed together, and everything else run by run.

Runs of one network differ in seed, method and radius. Small networks leave a processor half idle: a pass takes as long
as its hundred small operations need to start. So the runs of a study go on in turn, each up to the next pass that it
asks for (:mod:`bisam_lab.run.asking`). ``together`` collects what they ask for and answers it with one pass of the
``network``, whose weights are those of all the runs, stacked. Each run keeps its own optimizer, norm, radius, schedule,
data, random numbers, checkpoints and result: no method is written twice.

``trial`` finds out on this machine whether a stack computes the same and is faster. ``plan`` deals the runs of a study.
"""
