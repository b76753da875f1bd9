"""A fit written here, opened in a fresh environment: the same bits.

    python tests/new_environment.py [--index-url URL] [--keep FOLDER]

Makes a virtual environment, installs this checkout with `tests/constraints.txt`, opens there what was written here, as
`.h5ad`, `.zarr` and slim, and compares latent states, variances, normalized expression and draws bit for bit. It takes
minutes, most of them pip's, so it is no part of the test run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import venv
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

ROOT = Path(__file__).parents[1]
AGAIN = """
import sys, warnings
warnings.simplefilter("ignore")
import anndata as ad, numpy as np, scanpy_scvi as sv, torch
from scanpy_scvi.posterior import latent_moments
from scanpy_scvi.store import load
for path, out in zip(sys.argv[1::2], sys.argv[2::2]):
    adata = (ad.read_zarr if path.endswith("zarr") else ad.read_h5ad)(path)
    stored = {"mean": adata.obsm["X_scvi"], "var": adata.obsm["scvi_latent_var"]}
    fitted = load(adata, "scvi", counts=False)
    z = latent_moments(fitted.model, fitted.read(adata), device=torch.device("cpu"))
    table = sv.tl.normalized_expression(adata, inplace=False)
    drawn = sv.tl.normalized_expression(adata, n_samples=3, library_size="latent", inplace=False)
    sample = sv.tl.sample(adata).X.toarray()
    np.savez(out, again_mean=z.mean, again_var=z.var, table=table, drawn=drawn, sample=sample, **stored)
    print(path, sys.prefix, {m.__name__: m.__version__ for m in (sv, torch, np)})
"""


def write(folder: Path) -> list[Path]:
    """Write a fit with every kind of column: as both formats, and slim."""
    import scanpy_scvi as sv

    adata = sv.datasets.cell_lines()
    adata.obs["age"] = np.linspace(20, 70, adata.n_obs)
    options = {"likelihood": "zinb", "dispersion": "gene-batch", "library": "latent", "max_epochs": 3}
    sv.tl.scvi(adata, "batch", continuous_covariate_keys=["age"], progress=False, **options)
    slim = sv.tl.slim(adata, copy=True)
    paths = [folder / "fit.h5ad", folder / "fit.zarr", folder / "slim.h5ad"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(paths[0])
        adata.write_zarr(paths[1])
    slim.write_h5ad(paths[2])
    return paths


def install(folder: Path, index_url: str | None) -> Path:
    """Make an environment with this checkout; return its Python."""
    venv.create(folder, with_pip=True)
    python = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    index = [] if index_url is None else ["--extra-index-url", index_url]
    constraints = ["-c", str(ROOT / "tests" / "constraints.txt")]
    command = [str(python), "-m", "pip", "install", "-q", *index, *constraints, str(ROOT), "zarr"]
    subprocess.run(command, check=True)
    return python


def read(python: str | Path, paths: list[Path], folder: Path, name: str) -> list[dict[str, np.ndarray]]:
    """What an environment makes of the files."""
    outs = [folder / f"{name}_{path.name}.npz" for path in paths]
    arguments = [str(p) for pair in zip(paths, outs, strict=True) for p in pair]
    subprocess.run([str(python), "-c", AGAIN, *arguments], check=True, cwd=folder)
    return [dict(np.load(out)) for out in outs]


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--index-url", help="further package index, such as the one of PyTorch for CPUs")
    parser.add_argument("--keep", type=Path, help="folder to work in, which is kept")
    given = parser.parse_args()
    with TemporaryDirectory() as temporary:
        folder = given.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        paths = write(folder)
        here, there = (
            read(sys.executable, paths, folder, "here"),
            read(install(folder / "environment", given.index_url), paths, folder, "there"),
        )
        differing = 0
        for path, ours, theirs in zip(paths, here, there, strict=True):
            for name, values in ours.items():
                same = np.array_equal(values, theirs[name])
                differing += not same
                print(f"{path.name:10} {name:10} {'equal' if same else 'DIFFERS'}")
            for name in ("mean", "var"):
                same = np.array_equal(theirs[name], theirs[f"again_{name}"])
                differing += not same
                print(f"{path.name:10} {name:10} {'as stored' if same else 'NOT AS STORED'}")
    sys.exit(1 if differing else 0)


if __name__ == "__main__":
    main()
