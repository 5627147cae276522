"""Texts to tokens, with the tokenizer of a published model or one that is made from the training texts."""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..datasets import Sample
from ..errors import RecipeError, one_line
from .examples import Examples

__all__ = ["build_tokenizer", "encode"]

_SPECIAL = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
_WORDS, _LETTERS = 8192, 1000


def build_tokenizer(name: str | None, train: Sequence[Sample]) -> Any:
    """Return the tokenizer of a published model, or make one for a type such as ``bert``, or for None.

    The made one is a WordPiece tokenizer. Its vocabulary has at most 8192 pieces of the training texts.

    Raises:
        RecipeError: transformers is not installed, or has no such tokenizer.
    """
    try:
        from transformers import CONFIG_MAPPING, AutoTokenizer
    except ImportError:
        raise RecipeError("texts need transformers: pip install 'bisam[transformers]'") from None
    if name is None or (name in CONFIG_MAPPING and not Path(name).is_dir()):
        return _trained(train)
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError, RuntimeError) as error:
        told = one_line(str(error), 90)
        raise RecipeError(
            f"no tokenizer for hf:{name} ({told}): name a folder, or one on the hub that can be fetched"
        ) from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _trained(train: Sequence[Sample]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    normalizer, splitter = normalizers.BertNormalizer(lowercase=True), pre_tokenizers.BertPreTokenizer()
    text = normalizer.normalize_str("\n".join(text for sample in train for text in sample.texts))
    vocabulary = _vocabulary(Counter(word for word, _ in splitter.pre_tokenize_str(text)))
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.normalizer, made.pre_tokenizer, made.decoder = normalizer, splitter, decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(mark, vocabulary[mark]) for mark in ("[CLS]", "[SEP]")],
    )
    fast: Any = PreTrainedTokenizerFast
    return fast(tokenizer_object=made, **_SPECIAL)


def _vocabulary(words: Counter[str]) -> dict[str, int]:
    """Make a WordPiece vocabulary of words and their counts.

    The trainer numbers the continuing letters (``##a``) in the order of a hash table and breaks ties by these numbers:
    the vocabulary would differ from process to process. As special tokens, the letters have fixed numbers.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    letters: Counter[str] = Counter()
    for word, count in words.items():
        letters.update(dict.fromkeys(word, count))
    alphabet = sorted(sorted(letters), key=lambda letter: -letters[letter])[:_LETTERS]
    inner = sorted(set(alphabet) & {letter for word in words for letter in word[1:]})
    trainer = trainers.WordPieceTrainer(
        vocab_size=_WORDS,
        min_frequency=2,
        special_tokens=[*_SPECIAL.values(), *(f"##{letter}" for letter in inner)],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.train_from_iterator((" ".join([word] * count) for word, count in sorted(words.items())), trainer)
    vocabulary: dict[str, int] = made.get_vocab()
    return vocabulary


def encode(tokenizer: Any, parts: Sequence[Sequence[Sample]], length: int) -> list[Examples]:
    """Turn texts into tensors (N, 3, S) of ids, attention mask and segments.

    S is ``length``, or the length of the longest text if that is shorter. Longer texts are cut.
    """
    encoded = [_encoded(tokenizer, part, length) for part in parts]
    longest = max(len(row) for rows in encoded for row in rows["input_ids"])
    padding = {"input_ids": tokenizer.pad_token_id, "attention_mask": 0, "token_type_ids": 0}
    return [
        Examples(
            torch.stack([_padded(rows[key], longest, value) for key, value in padding.items()], 1),
            torch.tensor([sample.label for sample in part]).long(),
        )
        for rows, part in zip(encoded, parts, strict=True)
    ]


def _encoded(tokenizer: Any, part: Sequence[Sample], length: int) -> dict[str, list[list[int]]]:
    columns = [list(column) for column in zip(*(sample.texts for sample in part), strict=True)]
    return dict(tokenizer(*columns, truncation=True, max_length=length, return_token_type_ids=True))


def _padded(rows: Sequence[Sequence[int]], length: int, value: int) -> Tensor:
    """Return (N, length) in int32, to save memory: batches become int64 one by one."""
    table = torch.full((len(rows), length), value, dtype=torch.int32)
    lengths = torch.tensor([len(row) for row in rows])
    table[torch.arange(length) < lengths[:, None]] = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.int32)
    return table
