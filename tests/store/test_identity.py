import numpy as np

import scanpy_scvi as sv
from scanpy_scvi.store.identity import space_id, weights_id


def test_equal_weights_have_equal_fingerprints_and_others_do_not():
    adata = sv.datasets.simulate(n_cells=100, n_genes=20, density=0.5)
    sv.tl.scvi(adata, max_epochs=1, n_hidden=8, n_latent=2, progress=False)
    entry = adata.uns["scvi"]
    again = {"state": {name: array.copy() for name, array in reversed(entry["state"].items())}}
    assert len(weights_id(entry)) == 32
    assert weights_id(entry) == weights_id(again) == space_id(adata, "scvi")
    again["state"]["encoder.mean.bias"][0] = np.nextafter(again["state"]["encoder.mean.bias"][0], np.float32(1))
    assert weights_id(again) != weights_id(entry)


def test_a_mapping_names_the_space_of_its_reference():
    adata = sv.datasets.simulate(n_cells=20, n_genes=5)
    assert space_id(adata, "scvi") is None
    adata.uns["scvi_mapping"] = {"reference_id": "abc"}
    assert space_id(adata, "scvi") == "abc"
