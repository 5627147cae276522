"""What every section of a recipe has in common."""

from collections.abc import Mapping
from typing import Annotated, Any, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

__all__ = ["MethodName", "Part"]


def _method_name(name: str) -> str:
    """Return the name with its numbers in one spelling; whether there is such a method is checked with its options."""
    from ..registry.methods import canonical  # here: torch takes seconds to import, and --help should not

    return canonical(name)


MethodName = Annotated[str, AfterValidator(_method_name)]


class Part(BaseModel):
    """A section: no unknown keys, no changes, no infinite numbers."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_as_a_number(cls, values: Any) -> Any:
        """Refuse true and false where a number belongs: pydantic would take them for 1 and 0."""
        for name, value in values.items() if isinstance(values, Mapping) else ():
            field = cls.model_fields.get(name)
            kinds = () if field is None else (field.annotation, *get_args(field.annotation))
            if isinstance(value, bool) and bool not in kinds and {int, float} & {*kinds}:
                raise ValueError(f"{name}={str(value).lower()} must be a number")
        return values
