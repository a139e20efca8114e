"""Fingerprints of small searches before and after a refactoring.

Digits and CIFAR-10 (cell space), CIFAR-10 (mobile space), NAS-Bench-201's table (`pruning` and `surrogate`), in
process. About a minute on one core. `--write FILE` records the fingerprints, `--compare FILE` compares with recorded
ones; exit code 1 if one differs. Fingerprints are equal on one kind of device only, so record and compare on one
machine.

    python benchmarks/refactoring.py --write before.json      # on the old commit
    python benchmarks/refactoring.py --compare before.json    # on the new one
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("DDPNAS_TEST_DATA", ROOT.parent / "shared" / "data")).resolve()
SMALL = ("training.batch_size=32", "data.train_limit=100", "data.val_limit=100", "training.bn_images=64")
TABLE = f"evaluation.table={DATA / 'nasbench201' / 'nasbench201_cifar10.parquet'}"
SEARCHES: dict[str, tuple[str | None, tuple[str, ...]]] = {
    "digits": (None, ("space.cells=2", "space.channels=8", "pruning.epochs_per_round=1", *SMALL)),
    "cifar10": (
        "cifar10_cell_cpu.yaml",
        (
            "space.cells=2",
            "data.image_size=16",
            "pruning.epochs_per_round=1",
            f"data.path={DATA / 'cifar10-small'}",
            *SMALL,
        ),
    ),
    "mobile": (
        "cifar10_mobile_cpu.yaml",
        (
            "space.depths=[2,2,1,1,1,1]",
            "data.image_size=16",
            "pruning.epochs_per_round=1",
            f"data.path={DATA / 'cifar10-small'}",
            *SMALL,
        ),
    ),
    "tabular, pruning": ("nasbench201_table.yaml", ("strategy=pruning", TABLE)),
    "tabular, surrogate": ("nasbench201_table.yaml", ("strategy=surrogate", "evaluation.budget=42", TABLE)),
}


def fingerprint(config: str | None, overrides: tuple[str, ...]) -> str:
    """Run one search in a separate process, and recompute its fingerprint from the files."""
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder) / "run")
        words = ["--out", out, "--set", "execution.backend=local"]
        words += ["--config", str(ROOT / "configs" / config)] if config else []
        words += [word for override in overrides for word in ("--set", override)]
        for command in (["search", *words], ["report", out, "--verify-fingerprint"]):
            run = subprocess.run([sys.executable, "-m", f"ddpnas_ray.{command[0]}", *command[1:]], capture_output=True)
            if run.returncode != 0:
                raise SystemExit(run.stderr.decode())
    return run.stdout.decode().split()[0]


def main() -> int:
    """Print a table; returns 1 if a fingerprint differs from the recorded one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", metavar="FILE", type=Path)
    parser.add_argument("--compare", metavar="FILE", type=Path)
    args = parser.parse_args()
    recorded = json.loads(args.compare.read_text()) if args.compare else {}
    found = {}
    for name, (config, overrides) in SEARCHES.items():
        start = time.perf_counter()
        found[name] = fingerprint(config, overrides)
        verdict = "" if not recorded else "equal" if recorded.get(name) == found[name] else "DIFFERS"
        print(f"{name:20} {found[name][:16]}  {time.perf_counter() - start:5.1f} s  {verdict}", flush=True)
    if args.write:
        args.write.write_text(json.dumps(found, indent=2) + "\n")
    return int(bool(recorded) and recorded != found)


if __name__ == "__main__":
    sys.exit(main())
