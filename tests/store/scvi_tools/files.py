"""The committed files of scvi-tools, and changed copies of them."""

from pathlib import Path

import anndata as ad
import torch

FOLDER = Path(__file__).parents[2] / "golden" / "scvi_tools"
NAMES = ("plain", "history", "full")


def path_of(name):
    return FOLDER / f"{name}_model.pt"


def cells():
    """The cells, with what scvi-tools says of them."""
    return ad.read_h5ad(FOLDER / "answers.h5ad")


def content_of(name):
    """Content of a file, unpickled: these files were made here."""
    return torch.load(path_of(name), weights_only=False)


def changed(folder, change, name="full"):
    """Write a copy of a file in which `change(content)` was called; returns its path."""
    content = content_of(name)
    content = change(content) or content
    path = folder / "changed.pt"
    torch.save(content, path)
    return path


def init(content):
    return content["attr_dict"]["init_params_"]


def registry(content):
    return content["attr_dict"]["registry_"]


def set_init_novelty(content):
    """Add an option that nobody knows."""
    init(content)["kwargs"]["kwargs"]["novelty"] = 3
