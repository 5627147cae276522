"""Where jobs run, and what each of them gets, as a user says it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from ..errors import RecipeError
from ..recipe import Recipe

__all__ = ["Engine", "EngineName"]

EngineName: TypeAlias = Literal["local", "ray", "slurm"]


@dataclass(frozen=True)
class Engine:
    """Processes of this machine, a Ray cluster, or a Slurm cluster.

    Attributes:
        name: which of them.
        jobs: at once; None: as many as the machine or the cluster takes.
        cpus: cores and threads of a job on a cluster, one at least for each of its processes. On this machine the jobs
            share the cores.
        gpus: of a job on a cluster; a fraction lets jobs share one. None: one for each of its processes where it may
            use one.
        ray_address: of the cluster, as ``ray.init`` takes it; None: that of RAY_ADDRESS, or a cluster of this machine.
        slurm: partition, time, memory and so on; see :func:`~bisam_lab.parallel.submitting.cluster_of`.

    Raises:
        RecipeError: a number that no job can have, or one that has no effect on this engine.
    """

    name: EngineName = "local"
    jobs: int | None = None
    cpus: int = 1
    gpus: float | None = None
    ray_address: str | None = None
    slurm: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.gpus is not None and (not 0 <= self.gpus < 1e4 or (self.gpus > 1 and self.gpus != int(self.gpus))):
            raise RecipeError(f"--gpus-per-run {self.gpus:g}: say 0, a fraction such as 0.5, or a whole number")
        for given, option, engine in ((self.ray_address, "--ray-address", "ray"), (self.slurm, "--slurm", "slurm")):
            if given and self.name != engine:
                raise RecipeError(f"{option} has no effect with --engine {self.name}: say --engine {engine}")
        if self.name == "local" and (self.gpus is not None or self.cpus != 1):
            raise RecipeError(
                "--cpus-per-run and --gpus-per-run have no effect on this machine: say --jobs, or --engine ray or slurm"
            )

    @property
    def is_here(self) -> bool:
        """Whether the jobs compute on this machine."""
        return self.name == "local"

    def cpus_for(self, recipe: Recipe) -> int:
        """Return the cores of a job on a cluster."""
        return max(self.cpus, recipe.engine.devices)

    @property
    def patience(self) -> float:
        """Seconds to wait for a run that is held: on a cluster a dead node holds it for a while."""
        return 0.0 if self.is_here else 120.0
