"""Count data that need no download."""

from ._cell_lines import cell_lines
from ._papalexi21 import papalexi21
from ._pbmc68k import pbmc68k_counts
from ._simulate import simulate
from ._simulate_perturbations import simulate_perturbations

__all__ = ["cell_lines", "papalexi21", "pbmc68k_counts", "simulate", "simulate_perturbations"]
