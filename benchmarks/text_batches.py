"""How long GLUE tasks take to read and encode, and how much of their batches is padding.

python benchmarks/text_batches.py shared/data/glue cola mrpc sst2
"""

from __future__ import annotations

import argparse
import time

from tokenizers import BertWordPieceTokenizer

from ddpnas_ray.data.batches import epoch_order
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.tasks.text.task import make

SIZE = 32


def main() -> None:
    """Print one row per task."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", help="folder of GLUE's tasks")
    parser.add_argument("tasks", nargs="+")
    args = parser.parse_args()
    print("| task | training examples | read, trained, encoded | epoch of batches | tokens a batch | padding | "
          "padding of random batches | vocabularies of 3 trainings: ours, the library's |")  # fmt: skip
    print("| --- " * 8 + "|")
    for name in args.tasks:
        start = time.perf_counter()
        task = make(DataConfig(path=args.path), 0, glue=(name,))
        made_s, start = time.perf_counter() - start, time.perf_counter()
        padded = [batch.inputs["input_ids"].numel() for batch in task.training_batches(0, 0, SIZE)]
        batches_s = time.perf_counter() - start
        lengths = task.train.lengths_N
        real = sum(int(batch.inputs["attention_mask"].sum()) for batch in task.training_batches(0, 0, SIZE))
        random = sum(int(lengths[rows].max()) * len(rows) for rows in epoch_order(len(lengths), SIZE, 0, 0))
        texts = [column for rows in task.sources[0].read("train").values() for column in rows.texts]
        ours = {make(DataConfig(path=args.path), 0, glue=(name,)).digest for _ in range(2)} | {task.digest}
        library = set()
        for _ in range(3):
            tokenizer = BertWordPieceTokenizer(lowercase=True)
            tokenizer.train_from_iterator((t for column in texts for t in column), vocab_size=8000, show_progress=False)
            library.add(tuple(sorted(tokenizer.get_vocab().items())))
        print(f"| {name} | {len(lengths):,} | {made_s:.1f} s | {batches_s:.2f} s | {real / len(padded):.0f} | "
              f"{sum(padded) / real - 1:.1%} | {random / real - 1:.0%} | {len(ours)}, {len(library)} |")  # fmt: skip


if __name__ == "__main__":
    main()
