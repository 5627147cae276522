"""Options that a command does not have: ``--lr 0.1`` is ``train.lr=0.1``, and the others are answered."""

import difflib
import re
from collections.abc import Iterator

import typer
from typer.core import TyperCommand

from ..errors import RecipeError

__all__ = ["Guessing"]

_RUNS = "one run is bisam train --method sam --seed 0"
_ONE_METHOD = "write --method sam; bisam compare --methods sgd,sam compares several"
#: What to write instead of an option that is another command's, by command and option.
_ANSWERS = {
    "compare": {
        "method": f"write --methods sgd,sam; {_RUNS}",
        "seed": f"--seeds N says how many, first_seed=K where they begin; {_RUNS}",
        "variant": "write --variants NAME,NAME",
    },
    "train": {
        "methods": _ONE_METHOD,
        "variants": "write --variant NAME",
    },
    "tune": {"methods": _ONE_METHOD, "seed": "--seeds N says how many a trial has", "variants": "write --variant NAME"},
    "rho-range": {"methods": _ONE_METHOD, "seeds": "write --seed N"},
    "audit": {
        "rho": "write --rhos 0.05,0.1",
        "method": "write --adversaries sam,bisam-log",
        "methods": "write --adversaries sam,bisam-log",
        "seeds": "write --seed N",
    },
    "bench": {
        "method": "write --methods sam,asam",
        "seed": "a bench measures time, which depends on no seed: leave it out",
        "seeds": "a bench measures time, which depends on no seed: leave it out",
    },
}
_WORKERS = "data.workers=N says how many processes decode pictures, --jobs N how many runs there are at once"


class Guessing(TyperCommand):
    """A command that reads a recipe: an option with the name of a field sets the field."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Turn options that stand for fields into overrides, and parse the rest.

        Raises:
            RecipeError: an option that is neither the command's nor a field.
        """
        return super().parse_args(ctx, args if ctx.resilient_parsing else self._with_overrides(ctx, args))

    def _with_overrides(self, ctx: typer.Context, args: list[str]) -> list[str]:
        kept: list[str] = []
        moved: list[str] = []
        takes_value = {name: not getattr(param, "is_flag", False) for param in self.params for name in param.opts}
        words = iter(args)
        for word in words:
            name, equals, value = word.partition("=")
            if word == "--":
                moved += words
            elif not re.match(r"--?[^\W\d]", word):
                kept.append(word)
            elif name in (*takes_value, *_off(self), *ctx.help_option_names):
                kept.append(word)
                if takes_value.get(name) and not equals:
                    kept += _next(words)
            else:
                moved.append(f"{name}={value if equals else self._value(ctx, name, words)}")
        return [*kept, "--", *moved] if moved else kept

    def _value(self, ctx: typer.Context, name: str, words: Iterator[str]) -> str:
        """Return the word after an option that stands for a field."""
        from ..recipe.fields import fields, full_name  # here: --help reads no recipe

        key = name.lstrip("-")
        answer = _WORKERS if key == "workers" else _ANSWERS.get(str(ctx.info_name), {}).get(key.replace("-", "_"))
        field = full_name(key)
        if answer is not None or field is None:
            raise RecipeError(f"bisam {ctx.info_name} has no {name}{self._instead(ctx, name, answer)}")
        if field in fields() and fields()[field].annotation is bool:
            return "true"
        value = _next(words)
        if not value or value[0].startswith("--"):
            raise RecipeError(f"{name} has no value: write it as {name} VALUE, or {field}=VALUE")
        return value[0]

    def _instead(self, ctx: typer.Context, name: str, answer: str | None) -> str:
        if answer is not None:
            return f": {answer}"
        from ..recipe.fields import fields  # here: --help reads no recipe

        known = [option[2:] for param in self.params for option in param.opts if option.startswith("--")]
        known += [dotted.rpartition(".")[2].replace("_", "-") for dotted in fields()]
        near = difflib.get_close_matches(name.lstrip("-"), known, n=1)
        hint = f": did you mean --{near[0]}?" if near else ""
        return f"{hint or '.'} bisam {ctx.info_name} --help lists its options; any field is FIELD=VALUE"


def _off(command: TyperCommand) -> list[str]:
    """Return the options that switch something off, such as ``--no-peers``."""
    return [name for param in command.params for name in param.secondary_opts]


def _next(words: Iterator[str]) -> list[str]:
    word = next(words, None)
    return [] if word is None else [word]
