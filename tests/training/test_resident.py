"""The path of other devices, run on the CPU."""

import importlib
from dataclasses import fields

import numpy as np
import pytest
import torch
from modules.small_models import table

from scanpy_scvi.modules.likelihoods import negative_binomial, zero_inflated
from scanpy_scvi.training import fit, resident, seeded
from scanpy_scvi.training.resident import ResidentTable

CPU = torch.device("cpu")


@pytest.mark.parametrize("rows", [[], [3], [5, 0, 36, 5], list(range(37))])
def test_gathers_what_the_table_gathers(rows):
    data, rows = table(), np.array(rows, np.int64)
    got, expected = ResidentTable.of(data, CPU).take(rows), data.take(rows)
    for field in fields(got):
        a, b = getattr(got, field.name), getattr(expected, field.name)
        assert (
            all(torch.equal(x, y) for x, y in zip(a[:3], b[:3], strict=True))
            if field.name == "counts"
            else torch.equal(a, b)
        )
    assert got.counts.n_genes == expected.counts.n_genes


def test_data_that_do_not_fit_stay_where_they_are(monkeypatch):
    data, gpu = table(), torch.device("cuda")
    monkeypatch.setattr(resident, "_free", lambda _: 2.0 * resident._bytes(data) - 1)
    assert resident.resident(data, gpu) is data
    assert resident.resident(data, CPU) is data


def test_a_fit_by_formulas_from_resident_data_reaches_the_bound_of_the_kernels(data, make_model, config, monkeypatch):
    settings = config(max_epochs=5)

    def last() -> float:
        model = make_model()
        with seeded(0):
            return fit(model, data.table, settings).history[-1].validation_elbo

    by_kernels = last()
    for likelihood in (negative_binomial, zero_inflated):
        monkeypatch.setattr(likelihood, "uses_kernels", lambda _: False)
    loop = importlib.import_module("scanpy_scvi.training.fit")  # the package has a function of that name
    monkeypatch.setattr(loop, "resident", lambda table, _: ResidentTable.of(table, CPU))
    assert last() == pytest.approx(by_kernels, rel=1e-5)
