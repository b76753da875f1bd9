"""Tables and the plot of what `speed.py` and `footprint.py memory --out` have measured.

    python tests/benchmark/speed_report.py speed.jsonl whole.jsonl memory.jsonl --plot speed.png

Ratios are those of one round, scvi-tools ÷ ours, both fitted one after the other; given is their median over rounds and
the range. Growth is the slope of log seconds (or MiB) on log cells over the simulated sizes.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from _common import read_lines

if TYPE_CHECKING:
    from collections.abc import Iterator

Lines = list[dict]
NAMES = {"peer": "scvi-tools", "same": "ours, its sizes", "ours": "ours"}


def groups(lines: Lines, *keys: str) -> Iterator[tuple[tuple, Lines]]:
    """Lines that share the values of `keys`, sorted by them."""
    for values in sorted({tuple(line[key] for key in keys) for line in lines}):
        yield values, [line for line in lines if tuple(line[key] for key in keys) == values]


def median(lines: Lines, system: str, key: str) -> float:
    """Median over rounds."""
    values = [line[key] for line in lines if line["system"] == system]
    return float(np.median(values)) if values else float("nan")


def ratios(lines: Lines, system: str, key: str) -> list[float]:
    """scvi-tools ÷ ours in the rounds that have both."""
    by_round = {(line["system"], line["round"]): line[key] for line in lines}
    rounds = sorted(r for s, r in by_round if s == system and ("peer", r) in by_round)
    return [by_round["peer", r] / by_round[system, r] for r in rounds]


def ratio(lines: Lines, system: str, key: str) -> str:
    """Median (range)."""
    found = ratios(lines, system, key)
    return f"**{np.median(found):.1f}×** ({min(found):.1f}–{max(found):.1f})" if found else "–"


def markdown(head: list[str], rows: list[list[str]]) -> str:
    """Lay out a table."""
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows])


def epochs_table(lines: Lines) -> str:
    """Seconds per epoch."""
    head = [
        "data",
        "genes",
        "cells",
        "non-zero",
        "likelihood",
        "threads",
        "scvi-tools, s",
        "ours, its sizes, s",
        "ours, s",
    ]
    head += ["its sizes: wall ratio", "CPU ratio", "defaults: wall ratio", "CPU ratio", "rounds"]
    rows = []
    for key, found in groups(lines, "data", "genes", "cells", "likelihood", "threads"):
        data, genes, cells, likelihood, threads = key
        seconds = [f"{median(found, system, 'wall'):.3f}" for system in ("peer", "same", "ours")]
        compared = [ratio(found, system, key) for system in ("same", "ours") for key in ("wall", "cpu")]
        row = [data, f"{genes:,}", f"{cells:,}", f"{found[0]['density']:.1%}", likelihood.upper(), str(threads)]
        rows.append([*row, *seconds, *compared, str(len({line["round"] for line in found}))])
    return markdown(head, rows)


def whole_table(lines: Lines) -> str:
    """CPU seconds of whole default runs, and the geometric mean of the ratios."""
    ours = sorted({line["system"] for line in lines} - {"peer"})
    head = ["data", "threads", "rounds", "scvi-tools, CPU s", *(f"{s}, CPU s" for s in ours), *(f"÷ {s}" for s in ours)]
    rows = []
    for (threads,), runs in groups(lines, "threads"):
        for (data,), found in groups(runs, "data"):
            seconds = [f"{median(found, system, 'cpu'):.1f}" for system in ("peer", *ours)]
            rounds = str(len({line["round"] for line in found}))
            rows.append([f"`{data}`", str(threads), rounds, *seconds, *(ratio(found, s, "cpu") for s in ours)])
        means = []
        for system in ours:
            all_ratios = [ratios(found, system, "cpu") for _, found in groups(runs, "data")]
            logs = [np.log(np.median(r)) for r in all_ratios if r]
            means.append(f"**{np.exp(np.mean(logs)):.0f}×**" if logs else "–")
        rows.append(["geometric mean", str(threads), *[""] * (len(head) - 2 - len(ours)), *means])
    return markdown(head, rows)


def slope(cells: list[float], values: list[float]) -> str:
    """Growth exponent."""
    return f"{np.polyfit(np.log(cells), np.log(values), 1)[0]:.2f}" if len(set(cells)) > 1 else "–"


def growth_table(lines: Lines, key: str, unit: str) -> str:
    """Exponents over simulated sizes of at least 3,000 cells and over all."""
    rows = []
    for (genes, likelihood, threads, system), found in groups(lines, "genes", "likelihood", "threads", "system"):
        points = {n: float(np.median([line[key] for line in at])) for (n,), at in groups(found, "cells")}
        large = {n: value for n, value in points.items() if n >= 3000}
        exponents = [slope(list(p), list(p.values())) for p in (points, large)]
        span = ", ".join(f"{n:,}: {value:.3g}" for n, value in points.items())
        rows.append([NAMES[system], f"{genes:,}", likelihood.upper(), str(threads), span, *exponents])
    head = ["system", "genes", "likelihood", "threads", f"cells: {unit}", "exponent", "from 3,000 cells on"]
    return markdown(head, rows)


def plot(lines: Lines, path: Path) -> None:
    """Time per epoch against cells, on logarithmic axes: a panel for each number of genes and threads."""
    import matplotlib.pyplot as plt

    panels = list(groups(lines, "genes", "threads"))
    figure, axes = plt.subplots(1, len(panels), figsize=(4.2 * len(panels), 3.8), sharey=True, squeeze=False)
    colours, styles = {"peer": "tab:grey", "same": "tab:blue", "ours": "tab:orange"}, {"nb": "-", "zinb": "--"}
    for ax, ((genes, threads), found) in zip(axes[0], panels, strict=True):
        for (system, likelihood), series in groups(found, "system", "likelihood"):
            points = [(n, np.median([line["wall"] for line in at])) for (n,), at in groups(series, "cells")]
            label = f"{NAMES[system]}, {likelihood.upper()}"
            ax.loglog(*zip(*points, strict=True), styles[likelihood], color=colours[system], marker="o", label=label)
        ax.set(title=f"{genes:,} genes, {threads} thread" + "s" * (threads > 1), xlabel="cells")
        ax.grid(visible=True, which="major", alpha=0.3)
    axes[0, 0].set_ylabel("seconds per epoch")
    axes[0, 0].legend(frameon=False, fontsize=8)
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    """Print the tables that the files allow, and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    lines = [line for path in args.files for line in read_lines(path)]
    memory = [line for line in lines if "peak_above_both_mib" in line]
    whole = [line for line in lines if line.get("whole")]
    epochs = [line for line in lines if "wall" in line and not line["whole"]]
    simulated = [line for line in epochs if line["data"] == "simulated"]
    sections = [
        ("Per epoch", epochs and epochs_table(epochs)),
        ("Whole default runs", whole and whole_table(whole)),
        ("Growth of seconds per epoch", simulated and growth_table(simulated, "wall", "s")),
        ("Growth of peak memory", memory and growth_table(memory, "peak_above_both_mib", "MiB")),
    ]
    print("\n\n".join(f"**{title}**\n\n{text}" for title, text in sections if text))
    if args.plot and simulated:
        plot(simulated, args.plot)


if __name__ == "__main__":
    main()
