"""``python -m scanpy_scvi``, which is also the command ``scanpy-scvi``."""

from ._cli import main

__all__ = ["main"]

if __name__ == "__main__":
    raise SystemExit(main())
