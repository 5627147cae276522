"""Every named method, built with what it cannot do without: a length of training, a base with momentum."""

import functools

from bisam import METHODS

__all__ = ["MAKERS", "UNDER_EACH_ASCENT", "each_ascent"]

#: Numbers without which a method is refused, or never perturbs in a few steps.
NEEDED = {"tailsam": {"total_steps": 1000, "tail": 1.0}}


def make(name, base, **options):
    """Build a method around ``base``, an SGD or Adam, or several of them."""
    if name == "momentumsam":
        for group in [group for one in (base if isinstance(base, list) else [base]) for group in one.param_groups]:
            if "momentum" in group:
                group["momentum"] = group["momentum"] or 0.9
    return METHODS[name](base, **{**NEEDED.get(name, {}), **options})


#: (method, whether it climbs the lower bound): one that climbs no objective has none to replace.
UNDER_EACH_ASCENT = [
    (name, foreign)
    for name in METHODS
    for foreign in (False, True)
    if not (foreign and name in ("momentumsam", "asyncsam"))
]


def each_ascent(case):
    """The id of such a case."""
    name, foreign = case
    return f"{name}-{'lower-bound' if foreign else 'cross-entropy'}"


#: ``MAKERS[name](base, model=model)`` for every method.
MAKERS = {name: functools.partial(make, name) for name in METHODS}
