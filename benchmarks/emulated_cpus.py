"""Fingerprints of small searches on this CPU and on emulated ones, by ``training.cpu_isa``.

Needs QEMU's user mode (`qemu-x86_64`, 7.2 or newer for AVX2), which emulates the named CPU: libraries see its CPUID,
and unsupported instructions crash. Emulated processes take 30 to 100 times as long, so the searches are tiny: every
operation of the cell and of the mobile space once, by random search, and a whole search by pruning. Prints a table;
exit code 1 if a level has several fingerprints.

    python benchmarks/emulated_cpus.py --data CIFAR10                # 20 minutes on a quiet core
    python benchmarks/emulated_cpus.py --data CIFAR10 --levels sse41 --hosts native Nehalem EPYC
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

from ddpnas_ray.training.device import level_variables

ROOT = Path(__file__).parent.parent
HOSTS = ("native", "Nehalem", "Haswell", "EPYC")  # SSE4.2; AVX2; AVX2 of AMD
SMALL = (
    *("execution.backend=local", "data.train_limit=48", "data.val_limit=32", "pruning.epochs_per_round=1"),
    *("training.batch_size=24", "training.bn_images=24"),
)
CELL = ("space.cells=2", "space.nodes=2", "space.channels=4", "target.cells=3", "target.channels=4")
MOBILE = ("space.depths=[1,1,1,1,1,1]", "data.image_size=8")
SEARCHES = {
    "cell": (None, (*CELL, "strategy=random", "evaluation.budget=8")),
    "mobile": ("cifar10_mobile_cpu.yaml", (*MOBILE, "strategy=random", "evaluation.budget=6")),
    "pruning": (None, CELL),
}


def fingerprint(host: str, level: str, config: str | None, keys: tuple[str, ...]) -> str:
    """Search in a process on one host, at one level (``null``: the libraries' choice)."""
    words = [sys.executable, "-m", "ddpnas_ray.search", "--out", "none", "--json"]
    words += ["--config", str(ROOT / "configs" / config)] if config else []
    words += [word for key in (*SMALL, *keys) for word in ("--set", key)]
    environment = os.environ | level_variables(None if level == "null" else level)  # before NumPy and torch load
    emulator = [] if host == "native" else ["qemu-x86_64", "-cpu", host]
    run = subprocess.run([*emulator, *words], env=environment, capture_output=True, text=True)
    if run.returncode != 0:
        raise SystemExit(f"{host}, {level}: {run.stderr.strip().splitlines()[-1]}")
    return str(json.loads(run.stdout)["fingerprint"])[:10]


def main() -> int:
    """Print a table; returns 1 if a level has several fingerprints of one search."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, metavar="DIR", help="CIFAR-10, for the mobile space")
    parser.add_argument("--levels", nargs="+", default=["null", "sse41", "avx2"])
    parser.add_argument("--hosts", nargs="+", default=HOSTS, metavar="HOST", help="native, or a CPU of QEMU")
    args = parser.parse_args()
    differs = False
    for level in args.levels:
        for name, (config, keys) in SEARCHES.items():
            data = (f"data.path={args.data}",) if config else ()
            hosts = [host for host in args.hosts if (host, level) != ("Nehalem", "avx2")]
            found = {host: fingerprint(host, level, config, (*keys, *data)) for host in hosts}
            print(f"{level:6} {name:8}", *(f"{host} {value}" for host, value in found.items()), sep="  ", flush=True)
            differs |= level != "null" and len(set(found.values())) > 1
    return int(differs)


if __name__ == "__main__":
    sys.exit(main())
