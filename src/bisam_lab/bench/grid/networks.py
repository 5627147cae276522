"""The networks of a grid, with random weights: vision transformers of timm, decoders of GPT-2's layout."""

import warnings
from dataclasses import dataclass
from typing import Any

__all__ = ["NETWORKS", "TRAININGS", "Network"]

#: What is trained: all weights, or adapters of rank 8 (and the head of a vision transformer).
TRAININGS = ("full", "lora")
RANK = 8


@dataclass(frozen=True)
class Network:
    """A network of one size.

    Attributes:
        timm: name of a vision transformer; None: a decoder.
        decoder: fields of its configuration.
        batch: images, or texts, in a batch that is measured.
        tokens: of a text that is measured.
        usual: batch, and tokens of a text, of a training on a GPU: counted on paper alone.
    """

    timm: str | None = None
    decoder: dict[str, int] | None = None
    batch: int = 2
    tokens: int = 64
    usual: tuple[int, int] = (128, 0)

    def build(self, training: str) -> Any:
        """Return the network on torch's default device: inputs to logits (N, K)."""
        model = _vit(self.timm) if self.timm is not None else _decoder(self.decoder or {})
        if training == "lora":
            _adapt(model, self.timm is not None)
        return model

    def inputs(self, batch: int, tokens: int) -> tuple[Any, Any]:
        """Return random inputs and targets on torch's default device."""
        import torch

        if self.timm is not None:
            return torch.rand(batch, 3, 224, 224), torch.zeros(batch, dtype=torch.long)
        return torch.zeros(batch, tokens, dtype=torch.long), torch.zeros(batch * tokens, dtype=torch.long)


def _vit(name: str) -> Any:
    import timm

    return timm.create_model(name, pretrained=False)


def _decoder(fields: dict[str, int]) -> Any:
    import torch
    from torch import Tensor, nn
    from transformers import GPT2Config, GPT2LMHeadModel

    class Decoder(nn.Module):
        """Token ids (B, T) to logits (B T, V): each token is a sample."""

        def __init__(self) -> None:
            super().__init__()
            marks = {"bos_token_id": 0, "eos_token_id": 0}
            self.model = GPT2LMHeadModel(GPT2Config(**fields, **marks, use_cache=False))  # type: ignore[arg-type]

        def forward(self, x: Tensor) -> Tensor:
            length = x.shape[1]
            past = torch.ones(length, length, dtype=torch.bool, device=x.device).tril()
            # a whole mask: transformers would look at the values of one that it makes, and meta tensors have none
            logits: Tensor = self.model(input_ids=x, attention_mask=past[None, None]).logits
            return logits.flatten(0, 1)

    return Decoder()


def _adapt(model: Any, vision: bool) -> None:
    """Put adapters beside the attention's weights. The decoder's head is its embedding, and stays."""
    from ...models.lora import add_lora
    from ...recipe import LoraRecipe

    classes = 1000 if vision else model.model.config.vocab_size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peft says that a Conv1D has its weight the other way round
        add_lora(model, LoraRecipe(r=RANK, targets=("qkv",) if vision else ("c_attn",)), "a grid's", classes)
    if not vision:
        for key, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in key)


_XL = {"n_embd": 1600, "n_layer": 48, "n_head": 25}
#: By name, from the smallest.
NETWORKS = {
    "vit-ti": Network("vit_tiny_patch16_224"),
    "vit-s": Network("vit_small_patch16_224"),
    "vit-b": Network("vit_base_patch16_224"),
    "gpt2": Network(decoder={}, batch=1, usual=(8, 1024)),
    "gpt2-xl": Network(decoder=_XL, batch=1, usual=(8, 1024)),
    "tiny": Network(
        decoder={"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 50}, batch=2, tokens=8, usual=(4, 8)
    ),
}
