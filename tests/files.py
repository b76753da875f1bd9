"""Files of AnnData, what is in a folder, and a disk that is full."""

from __future__ import annotations

import resource
from contextlib import contextmanager
from hashlib import blake2b

import anndata as ad

OPTIONS = {"batch_size": 32, "max_epochs": 3, "n_hidden": 16, "n_latent": 3, "progress": False, "device": "cpu"}
FORMATS = [".h5ad", ".zarr"]


def write(adata, path):
    (adata.write_h5ad if path.suffix == ".h5ad" else adata.write_zarr)(path)
    return path


def read(path):
    return ad.read_h5ad(path) if path.suffix == ".h5ad" else ad.read_zarr(path)


def contents(folder):
    """Fingerprints of all files below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): blake2b(path.read_bytes()).hexdigest() for path in files}


@contextmanager
def no_file_larger_than(n_bytes):
    """A disk that is full: writes beyond the limit fail, after what fits was written."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
