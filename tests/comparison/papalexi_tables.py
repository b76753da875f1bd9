"""Tables of what `papalexi_screen.py` measured."""

from __future__ import annotations

import numpy as np


def average(lines: list[dict], key: str) -> str:
    """Mean ± SD over lines; a dash where there is none."""
    values = np.concatenate([np.atleast_1d(line[key]) for line in lines if line.get(key) not in (None, [])] or [[]])
    return f"{values.mean():.2f} ± {values.std():.2f}" if len(values) else "–"


HEADS = {
    "whole": {
        "within": "Jaccard within the four",
        "across": "with others",
        "across_open": "with others that have a target",
        "smad4": "targets of SMAD4",
        "smad4_own": "of its own",
        "silent_open": "silent with a target",
        "claimed": "perturbations with a target",
        "open": "open gates",
        "own_null": "own null",
        "mccs": "MCC of seeds",
        "mcc_moveds": "of moved dimensions",
        "seconds": "CPU s",
    },
    "halves": {"mcc": "MCC of halves", "mcc_moved": "of moved dimensions", "target_f1": "F1 of targets"},
    "transfer": {
        "kin_jaccard": "Jaccard with IFNGR1/2",
        "other_jaccard": "with others",
        "kin_cosine": "cosine with IFNGR1/2",
        "kin_cosine_held_out": "of cells held out",
        "gain": "gain",
        "gain_every": "all gates open",
        "gain_kin": "shift of IFNGR1/2",
        "fold_change_r": "r of fold changes",
    },
    "null": {"open_share": "random parts with a target"},
    "null guides": {"open_share": "guides with a target"},
}


def tables(lines: list[dict]) -> str:
    """One table for each task, and for each perturbation left out, in Markdown; then known fold changes."""
    text = []
    for task, heads in HEADS.items():
        of_task = [line for line in lines if line["task"] == task]
        for left_out in dict.fromkeys(line.get("left_out") for line in of_task):
            part = [line for line in of_task if line.get("left_out") == left_out]
            seeds = sorted({line["seed"] for line in part})
            text += ["", f"{part[0]['data']}, {task}{f', {left_out}' if left_out else ''}; seeds {seeds}", ""]
            text += [f"| | {' | '.join(heads.values())} |", "|" + "---|" * (1 + len(heads))]
            for method in dict.fromkeys(line["method"] for line in part):
                mine = [line for line in part if line["method"] == method]
                text.append(f"| {method} | {' | '.join(average(mine, key) for key in heads)} |")
            for key in ("nearest", "best_other"):
                found = [f"{line['method']}: {line[key]}" for line in part if key in line]
                text += [f"\n{key}: {', '.join(found)}"] if found else []
    folded = [line for line in lines if "fold_changes" in line]
    if folded:
        methods = list(dict.fromkeys(line["method"] for line in folded))
        text += ["", f"| log2 fold change | observed | {' | '.join(methods)} |", "|" + "---|" * (2 + len(methods))]
        for what in folded[0]["fold_changes"]:
            pairs = [[line["fold_changes"][what] for line in folded if line["method"] == m] for m in methods]
            known = "–" if what.endswith(" r") else f"{pairs[0][0][1]:.2f}"
            text.append(
                f"| {what} | {known} | " + " | ".join(f"{np.mean(p, axis=0).flat[0]:.2f}" for p in pairs) + " |"
            )
    broken = [line for line in lines if line.get("finite") is False]
    return "\n".join([*text, "", f"Fits with a NaN: {len(broken)} of {len([x for x in lines if 'finite' in x])}."])
