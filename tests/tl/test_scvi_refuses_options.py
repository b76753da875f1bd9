"""Options that `tl.scvi` must refuse before it fits anything."""

from __future__ import annotations

import numpy as np
import pytest
from fingerprint import fingerprint

import scanpy_scvi as sv

CHOICES = {
    "likelihood": ("nbinom", "'nb'"),
    "dispersion": ("genes", "'gene-batch'"),
    "library": ("known", "'latent'"),
    "norm": ("instance", "'layer'"),
    "preset": ("scvi", "'scvi-tools'"),
    "normalized": ("yes", "'auto'"),
    "on_interrupt": ("ignore", "'keep'"),
    "device": ("toaster", "'auto'"),
}
NUMBERS = {
    "n_latent": (0, 2.5, "10", True, None, np.nan, np.inf, -1),
    "n_hidden": (0, 1.5, "64"),
    "n_layers": (0, -1, 1.5),
    "dropout_rate": (-0.1, 1.0, np.nan, "0.1", None),
    "max_epochs": (0, 1.5, "5", np.inf),
    "batch_size": (1, 0, 31.5, None),
    "learning_rate": (0, -1e-3, np.nan, np.inf, "1e-3"),
    "weight_decay": (-1e-6, np.nan, np.inf),
    "kl_weight": (-1, np.nan, np.inf),
    "kl_warmup": (-0.1, 1.1, np.nan),
    "validation_size": (-0.1, 0.95, 1, np.nan, None),
    "random_state": (-1, 0.5, "a", None, 2**64),
}
TOGETHER = {
    "Poisson has no dispersion": ({"likelihood": "poisson", "dispersion": "gene-cell"}, ["`dispersion`", "Poisson"]),
    "no batch": ({"batch_key": None, "dispersion": "gene-batch"}, ["gene-batch", "`batch_key`"]),
    "no labels": ({"dispersion": "gene-label"}, ["gene-label", "`labels_key`"]),
    "two libraries": ({"library": "latent", "size_factor_key": "age"}, ["`library='latent'`", "`size_factor_key`"]),
    "nothing held out": ({"validation_size": 0}, ["`early_stopping=True`", "`validation_size` is 0"]),
}
WRONG_SHAPE = {
    "categorical_covariate_keys": ("donor", ["the string 'donor'", "list", "`['donor']`"]),
    "continuous_covariate_keys": ("age", ["the string 'age'", "list", "`['age']`"]),
    "categorical_covariate_keys ": (3, ["`categorical_covariate_keys` is 3", "list of column names"]),
    "batch_key": (["batch"], ["['batch']", "one key of `adata.obs`", "string"]),
    "labels_key": (["label", "donor"], ["['label', 'donor']", "one key"]),
    "size_factor_key": (("age",), ["('age',)", "one key"]),
    "layer": (["true_rate"], ["['true_rate']", "one key"]),
}


def refused(adata, error, words, **options):
    before = fingerprint(adata)
    with pytest.raises(error) as caught:
        sv.tl.scvi(adata, **({"batch_key": "batch", "progress": False} | options))
    message = str(caught.value.args[0])
    assert [w for w in words if w not in message] == [], message
    assert fingerprint(adata) == before


@pytest.mark.parametrize("argument", CHOICES)
def test_choices_are_listed(argument, adata):
    value, choice = CHOICES[argument]
    refused(adata, ValueError, [f"`{argument}`", repr(value), choice], **{argument: value})


@pytest.mark.parametrize(("argument", "value"), [(name, v) for name, values in NUMBERS.items() for v in values])
def test_numbers_are_checked(argument, value, adata):
    refused(adata, ValueError, [f"`{argument}` is {value!r}", "number", "was expected"], **{argument: value})


@pytest.mark.parametrize("case", TOGETHER)
def test_options_that_do_not_go_together(case, adata):
    options, words = TOGETHER[case]
    refused(adata, ValueError, words, **options)


@pytest.mark.parametrize("argument", WRONG_SHAPE)
def test_one_key_or_several(argument, adata):
    value, words = WRONG_SHAPE[argument]
    argument = argument.strip()
    refused(adata, TypeError, [f"`{argument}`", *words], **{argument: value})
