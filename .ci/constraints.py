"""Print what is installed here as constraints for pip: names and versions, for this version of Python alone.

Addresses, checksums and local versions (the ``+cpu`` of a torch) are left out: they say where a package came from.
"""

import re
import sys
from importlib.metadata import distributions

#: Not constrained: ourselves, and what an environment begins with.
_LEFT_OUT = {"bisam", "pip", "uv"}


def lines() -> list[str]:
    """Return one line for each package, in the order of their names."""
    python = "{}.{}".format(*sys.version_info)
    found = {re.sub(r"[-_.]+", "-", one.metadata["Name"]).lower(): one.version for one in distributions()}
    kept = sorted((name, version.partition("+")[0]) for name, version in found.items() if name not in _LEFT_OUT)
    return [f'{name}=={version} ; python_version == "{python}"' for name, version in kept]


if __name__ == "__main__":
    print("# The packages that CI saw last: `make constraints` writes them anew. On another Python they say nothing.")
    print("\n".join(lines()))
