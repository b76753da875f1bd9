"""The committed files of scvi-tools: three small models as `SCVI.save` wrote them, their cells, and what they say.

`python tests/comparison/_files.py`, where scvi-tools 1.4.2 is installed, writes them anew. The data are simulated, so
that the files hold nothing but what is made here. `tests/store/scvi_tools` and `tests/tl/test_from_scvi_tools.py` read
them without scvi-tools.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parents[1] / "golden" / "scvi_tools"
COVARIATES = {
    "labels_key": "label",
    "categorical_covariate_keys": ["donor", "lane"],
    "continuous_covariate_keys": ["age"],
}
MODELS = {
    "plain": ({}, {}),
    "history": (
        {"batch_key": "batch"},
        {"gene_likelihood": "nb", "use_layer_norm": "encoder", "use_batch_norm": "decoder"},
    ),
    "full": (
        {"batch_key": "batch", "layer": "counts", **COVARIATES},
        {
            "n_layers": 2,
            "dispersion": "gene-batch",
            "use_observed_lib_size": False,
            "encode_covariates": True,
        },
    ),
}
"""Arguments of `setup_anndata` and of `SCVI`, beside the sizes."""


def write(folder: Path = FOLDER) -> None:
    """Fit, save, and keep the answers of scvi-tools in `obsm` and `layers`, with z at the posterior mean."""
    import scvi
    import torch
    from _peer import all_cells, at_the_mean

    import scanpy_scvi as sv

    warnings.simplefilter("ignore")
    scvi.settings.seed = 0
    adata = sv.datasets.simulate(n_cells=60, n_genes=24, n_batches=3, n_latent=2, density=0.5)
    rng = np.random.default_rng(0)
    adata.obs = adata.obs[["batch", "label"]]
    adata.var, adata.varm, adata.uns = adata.var[[]], {}, {}
    adata.obsm = {}
    adata.obs["donor"] = rng.choice(["x", "y", "z"], adata.n_obs)
    adata.obs["lane"] = rng.choice([3, 1, 20], adata.n_obs)
    adata.obs["age"] = rng.normal(2, 1, adata.n_obs).round(2)
    adata.layers["counts"] = adata.X.copy()
    answers = adata.copy()
    for name, (columns, options) in MODELS.items():
        cells = adata.copy()
        scvi.model.SCVI.setup_anndata(cells, **columns)
        model = scvi.model.SCVI(cells, n_hidden=6, n_latent=3, **options)
        validation = {"check_val_every_n_epoch": 2} if name == "history" else {"logger": False}
        model.train(5, accelerator="cpu", enable_progress_bar=False, batch_size=20, **validation)
        model.module.eval()
        model.save(str(folder), prefix=f"{name}_", overwrite=True)
        with torch.no_grad():
            inference, generative = at_the_mean(model.module, all_cells(model))
        answers.obsm[f"{name}_mean"] = inference["qz"].loc.numpy()
        answers.obsm[f"{name}_var"] = inference["qz"].scale.square().numpy()
        answers.layers[f"{name}_scale"] = generative["px"].scale.numpy()
    answers.uns["made_by"] = f"scvi-tools {scvi.__version__}"
    answers.write_h5ad(folder / "answers.h5ad", compression="gzip")


if __name__ == "__main__":
    write()
