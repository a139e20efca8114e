"""Finals as text and as a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ddpnas_ray.reporting.figures import drawing, heading, saved


def finals_summary(result: Mapping[str, Any], out: str) -> str:
    """Summarise ``result.json`` of finals: every network with its validation scores, the winner first."""
    rungs = ", ".join(f"{step['networks']} to epoch {step['epochs']}" for step in result["rungs"])
    lines = [f"finals of {len(result['networks'])} networks ({rungs}; {result['training_epochs']} training epochs)"]
    for row in result["networks"]:
        if row["label"] in result.get("diverged", {}):
            facts = [f"diverged after {row['epochs'][-1] if row['epochs'] else 0} epochs"]
        else:
            facts = [f"val {row['val'][-1]:.4f} after {row['epochs'][-1]} epochs"]
        facts += [f"{row['costs'][name]:,} {name}" for name in ("params", "macs") if name in row["costs"]]
        facts += [] if row["expectation"] is None else [f"E[alpha] {row['expectation']:.6f}"]
        facts += [] if row["search_score"] is None else [f"score in the search {row['search_score']:.4f}"]
        lines.append(f"  {row['label']}: {', '.join(facts)}")
    lines += [f"  {key}: {value}" for key, value in result["networks"][0]["genotype"].items()]
    if len(devices := result.get("devices", [])) > 1:
        lines.append(
            f"warning: trained on {len(devices)} kinds of device ({'; '.join(devices)}): the result may differ from "
            "that of finals on one kind"
        )
    return "\n".join([*lines, f"winner {result['winner']}: {out}/genotype.json"])


def curves(result: Mapping[str, Any]) -> dict[str, bytes]:
    """Plot the validation scores of all networks by epoch; rungs are vertical lines.

    Returns:
        ``curves.png`` and ``curves.svg``.
    """
    rows: Sequence[Mapping[str, Any]] = result["networks"]
    with drawing(7.5, 4.8) as figure:
        axes = figure.add_subplot()
        for step in result["rungs"]:
            axes.axvline(step["epochs"], c="0.85", lw=1, zorder=0)
        for number, row in enumerate(rows):
            style = {"lw": 2.2, "zorder": 3} if number == 0 else {"lw": 1.2, "alpha": 0.8}
            axes.plot(row["epochs"], row["val"], marker="o", ms=3, label=row["label"], **style)
        axes.set(
            title=heading(f"finals: {result['winner']} wins", f"{result['training_epochs']} training epochs in all"),
            xlabel="epoch",
            ylabel="validation score",
        )
        axes.grid(alpha=0.3)
        axes.legend(loc="lower right", frameon=False, fontsize=8, ncols=1 + len(rows) // 9)
        return saved(figure, "curves")
