"""The parts that a method's name may have, for the shell: a test holds them equal to those of the library.

:mod:`.methods` reads them from the library itself, which imports torch. To press the tab key should not take seconds.
"""

from .optimizers import PLAIN

__all__ = ["METHOD_NAMES"]

#: In the order of :func:`bisam_lab.registry.methods.names`.
METHOD_NAMES = (
    *PLAIN,
    *("sam", "asam", "bisam", "esam", "gsam", "wsam", "looksam", "friendlysam", "vasso", "samon", "fishersam", "ssam"),
    *("aesam", "tailsam", "momentumsam", "asyncsam", "usam", "lesam", "stablesam", "functionalsam", "every"),
    *("bisam-log", "bisam-tanh", "bisam-ramp", "bisam-softsign", "bisam-shifted-tanh", "msam", "subbatch"),
)
