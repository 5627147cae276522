"""A budget: what each method may spend, so that methods whose steps cost unequally are compared at equal cost.

The budget of a study is what its dearest method spends in the recipe's epochs. Every other method trains for as many
epochs as spend the same, with its schedule stretched over them. The budget is fixed when the study begins. A dearer
method that joins later trains for fewer epochs than the recipe's.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal, TypeAlias

__all__ = ["UNITS", "Budget", "Share", "Unit"]

Unit: TypeAlias = Literal["passes", "seconds"]
#: What a budget may be counted in.
UNITS: tuple[Unit, ...] = ("passes", "seconds")
#: Methods whose costs differ by no more than this share are as dear as each other: measured costs have such errors.
TOLERANCE = 0.05
#: Epochs that a budget may come to, as many as a recipe may have.
MOST_EPOCHS = 100_000


@dataclass(frozen=True)
class Share:
    """The budget of one variant.

    Attributes:
        epochs: the recipe's.
        total: what a method may spend: epochs times the cost of a step.
        costs: of a step, by method: passes, or seconds relative to a step of the plain base optimizer.
    """

    epochs: int
    total: float
    costs: Mapping[str, float]

    def epochs_of(self, method: str) -> int:
        """Return the epochs with which a method comes closest to the budget, at least one.

        They are the recipe's if the method spends the budget with these up to a share of :data:`TOLERANCE`.
        """
        exact = self.total / self.costs[method]
        if abs(exact - self.epochs) <= TOLERANCE * self.epochs:
            return self.epochs
        return max(1, round(exact))

    def differs(self, method: str) -> bool:
        """Whether the method trains for other epochs at equal cost than at equal steps."""
        return self.epochs_of(method) != self.epochs


@dataclass(frozen=True)
class Budget:
    """The budgets of a study's variants.

    Attributes:
        unit: of the costs.
        shares: by variant; the empty name in a study without variants.
    """

    unit: Unit
    shares: Mapping[str, Share] = field(default_factory=dict)

    def missing(self, variant: str, methods: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the methods whose cost is not known."""
        known = self.shares[variant].costs if variant in self.shares else {}
        return tuple(method for method in methods if method not in known)

    def extended(self, variant: str, epochs: int, costs: Mapping[str, float]) -> "Budget":
        """Return the budget with the costs of further methods. The first call for a variant fixes its total."""
        if not costs:
            return self
        share = self.shares.get(variant) or Share(epochs, epochs * max(costs.values()), {})
        share = replace(share, costs={**costs, **share.costs})
        return replace(self, shares={**self.shares, variant: share})

    def to_dict(self) -> dict[str, Any]:
        """Return plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> "Budget":
        """Read what :meth:`to_dict` wrote.

        Raises:
            ValueError: it is something else.
        """
        try:
            unit, shares = values["unit"], values["shares"]
            found = {name: _share(name, share) for name, share in shares.items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no budget ({type(error).__name__}: {error})") from None
        if unit not in UNITS:
            raise ValueError(f"a budget in {unit!r}, which is none of {', '.join(UNITS)}")
        return cls(unit, found)


def _share(name: str, values: Mapping[str, Any]) -> Share:
    """Read the budget of one variant: a total that its dearest method spends in at most the recipe's epochs."""
    epochs, total, costs = values["epochs"], values["total"], dict(values["costs"])
    for method, cost in costs.items():
        if type(cost) not in (int, float) or not 1e-6 < cost < 1e6:
            raise ValueError(f"the cost of a step of {method} is {cost!r}")
    if type(epochs) is not int or not 1 <= epochs <= MOST_EPOCHS:
        raise ValueError(f"{name or 'the study'} has {epochs!r} epochs")
    if type(total) not in (int, float) or not 0 < total <= 1.001 * epochs * max(costs.values(), default=0):
        raise ValueError(f"{name or 'the study'} may spend {total!r}")
    share = Share(epochs, float(total), {method: float(cost) for method, cost in costs.items()})
    if (most := max(map(share.epochs_of, costs))) > MOST_EPOCHS:
        raise ValueError(f"a method would train for {most:,} epochs")
    return share
