"""The initialisations that our networks know by name."""

__all__ = ["INITIAL", "known"]

#: ``usual`` is the one of each network's own paper or of its common implementations. ``as-code`` is that of the BiSAM
#: authors' code (github.com/LIONS-EPFL/BiSAM), which differs from network to network.
INITIAL = ("usual", "as-code")


def known(init: str) -> str:
    """Return ``init`` if an initialisation has that name.

    Raises:
        ValueError: none has.
    """
    if init not in INITIAL:
        raise ValueError(f"init={init!r} must be one of {', '.join(INITIAL)}")
    return init
