"""Pre-registration: what a study is to show, stated before its first run."""

from collections.abc import Collection, Sequence
from typing import Literal

from pydantic import Field, model_validator

from ..errors import RecipeError, nearest, some
from ..untrusted import check_text
from .part import MethodName, Part

__all__ = ["Hypothesis", "check_methods", "check_variants"]

#: Letters of a sentence, at most.
LONGEST = 500


class Hypothesis(Part):
    """A statement about two methods of a study, which its runs confirm, refute, or leave undecided."""

    says: str = Field(min_length=1, max_length=LONGEST, description="the hypothesis in words")
    method: MethodName
    baseline: MethodName
    direction: Literal["greater", "less", "equivalent"] = Field(
        description="greater: method minus baseline is above margin; less: below -margin; equivalent: between both"
    )
    margin: float = Field(0.0, ge=0, le=100, description="in points of the test score")
    variant: str = Field("", description="of a recipe that has variants")

    @model_validator(mode="after")
    def _can_be_tested(self) -> "Hypothesis":
        check_text("says", self.says)
        if self.method == self.baseline:
            raise ValueError(f"method={self.method} is the baseline, too: name two methods")
        if self.direction == "equivalent" and not self.margin:
            raise ValueError("direction=equivalent needs a margin, the points that do not matter: margin: 0.3")
        return self


def check_methods(hypotheses: Sequence[Hypothesis], methods: Collection[str]) -> None:
    """Check that a study has the methods that its hypotheses are about.

    Raises:
        RecipeError: it has not: the study could never decide one of them.
    """
    for number, one in enumerate(hypotheses):
        where = f"hypotheses.{number}"
        for key, name in (("method", one.method), ("baseline", one.baseline)):
            if name not in methods:
                raise RecipeError(
                    f"{where}.{key}={name} is not among the methods {some(list(methods))}{nearest(name, methods)}"
                )


def check_variants(hypotheses: Sequence[Hypothesis], variants: Collection[str]) -> None:
    """Check that a recipe has the variants that its hypotheses are about. A study may train some of them alone.

    Raises:
        RecipeError: it has not.
    """
    for number, one in enumerate(hypotheses):
        where = f"hypotheses.{number}"
        if variants and one.variant not in variants:
            raise RecipeError(
                f"{where}.variant={one.variant!r} is none of the variants {some(list(variants))}"
                f"{nearest(one.variant, variants)}"
            )
        if one.variant and not variants:
            raise RecipeError(f"{where}.variant={one.variant!r}: the recipe has no variants; leave it out")
