"""Where a run computes: on how many devices of which kind, and how precisely."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from .known import strategy_name
from .part import Part
from .sizes import LARGEST

__all__ = ["EngineRecipe"]


class EngineRecipe(Part):
    """Where and how precisely to compute; passed to Lightning Fabric."""

    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    precision: Literal["32-true", "64-true", "16-mixed", "bf16-mixed", "16-true", "bf16-true"] = "32-true"
    devices: int = Field(
        1,
        ge=1,
        le=LARGEST["devices"],
        description="of each node that train one run together, a process each; on a CPU, so many processes",
    )
    nodes: int = Field(1, ge=1, le=LARGEST["nodes"], description="machines that train one run together")
    strategy: Annotated[Literal["auto", "ddp", "fsdp"], BeforeValidator(strategy_name)] = Field(
        "auto",
        description="of several devices: ddp holds the whole network on each, fsdp (FSDP2) a shard of it; auto is ddp",
    )
    sync_batchnorm: bool = Field(
        False,
        description="on several GPUs, let BatchNorm take its statistics of the whole batch; false: of each GPU's part",
    )

    @property
    def processes(self) -> int:
        """How many processes train one run: one a device."""
        return self.devices * self.nodes

    @property
    def sharded(self) -> bool:
        """Whether each process holds only a shard of the network."""
        return self.strategy == "fsdp" and self.processes > 1

    @property
    def on_one_device(self) -> "EngineRecipe":
        """The same for a network that is trained, measured or audited by one process."""
        return self.model_copy(update={"devices": 1, "nodes": 1, "strategy": "auto"})

    @model_validator(mode="after")
    def _fsdp_can_compute_so(self) -> "EngineRecipe":
        if self.sharded and self.precision not in (known := ("32-true", "bf16-mixed", "bf16-true", "16-true")):
            raise ValueError(
                f"precision={self.precision} does not go with strategy=fsdp: set engine.precision to one of "
                f"{', '.join(known)}, or engine.strategy=ddp"
            )
        return self

    @model_validator(mode="after")
    def _several_devices_are_of_a_kind_that_can(self) -> "EngineRecipe":
        if self.processes > 1 and self.accelerator == "mps":
            raise ValueError("accelerator=mps has one device: set engine.devices=1 and engine.nodes=1")
        return self
