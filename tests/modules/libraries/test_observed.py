import pytest
import torch
from modules.small_models import all_cells, build, spec, table

from scanpy_scvi.modules import Part


@pytest.mark.parametrize(("name", "field"), [("observed", "log_total"), ("size_factor", "log_size_factor")])
def test_library_is_what_was_given_and_costs_nothing(name, field):
    cells = all_cells(table())
    library = build(spec(library=Part(name))).library
    log_library, kl = library(cells)
    assert torch.equal(log_library, getattr(cells, field))
    assert torch.equal(library.mean(cells), getattr(cells, field))
    assert torch.equal(kl, torch.zeros(37))
    assert not list(library.parameters())
