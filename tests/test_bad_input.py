"""Bad input gets one line on stderr (where, what was given, what is allowed, a hint), exit code 2, and no file.

Run directories and machines are in test_bad_runs.py.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ddpnas_ray import check, cli, report, search
from tests.commands import LOCAL, Command, Refused, options
from tests.conftest import TINY
from tests.data.making import encoded, image, write_folder, write_parquet
from tests.score_tables import write_table

# --- configuration ---


def test_an_unknown_key_names_file_key_and_likely_meaning(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "cifar10_cell.yaml").write_text("pruning: {epoch_per_round: 3}")
    assert refused(search.main, ["--config", "configs/cifar10_cell.yaml"]) == (
        "ConfigError: configs/cifar10_cell.yaml: pruning.epoch_per_round is not a key; "
        "did you mean pruning.epochs_per_round?"
    )


@pytest.mark.parametrize("command", [search.main, check.main])
@pytest.mark.parametrize(
    ("override", "fragments"),
    [
        ("pruning.epoch_per_round=3", ["pruning.epoch_per_round is not a key", "mean pruning.epochs_per_round?"]),
        ("trainng.lr=0.1", ["trainng is not a key", "did you mean training?"]),
        ("zzz=1", ["zzz is not a key", "allowed: data, evaluation, evolution, execution, finals, multinomial"]),
        ("pruning.gamma=high", ["pruning.gamma is 'high'", "valid number"]),
        ("training.channels_last=1", ["training.channels_last is 1", "valid boolean"]),
        ("pruning.gamma=2", ["pruning.gamma is 2", "less than 1"]),
        ("training.batch_size=1", ["training.batch_size is 1", "greater than or equal to 2"]),
        ("training.lr=.nan", ["training.lr is nan", "finite number"]),
        ("training.lr=.inf", ["training.lr is inf", "finite number"]),
        ("training.lr=null", ["training.lr is", "valid number"]),
        ("seed=null", ["seed is", "valid integer"]),
        ("seed=-1", ["seed is -1", "greater than or equal to 0"]),
        ("training.merge=average", ["training.merge is 'average'", "'mean', 'sequential' or 'none'"]),
        ("training.merge=sequential", ["training.merge", "needs execution.backend=local"]),
        ("execution.workers=0", ["execution.workers is 0", "greater than or equal to 1"]),
        ("execution.workers=-1", ["execution.workers is -1", "greater than or equal to 1"]),
        ("execution.gpus_per_worker=-1", ["execution.gpus_per_worker is -1", "greater than or equal to 0"]),
        ("pruning.gamma", ["--set pruning.gamma:", "give section.key=value", "--set pruning.gamma=0.8"]),
        ("=3", ["--set =3:", "give section.key=value"]),
        ("seed.x=1", ["--set seed.x=1:", "seed is a value, not a section"]),
        ("seed=[", ["--set seed=[:", "not a YAML value"]),
        ("seed=2024-13-45", ["--set seed=2024-13-45:", "not a YAML value"]),
        ("pruning=3", ["pruning: expected a section with keys, got 3"]),
        ("space=3", ["space: expected a section such as {name: cell}, got 3"]),
        ("space.name=cel", ["space.name: 'cel' is not a built-in space or module:function", "did you mean cell?"]),
        ("space.name=no_such_lab:make", ["'no_such_lab:make' cannot be imported", "PYTHONPATH"]),
        ("space.name=json:make", ["'json:make' cannot be imported", "PYTHONPATH"]),
        ("space.name=json:__all__", ["'json:__all__' is a list", "a function that returns a SpaceSpec is needed"]),
        ("space.node=2", ["space.node is not an option of space 'cell'", "did you mean nodes?"]),
        ("space.nodes=9", ["space.nodes is 9", "less than or equal to 8"]),
        ("data.name=mnist", ["data.name: 'mnist' is not a built-in data set", "allowed: cifar10, digits, folder"]),
        ("data.channels=2", ["data.channels is 2", "1 or 3"]),
        (
            "data.path=photos",
            ["data.path is for cifar10, folder", "only, not for digits; remove it"],
        ),
        ("data.mean=[0.1,0.2]", ["data.mean has 2 numbers", "give 1"]),
        ("data.crop=8", ["data.crop=8 could blank whole images of 8 pixels"]),
        ("data.train_limit=3", ["data.train_limit=3 is less than one example per class (10 classes)", "raise it"]),
        (
            "strategy=greedy",
            ["strategy: 'greedy' is not a built-in strategy", "allowed: evolution, multinomial, optuna, pruning"],
        ),
        ("strategy=randm", ["strategy: 'randm' is not a built-in strategy", "did you mean random?"]),
        ("strategy=no_such_lab:make", ["'no_such_lab:make' cannot be imported", "PYTHONPATH"]),
        ("strategy=7", ["strategy: expected a name, got 7"]),
        ("evolution.population=1", ["evolution.population is 1", "greater than or equal to 2"]),
        ("surrogate.group_distance=2", ["surrogate.group_distance is 2", "less than or equal to 1"]),
        ("evaluation.budget=0", ["evaluation.budget is 0", "greater than or equal to 1"]),
        (
            "evaluation.budget=98",
            [
                "evaluation.budget is 98: pruning needs 99 evaluations in space 'cell'",
                "raise the former or lower the latter",
            ],
        ),
        ("evaluation.training=sometimes", ["evaluation.training is 'sometimes'", "'mean' or 'random'"]),
        (
            "evaluation.kind=table",
            ["evaluation.table is missing; evaluation.kind=table needs a Parquet file"],
        ),
        ("evaluation.table=none.parquet", ["evaluation.table: none.parquet cannot be read: No such file or directory"]),
        ("evaluation.probe=8", ["evaluation.probe is 8; it compares a supernet with a table", "or remove it"]),
        (
            "evaluation={kind: table, table: none.parquet, probe: 8}",
            ["evaluation.probe is 8; it compares a supernet with a table", "set evaluation.kind=supernet"],
        ),
    ],
)
def test_an_override_that_is_not_allowed(
    refused: Refused, command: Command, override: str, fragments: list[str]
) -> None:
    refused(command, options(override), *fragments)


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        (b"pruning: [3\n", ["a.yaml: line 2: is not valid YAML"]),
        (b"seed: \xff\n", ["a.yaml: is not UTF-8 text", "--config takes a YAML file"]),
        (b'seed: "\x01"\n', ["a.yaml: is not valid YAML", "special characters are not allowed"]),
        (b"- seed\n", ["a.yaml: expected sections such as 'training: {lr: 0.025}', got a list"]),
        (b"seed: 1\nseed: 2\n", ["a.yaml: line 1: is not valid YAML: duplicate key 'seed'"]),
        (b"seed: 2024-13-45\n", ["a.yaml: is not valid YAML: month must be in 1..12"]),
        (b"seed: !!python/object:os.system {}\n", ["a.yaml: line 1: is not valid YAML"]),
        (b"1: 2\n", ["a.yaml: 1 is not a key", "allowed: data,"]),
        (b"? [1]\n: 2\n", ["a.yaml: line 1: is not valid YAML"]),
        (b"training: 3\n", ["a.yaml: training: expected a section with keys, got 3"]),
    ],
)
def test_a_file_that_is_no_configuration(
    refused: Refused, tmp_path: Path, content: bytes, fragments: list[str]
) -> None:
    (tmp_path / "a.yaml").write_bytes(content)
    refused(search.main, ["--config", "a.yaml"], *fragments)


def test_a_configuration_that_cannot_be_read(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    hint = "--config takes a YAML file"
    refused(search.main, ["--config", "none.yaml"], "none.yaml: cannot be read: No such file or directory", hint)
    refused(search.main, ["--config", "folder"], "folder: cannot be read: Is a directory", hint)


# --- words ---


@pytest.mark.parametrize(
    ("command", "words", "fragment"),
    [
        (search.main, ["--colour"], "unrecognized arguments: --colour"),
        (search.main, ["run"], "unrecognized arguments: run"),
        (search.main, ["--reusme", "--out", "run"], "unrecognized arguments: --reusme"),
        (search.main, ["--set"], "--set: expected one argument"),
        (search.main, ["--time-limit", "soon"], "--time-limit: 'soon' is not a duration; examples: 90s, 30m, 1.5h"),
        (search.main, ["--time-limit", "0"], "--time-limit: '0' is not a duration"),
        (search.main, ["--time-limit", "-3"], "--time-limit: '-3' is not a duration"),
        (search.main, ["--time-limit", "2 parsecs"], "--time-limit: '2 parsecs' is not a duration"),
        (check.main, ["--cells", "many"], "--cells: invalid int value: 'many'"),
        (check.main, ["--stem", "resnet"], "--stem: invalid choice: 'resnet'"),
        (report.main, [], "the following arguments are required: RUN"),
        (cli.main, ["search", "--colour"], "unrecognized arguments: --colour"),
    ],
)
def test_words_that_are_not_understood(refused: Refused, command: Command, words: list[str], fragment: str) -> None:
    assert refused(command, words, fragment).endswith("; see --help")


def test_an_unknown_command(refused: Refused) -> None:
    refused(cli.main, ["serch"], "serch is not a command; did you mean search?")
    refused(cli.main, ["xyz"], f"xyz is not a command; allowed: {', '.join(sorted(cli.COMMANDS))}")


# --- genotypes ---

PAIRS: list[Any] = [["sep_conv_3x3", 0], ["skip_connect", 1]]


@pytest.mark.parametrize(
    ("content", "fragments"),
    [
        ("", ["g.json: is not valid JSON", "give a JSON file with the keys normal and reduce"]),
        ('{"normal": [', ["g.json: is not valid JSON", "give a JSON file with the keys normal and reduce"]),
        ("[]", ["g.json", "the key 'normal' with a list of [operation, input] pairs is missing"]),
        ({"reduce": PAIRS}, ["g.json", "the key 'normal' with a list"]),
        ({"normal": PAIRS, "reduce": 3}, ["g.json", "the key 'reduce' with a list"]),
        (
            {"normal": [["sep_conv_3x", 0], PAIRS[1]], "reduce": PAIRS},
            ["g.json", "normal[0]: 'sep_conv_3x' is not an operation", "did you mean sep_conv_3x3?"],
        ),
        ({"normal": PAIRS[:1], "reduce": PAIRS}, ["g.json", "normal has 1 pairs, 1 nodes need 2"]),
        ({"normal": PAIRS * 2, "reduce": PAIRS}, ["g.json", "reduce has 2 pairs, 2 nodes need 4"]),
        (
            {"normal": PAIRS, "reduce": [PAIRS[0], ["skip_connect", 2]]},
            ["g.json", "reduce[1]: input 2; node 0 has inputs 0..1"],
        ),
        ({"normal": PAIRS, "reduce": [PAIRS[0], ["skip_connect", -1]]}, ["reduce[1]: input -1; node 0 has"]),
        ({"normal": PAIRS, "reduce": [PAIRS[0], ["skip_connect", 0]]}, ["reduce[1]: node 0 takes input 0 twice"]),
        ({"normal": PAIRS, "reduce": [PAIRS[0], "skip_connect"]}, ["reduce[1] is 'skip_connect'; a pair"]),
        (
            {"normal": PAIRS, "reduce": [PAIRS[0], ["none", 1]]},
            ["reduce[1]: 'none' is not an operation", "skip_connect"],
        ),
        ({"normal": PAIRS, "reduce": PAIRS, "normal_concat": [1, 2]}, ["normal_concat is [1, 2]", "[2]"]),
        ({"normal": PAIRS, "reduce": PAIRS, "normal_concat": 2}, ["normal_concat is 2", "[2]"]),
    ],
)
def test_a_genotype_that_describes_no_cell(
    refused: Refused, tmp_path: Path, content: Any, fragments: list[str]
) -> None:
    (tmp_path / "g.json").write_text(content if isinstance(content, str) else json.dumps(content))
    refused(check.main, ["--genotype", "g.json"], *fragments)


@pytest.mark.parametrize("option", ["--channels", "--cells", "--image-size", "--classes", "--input-channels"])
@pytest.mark.parametrize("value", ["0", "-3"])
def test_a_target_of_nothing(refused: Refused, tmp_path: Path, option: str, value: str) -> None:
    (tmp_path / "g.json").write_text(json.dumps({"normal": PAIRS, "reduce": PAIRS}))
    refused(check.main, ["--genotype", "g.json", option, value], f"{option} is {value}; it must be at least 1")


def test_a_genotype_that_cannot_be_read(refused: Refused, tmp_path: Path) -> None:
    (tmp_path / "binary.json").write_bytes(b"\xff")
    hint = "give a JSON file with the keys normal and reduce"
    refused(check.main, ["--genotype", "none.json"], "none.json: No such file or directory", hint)
    refused(check.main, ["--genotype", "."], ".: Is a directory", hint)
    refused(check.main, ["--genotype", "binary.json"], "binary.json: is not valid JSON", hint)
    refused(check.main, ["--genotype", ""], hint)


# --- data ---


def folder_with(*broken: str | bytes) -> Callable[[Path], Path]:
    """Two classes of two images; the last one has other bytes."""

    def make(root: Path) -> Path:
        write_folder(root / "photos", {"cat": 2, "dog": 2})
        for content in broken:
            data = content.encode() if isinstance(content, str) else content
            (root / "photos" / "dog" / "001.png").write_bytes(data)
        return root / "photos"

    return make


def empty_folder(root: Path) -> Path:
    (root / "photos").mkdir()
    return root / "photos"


def loose_images(root: Path) -> Path:
    image(0).save(empty_folder(root) / "a.png")
    return root / "photos"


def empty_class(root: Path) -> Path:
    (folder_with()(root) / "bird").mkdir()
    return root / "photos"


def mixed_sizes(root: Path) -> Path:
    write_folder(folder_with()(root), {"bird": 2}, size=(12, 9))
    return root / "photos"


def grey_and_colour(root: Path) -> Path:
    write_folder(folder_with()(root), {"bird": 2}, mode="L")
    return root / "photos"


def not_square(root: Path) -> Path:
    return write_folder(root / "photos", {"cat": 2, "dog": 2}, size=(12, 9))


def a_file(root: Path) -> Path:
    (root / "photos").write_text("")
    return root / "photos"


@pytest.mark.parametrize("command", [search.main, check.main])
@pytest.mark.parametrize(
    ("make", "fragments"),
    [
        (lambda root: root / "photos", ["photos: no such folder; set data.path"]),
        (a_file, ["photos: not a folder; set data.path"]),
        (empty_folder, ["photos: no class folders (0 images directly in it)", "CLASS/NAME.png"]),
        (loose_images, ["photos: no class folders (1 images directly in it)", "CLASS/NAME.png"]),
        (empty_class, ["photos/bird: no images in this class folder; add some", "or remove it"]),
        (folder_with(encoded(image(0), "JPEG")[:200]), ["photos/dog/001.png: damaged image"]),
        (folder_with("text"), ["photos/dog/001.png: not an image that Pillow can read (4 bytes)"]),
        (folder_with(b""), ["photos/dog/001.png: not an image that Pillow can read (0 bytes)"]),
        (lambda root: write_folder(root / "photos", {"cat": 4}), ["only one class ('cat'); a search needs at least 2"]),
        (
            lambda root: write_folder(root / "photos", {"cat": 4, "dog": 1}),
            ["class 'dog' has 1 example", "add"],
        ),
        (grey_and_colour, ["images mix", "set data.channels=1 or data.channels=3"]),
        (mixed_sizes, ["images have several sizes: ", "set data.image_size="]),
        (not_square, ["images are 12x9, not square", "set data.image_size=9 to resize them"]),
    ],
)
def test_a_folder_that_is_no_data_set(
    refused: Refused, tmp_path: Path, command: Command, make: Callable[[Path], Path], fragments: list[str]
) -> None:
    path = make(tmp_path)
    refused(command, [*LOCAL, *options("data.name=folder", f"data.path={path}")], *fragments)


def test_own_validation_data_that_do_not_fit(refused: Refused, tmp_path: Path) -> None:
    words = [*LOCAL, *options("data.name=folder", f"data.path={folder_with()(tmp_path)}")]
    refused(search.main, [*words, *options("data.val_path=val")], "val: no such file or folder", "remove data.val_path")
    write_folder(tmp_path / "val", {"cat": 1, "cow": 1})
    refused(search.main, [*words, *options("data.val_path=val")], "class 'cow', which the training data lacks")


def test_a_folder_without_a_path(refused: Refused) -> None:
    refused(search.main, options("data.name=folder"), "data.name=folder needs data.path", "one folder of images")


def label_too_large(path: Path) -> None:
    write_parquet(path, [*range(10), 10], names=[f"class {i}" for i in range(10)])


def no_image_column(path: Path) -> None:
    pq.write_table(pa.table({"label": [0, 1], "text": ["a", "b"]}), path)


def damaged_row(path: Path) -> None:
    write_parquet(path, [0, 1, 0, 1], images=[*(encoded(image(i)) for i in range(3)), encoded(image(3), "JPEG")[:150]])


@pytest.mark.parametrize(
    ("make", "more", "fragments"),
    [
        (lambda path: None, [], ["a.parquet: no such file or folder; set data.path"]),
        (lambda path: path.mkdir(), [], ["a.parquet: no train*.parquet in it; it has no Parquet files"]),
        (lambda path: path.write_bytes(b"PAR1"), [], ["a.parquet: cannot be read as Parquet"]),
        (no_image_column, [], ["a.parquet: no column holds images (bytes); its columns are label (int64), text"]),
        (
            label_too_large,
            [],
            ["label out of range: ", "a.parquet, row 10 has label 10, but there are 10 class names (0 to 9)"],
        ),
        (damaged_row, [], ["a.parquet, row 3: damaged image"]),
        (lambda path: write_parquet(path, [0, 1, None, 1]), [], ["a.parquet, row 2: no label", "drop such rows"]),
        (
            lambda path: write_parquet(path, [0, 1, 0, 1]),
            ["data.image_column=imag"],
            ["a.parquet: no column 'imag' (data.image_column); did you mean image?"],
        ),
        (
            lambda path: write_parquet(path, [0, 1, 0, 1]),
            ["data.label_column=image"],
            ["data.label_column=image cannot hold labels"],
        ),
    ],
)
def test_a_parquet_file_that_is_no_data_set(
    refused: Refused, tmp_path: Path, make: Callable[[Path], Any], more: list[str], fragments: list[str]
) -> None:
    make(tmp_path / "a.parquet")
    refused(search.main, [*LOCAL, *options("data.name=parquet", "data.path=a.parquet", *more)], *fragments)


def test_cifar10_without_a_network_says_how_to_get_it_by_hand(
    refused: Refused, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torchvision.datasets import CIFAR10

    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(CIFAR10, "url", "http://127.0.0.1:9/cifar-10-python.tar.gz")  # with a network, do not use it
    start = time.monotonic()
    refused(search.main, options("data.name=cifar10"), "cannot be downloaded", "set data.path to it")
    assert time.monotonic() - start < 10


# --- tables of scores ---


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A table of all networks of NAS-Bench-201's space."""
    return write_table(tmp_path_factory.mktemp("scores") / "made.parquet")


@pytest.mark.parametrize(
    ("more", "fragments"),
    [
        (
            ["space={name: cell}"],
            ["made.parquet: row 0: alpha [0, 0, 0, 0, 0, 0] is not an architecture of space 'cell'"],
        ),
        (
            ["evaluation.score=made_test_e200"],
            ["evaluation.score: made_test_e200 is a column of the test split; val is needed"],
        ),
        (
            ["evaluation.final=made_val_e12"],
            ["evaluation.final: made_val_e12 is a column of the val split; test is needed"],
        ),
        (["evaluation.score=made_val_e21"], ["made.parquet has no column 'made_val_e21'; did you mean made_val_e12?"]),
        (["evaluation.training=777"], ["evaluation.training is 777: ", "has no single trainings of made_val_e12"]),
        (["evaluation.training=random"], ["evaluation.training is random: ", "mean takes the column itself"]),
        (
            ["strategy=pruning", "evaluation.budget=35"],
            ["evaluation.budget is 35: pruning needs 36", "raise the former or lower the latter"],
        ),
    ],
)
@pytest.mark.parametrize("kept", [[], ["--out", "none"]])
def test_a_table_that_is_not_what_the_search_needs(
    refused: Refused, scores: Path, more: list[str], fragments: list[str], kept: list[str]
) -> None:
    words = options("space={name: nasbench201}", "evaluation.kind=table", f"evaluation.table={scores}", *more)
    refused(search.main, [*words, *kept], *fragments)


@pytest.mark.parametrize("kind", ["table", "supernet"])
def test_a_file_that_is_no_table(refused: Refused, tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.parquet").write_text("alpha,score\n")
    words = [*LOCAL, *options(f"evaluation.kind={kind}", "evaluation.table=a.parquet")]
    refused(search.main, words, "evaluation.table: a.parquet cannot be read: ", "a Parquet file is needed")


def test_workers_need_a_run_directory(refused: Refused) -> None:
    hint = "set execution.backend=local"
    refused(search.main, [*options(*TINY), "--out", "none"], "--out none: a search on Ray needs a run directory", hint)
    refused(search.main, [*LOCAL, "--out", "none", "--resume"], "--resume needs the run directory; give it with --out")


def test_without_images_there_is_nothing_to_check(refused: Refused, scores: Path) -> None:
    words = options("space={name: nasbench201}", "evaluation.kind=table", f"evaluation.table={scores}")
    refused(check.main, words, "evaluation.kind is table, which trains nothing; set evaluation.kind=supernet")
