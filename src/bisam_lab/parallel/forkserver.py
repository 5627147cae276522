"""What a study's processes are forked from: it has imported the engine, and outlives a signal to the whole group.

A scheduler ends a job with SIGTERM to each of its processes, and Slurm announces the end with SIGUSR2. Without this
server the parent would take its runs for dead and leave, and the runs would leave with it, in the middle of their
checkpoints. It ends when the parent does.
"""

import signal

for _number in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(_number, signal.SIG_IGN)

from ..importing import no_collection  # noqa: E402

with no_collection():
    from ..run import train  # noqa: F401 it takes seconds, in which the signal may come
