"""Print what a benchmark prints as JSON: its facts (the list) and its tables, one object a row.

    python benchmarks/path_step.py | python benchmarks/as_json.py > path_step.json

A cell that is a number becomes one, ``94.09 +- 0.42 (0.61)`` becomes the list of its numbers, and the rest stays text.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from typing import Any

NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?(?:e[-+]?\d+)?")


def read(lines: Iterable[str]) -> dict[str, Any]:
    """Read facts and tables from Markdown.

    Example:
        >>> read(["- 2 cores", "", "| name | s |", "| --- | --- |", "| a | 1.5 |", "| b | 2 +- 0.1 |"])
        {'facts': ['2 cores'], 'tables': [[{'name': 'a', 's': 1.5}, {'name': 'b', 's': [2.0, 0.1]}]]}
    """
    facts, tables, header = list[str](), list[list[dict[str, Any]]](), list[str]()
    for line in map(str.strip, lines):
        if line.startswith("- "):
            facts.append(line[2:])
        if not line.startswith("|"):
            header = []
            continue
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not header:
            header = cells
            tables.append([])
        elif not all(re.fullmatch(r":?-+:?", cell) for cell in cells):
            tables[-1].append(dict(zip(header, map(value, cells), strict=False)))
    return {"facts": facts, "tables": tables}


def value(cell: str) -> Any:
    """Return a cell's number, its numbers if nothing but ``+-`` and brackets is between them, or its text.

    Example:
        >>> value("249,242"), value("94.09 +- 0.42 (0.61)"), value("e12, 3 seeds"), value("2 x 3")
        (249242.0, [94.09, 0.42, 0.61], 'e12, 3 seeds', '2 x 3')
    """
    numbers = [float(found.replace(",", "")) for found in NUMBER.findall(cell)]
    if not numbers or NUMBER.sub("", cell).replace("+-", "").strip(" ()%*"):
        return cell
    return numbers[0] if len(numbers) == 1 else numbers


if __name__ == "__main__":
    print(json.dumps(read(sys.stdin), indent=1))
