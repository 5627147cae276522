"""``python -m bisam_lab`` is the command ``bisam``: for torchrun, which starts a module."""

from . import main

if __name__ == "__main__":
    main()
