"""How sure a result is, in words: for the last lines of a search and for its page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

INHERITED = "the answer with inherited weights"  # the row of the score sheet that is no score of the network
STAYS = 0.9  # of the resamples
EQUALS = "treat this network as one draw among equals, and verify or train several (docs/generation.md)"


def how_sure(result: Mapping[str, Any]) -> list[str]:
    """One line per thing that the records say about the result; none where they say nothing.

    Args:
        result: ``result.json``; of older versions too, which have no ``confidence``.
    """
    said = result.get("confidence") or {}
    lines = [f"how sure: cannot be told: {said['not_told']}"] if "not_told" in said else []
    if "resampling" in said:
        lines += [f"how sure: {_resampled(said['resampling'])}", f"  {_verdict(said)}"]
    if (prunings := said.get("prunings")) and prunings["known"]:
        lines.append(f"  {_mistakes(prunings)}")
    return lines


def inherited_text(result: Mapping[str, Any]) -> list[str]:
    """The score with inherited weights, and why it is not the accuracy of the network; nothing where there is none."""
    rows = [row for row in result.get("score_sheet", ()) if row["what"] == INHERITED]
    if not rows or rows[0]["value"] is None:
        return []
    row, said, sampled = rows[0], result.get("confidence") or {}, result["scores"]["last_epoch_mean"]
    if said.get("left_out"):
        used = said["edges"] - said["left_out"]
        why = f"it keeps {used} of {said['edges']} edges, and the shared weights were trained with all of them"
    else:
        why = "its weights were trained as part of many networks"
    return [
        f"with inherited weights the network scores {row['value']:.4f} ({row['split']}), sampled architectures "
        f"{sampled:.4f} in the last epoch:",
        f"  not the accuracy of this network, train it ({why})",
    ]


def _resampled(resampling: Mapping[str, Any]) -> str:
    rows, edges = [row for row in resampling["edges"] if row["operation"] is not None], len(resampling["edges"])
    stay = sum(row["stays"] >= STAYS for row in rows)
    return (
        f"{stay} of {len(rows)} chosen operations stay in {STAYS:.0%} of {resampling['resamples']} resamples of the "
        f"epochs; {resampling['same_network']:.0%} give this network, half differ on "
        f"{resampling['median_distance']:g} or more of {edges} edges"
    )


def _verdict(said: Mapping[str, Any]) -> str:
    end = "this network stands out from the next ones" if said["stands_out"] else EQUALS
    if "lead" not in said:
        return end
    networks = said["lead"]["networks"]
    first = networks[0]["standard_errors"]
    lead = "by more than its records vary" if first is None else f"by {first:.1f} standard errors"
    if networks[0]["lead"] == 0.0:
        lead = "by nothing"
    close = f"{said['lead']['close']} of the next {len(networks)} within 2"
    return f"E[alpha] leads the next network {lead} ({close}): {end}"


def _mistakes(prunings: Mapping[str, Any]) -> str:
    worst = prunings["worst"][0]
    return (
        f"{prunings['expected_mistakes']:.1f} of {prunings['known']} prunings are expected to have removed an edge's "
        f"best operation; the most probable: '{worst['pruned']}' on {worst['edge']} in round {worst['round'] + 1} "
        f"({worst['p_best_pruned']:.2f})"
    )
