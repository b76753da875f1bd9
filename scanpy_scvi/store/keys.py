"""Every AnnData key that is read or written, spelled once."""

from __future__ import annotations

from dataclasses import dataclass

SCHEMA = 1
"""Version of the layout of `uns[key]`."""
ABSENT = "absent_genes"
"""Key in `uns[key]` of a mapped query: genes of the model that it may lack."""
CODES, CODE_BATCH = "codes", "code_batch"
"""Keys in `uns[key]`: which hidden units are on in each cluster, and in which batch cells are decoded to tell."""
OBS_COLUMNS = "obs_columns"
"""Key in `uns[key]`: columns of `obs` that belong to the fit, beyond those that any fit may write."""
VAR_COLUMNS, OBSM_KEYS, VARM_KEYS = "var_columns", "obsm_keys", "varm_keys"
"""The same of `var`, `obsm` and `varm`."""


def check_name(name: object, argument: str) -> None:
    """Raise a ValueError for a key that a file could not hold."""
    if not isinstance(name, str) or not name or "/" in name:
        msg = (
            f"`{argument}` is {name!r}, but a non-empty name without '/' was expected, because '/' separates groups in "
            "files. Pass another name."
        )
        raise ValueError(msg)


@dataclass(frozen=True)
class Keys:
    """Names of all slots of one fit; another `key_added` renames them together."""

    key_added: str = "scvi"

    @property
    def uns(self) -> str:
        """`uns`: parameters, model, history."""
        return self.key_added

    @property
    def latent(self) -> str:
        """`obsm`: posterior mean of z."""
        return f"X_{self.key_added}"

    @property
    def latent_var(self) -> str:
        """`obsm`: posterior variance of z."""
        return f"{self.key_added}_latent_var"

    @property
    def normalized(self) -> str:
        """`layers`: normalized expression."""
        return f"{self.key_added}_normalized"

    @property
    def modelled(self) -> str:
        """`var`: whether a gene is part of the model."""
        return f"{self.key_added}_modelled"

    @property
    def dispersion(self) -> str:
        """`var` or `varm`: inverse dispersion theta."""
        return f"{self.key_added}_dispersion"

    @property
    def log_total(self) -> str:
        """`obs`: logarithm of the total count, where the counts were dropped."""
        return f"{self.key_added}_log_total"

    @property
    def log_library(self) -> str:
        """`obs`: posterior mean of the logarithm of a latent library, where the counts were dropped."""
        return f"{self.key_added}_log_library"

    @property
    def log_library_var(self) -> str:
        """`obs`: its posterior variance."""
        return f"{self.key_added}_log_library_var"

    @property
    def responsibilities(self) -> str:
        """`obsm`: probability of each component of the prior."""
        return f"{self.key_added}_responsibilities"

    @property
    def component(self) -> str:
        """`obs`: the likeliest component."""
        return f"{self.key_added}_component"

    @property
    def clusters(self) -> str:
        """`obs`: clusters that the model itself makes."""
        return self.key_added

    @property
    def log_density(self) -> str:
        """`obs`: log density of the cell at its latent state."""
        return f"{self.key_added}_loglik"

    @property
    def loadings(self) -> str:
        """`varm`: weight of each latent dimension on each gene."""
        return f"{self.key_added}_loadings"

    @property
    def basal(self) -> str:
        """`obsm`: latent state without what perturbations add."""
        return f"X_{self.key_added}_basal"

    @property
    def response(self) -> str:
        """`obs`: how much likelier a cell is with its perturbation's shift than without."""
        return f"{self.key_added}_response"

    @property
    def perturbation(self) -> str:
        """`obs`: names of a cell's perturbations, where they came as a table."""
        return f"{self.key_added}_perturbation"

    @property
    def programs(self) -> str:
        """`varm`: what each latent dimension does to each gene."""
        return f"{self.key_added}_programs"

    @property
    def basal_expression(self) -> str:
        """`var`: mean expression without what perturbations add."""
        return f"{self.key_added}_basal_expression"

    @property
    def mapping(self) -> str:
        """`uns`: how the cells were mapped to a reference."""
        return f"{self.key_added}_mapping"

    @property
    def transfer(self) -> str:
        """`uns`: how labels were transferred from a reference."""
        return f"{self.key_added}_transfer"

    @property
    def reference_distance(self) -> str:
        """`obs`: distance to the cells of the reference."""
        return f"{self.key_added}_ref_dist"
