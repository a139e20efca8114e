"""Confidence in a result as text, for a search's summary and its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Rows of the score sheet, of this version and of older ones, that do not score the network itself.
INHERITED = ("result architecture with inherited weights", "the answer with inherited weights")
STAYS = 0.9  # share of the resamples
EQUALS = "treat this network as one of several equals, and verify or train several (docs/generation.md)"


def how_sure(result: Mapping[str, Any]) -> list[str]:
    """Describe the confidence in a result, in a few lines; empty if unknown.

    Args:
        result: ``result.json``; those of older versions have no ``confidence``.
    """
    found = result.get("confidence") or {}
    lines = [f"confidence: unknown: {found['not_told']}"] if "not_told" in found else []
    if "resampling" in found:
        lines += [f"confidence: {_resampled(found['resampling'])}", f"  {_verdict(found)}"]
    if (prunings := found.get("prunings")) and prunings["known"]:
        lines.append(f"  {_mistakes(prunings)}")
    return lines


def inherited_text(result: Mapping[str, Any]) -> list[str]:
    """Report the score with inherited weights, and why it is not the network's accuracy; empty if there is none."""
    rows = [row for row in result.get("score_sheet", ()) if row["what"] in INHERITED]
    if not rows or rows[0]["value"] is None:
        return []
    row, found, sampled = rows[0], result.get("confidence") or {}, result["scores"]["last_epoch_mean"]
    if found.get("left_out"):
        used = found["edges"] - found["left_out"]
        why = f"it keeps {used} of {found['edges']} edges, and the shared weights were trained with all of them"
    else:
        why = "its weights were shared with many networks during training"
    return [
        f"with inherited weights the network scores {row['value']:.4f} ({row['split']}), sampled architectures "
        f"{sampled:.4f} in the last epoch:",
        f"  this is not its accuracy; train it to know that ({why})",
    ]


def _resampled(resampling: Mapping[str, Any]) -> str:
    rows, edges = [row for row in resampling["edges"] if row["operation"] is not None], len(resampling["edges"])
    stay = sum(row["stays"] >= STAYS for row in rows)
    return (
        f"{stay} of {len(rows)} chosen operations stay in {STAYS:.0%} of {resampling['resamples']} resamples of the "
        f"epochs; {resampling['same_network']:.0%} give this network, half differ on "
        f"{resampling['median_distance']:g} or more of {edges} edges"
    )


def _verdict(found: Mapping[str, Any]) -> str:
    end = "this network stands out from the next ones" if found["stands_out"] else EQUALS
    if "lead" not in found:
        return end
    networks = found["lead"]["networks"]
    first = networks[0]["standard_errors"]
    lead = "leads the next network" + (", with no variation" if first is None else f" by {first:.1f} standard errors")
    if networks[0]["lead"] == 0.0:
        lead = "ties with the next network"
    close = f"{found['lead']['close']} of the next {len(networks)} within 2"
    return f"E[alpha] {lead} ({close}): {end}"


def _mistakes(prunings: Mapping[str, Any]) -> str:
    worst = prunings["worst"][0]
    return (
        f"{prunings['expected_mistakes']:.1f} of {prunings['known']} prunings are expected to have removed an edge's "
        f"best operation; most probable: '{worst['pruned']}' on {worst['edge']} in round {worst['round'] + 1} "
        f"({worst['p_best_pruned']:.2f})"
    )
