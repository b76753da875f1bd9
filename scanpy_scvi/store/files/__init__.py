"""Files that may come from anywhere, looked through before they are read."""

from .hdf5 import check_hdf5
from .zarr import check_zarr

__all__ = ["check_hdf5", "check_zarr"]
