"""Draw networks of layers with attention heads and feed-forward widths, such as those of space ``bert``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from ddpnas_ray.reporting.svg import Frame, figure, number, tag

ROW, HEAD, LABEL, BAR, GAP, TOP = 24.0, 12.0, 62.0, 260.0, 28.0, 22.0  # in pixels


def draw_layers(genotype: Mapping[str, Any]) -> Markup | None:
    """Draw one row per layer: a square per head, and a bar as long as the feed-forward part is wide.

    Layers that are left out below the last one have a dashed row.

    Args:
        genotype: ``{"layers": [0, 2, ...], "heads": [8, 12, ...], "ffn": [512, 3072, ...]}``.

    Returns:
        The figure; None for genotypes of another form.
    """
    if any(not isinstance(genotype.get(key), (list, tuple)) for key in ("layers", "heads", "ffn")):
        return None
    sizes = dict(zip(genotype["layers"], zip(genotype["heads"], genotype["ffn"], strict=True), strict=True))
    if not sizes:
        return None
    most_heads, widest = max(heads for heads, _ in sizes.values()), max(ffn for _, ffn in sizes.values())
    bars = LABEL + most_heads * HEAD + GAP
    count = max(sizes) + 1
    frame = Frame(
        width=bars + BAR + 60, height=TOP + count * ROW + 8, left=0, right=0, top=0, bottom=0, x=(0, 1), y=(0, 1)
    )
    parts = [tag("text", "heads", x=LABEL, y=14.0), tag("text", "feed-forward", x=bars, y=14.0)]
    for layer in range(count):
        top = TOP + layer * ROW
        parts.append(tag("text", f"layer {layer}", x=4.0, y=top + 14))
        if layer not in sizes:
            dashed = {"x": LABEL, "y": top + 2, "width": bars + BAR - LABEL, "height": ROW - 8}
            parts.append(tag("g", tag("title", "left out"), tag("rect", class_="box out", **dashed)))
            continue
        heads, ffn = sizes[layer]
        squares = [
            tag("rect", class_="box op0", x=LABEL + i * HEAD, y=top + 3, width=HEAD - 3, height=HEAD + 2)
            for i in range(heads)
        ]
        parts.append(tag("g", tag("title", f"layer {layer}: {heads} heads"), *squares))
        width = BAR * ffn / widest
        parts.append(tag("rect", class_="box op1", x=bars, y=top + 3, width=width, height=HEAD + 2))
        parts.append(tag("text", str(ffn), x=bars + width + 6, y=top + 14))
    style = f"width:{number(frame.width)}px;max-width:100%;min-width:{number(0.8 * frame.width)}px"
    return figure(frame, _text(sizes), *parts, class_="cell", style=style)


def _text(sizes: Mapping[int, tuple[int, int]]) -> str:
    return "; ".join(f"layer {layer}: {heads} heads, feed-forward {ffn}" for layer, (heads, ffn) in sizes.items())
