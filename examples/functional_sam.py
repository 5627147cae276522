"""Functional SAM on a language model: a small character-level transformer, beside SAM.

    python examples/functional_sam.py                # about ten seconds on one core
    python examples/functional_sam.py --steps 300

SAM's gradient at w + eps changes for two reasons: the network's function changes, and so does the loss's gradient with
respect to the logits. In language models the second part dominates (Singh et al., ICML 2025, arXiv 2502.02407).
Functional SAM keeps only the first: it takes the Jacobian at w + eps and the logits' gradient at w.

Both optimizers here climb BiSAM's lower bound of the 0-1 loss over the next character, so "sam" is BiSAM. The text is
embedded. A run of this size compares nothing: it shows what to write.
"""

import argparse

import torch
from torch import Tensor, nn

from bisam import SAM, CausalLMLoss, FunctionalSAM, LowerBoundLoss, SharpnessAware

TEXT = """
A small boat lies at the end of the pier. Every morning the old man walks down to the water, looks at the sky, and
unties the rope. He rows past the stones and past the red buoy, and then he stops, because here the water is deep and
the fish are slow. He puts down the oars and waits. The gulls come first. They know the boat, and they know the bucket.
After an hour the line moves. He pulls, and the line pulls back, and for a while neither of them wins. Then the fish
is tired, and the man is tired too, and the fish lies in the bucket, and the gulls are loud.
In the evening the boat lies at the end of the pier. The man walks up to the house, past the garden and past the well.
The door is open, and there is light in the window. His daughter has made a fire. She asks how the water was, and he
says that the water was deep and the fish were slow. She laughs, because he says so every evening. They eat the fish
with bread and with salt, and the gulls sit on the roof and wait. In the night the wind comes from the north. It moves
the boat and it moves the rope, and the red buoy rings its bell. The old man hears the bell, and he thinks of the
morning, of the sky and of the stones, and then he sleeps.
"""

#: The characters of the text; a character's token is its place here.
ALPHABET = sorted(set(TEXT))


class CharacterModel(nn.Module):
    """A causal transformer of two layers: tokens (B, T) to logits (B, T, V)."""

    def __init__(self, length: int, width: int = 32) -> None:
        super().__init__()
        self.tokens = nn.Embedding(len(ALPHABET), width)
        self.places = nn.Embedding(length, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, nn.LayerNorm(width), enable_nested_tensor=False)
        self.head = nn.Linear(width, len(ALPHABET))

    def forward(self, tokens: Tensor) -> Tensor:
        """Return the logits of the next character at each position."""
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length, device=tokens.device)
        hidden = self.tokens(tokens) + self.places.weight[:length]
        logits: Tensor = self.head(self.layers(hidden, mask=mask, is_causal=True))
        return logits


def optimizer(method: str, model: nn.Module, rho: float) -> SharpnessAware:
    """Return Functional SAM or SAM, both climbing the lower bound over the next character."""
    base = torch.optim.AdamW(model.parameters(), lr=3e-3)
    descent, ascent = CausalLMLoss(nn.CrossEntropyLoss()), CausalLMLoss(LowerBoundLoss())
    make = {"functional": FunctionalSAM, "sam": SAM}[method]
    return make(base, model=model, rho=rho, descent=descent, ascent=ascent)


def train(method: str, steps: int, rho: float, length: int = 64) -> float:
    """Train on random windows of the first nine tenths; return the loss of the last tenth, in nats a character."""
    torch.manual_seed(0)
    data = torch.tensor([ALPHABET.index(character) for character in TEXT])
    known, unseen = data.tensor_split([9 * len(data) // 10])
    model = CharacterModel(length)
    opt = optimizer(method, model, rho)
    draws = torch.Generator().manual_seed(0)
    for step in range(steps):
        starts = torch.randint(len(known) - length, (16,), generator=draws)
        batch = torch.stack([known[start : start + length] for start in starts])
        for objective in opt.passes():
            loss = objective(model(batch), batch)  # CausalLMLoss shifts the labels
            loss.backward()
        opt.step()
        opt.zero_grad()
        if step % 25 == 0 or step == steps - 1:
            print(
                f"{method:10} step {step:4}: bound at w {opt.last.ascent_value:.3f}, loss at w {opt.last.loss:.3f}, "
                f"at w + eps {loss.item():.3f}"
            )
    with torch.no_grad():
        windows = unseen[: len(unseen) // length * length].view(-1, length)
        return float(CausalLMLoss(nn.CrossEntropyLoss())(model(windows), windows))


def main() -> None:
    """Train with both and print the losses."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rho", type=float, default=0.02)
    args = parser.parse_args()
    torch.set_num_threads(1)
    losses = {method: train(method, args.steps, args.rho) for method in ("sam", "functional")}
    print(", ".join(f"{method}: {loss:.3f}" for method, loss in losses.items()))


if __name__ == "__main__":
    main()
