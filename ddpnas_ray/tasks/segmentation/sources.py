"""Where images and masks are: Cityscapes, CamVid, Parquet files, or two folders of your own."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from ddpnas_ray.core.errors import ConfigError, DataError
from ddpnas_ray.data.config import DataConfig
from ddpnas_ray.data.decoding import ImageSource, source_name
from ddpnas_ray.data.folder import image_files
from ddpnas_ray.data.parquet import read_table, split_files
from ddpnas_ray.data.paths import Paths
from ddpnas_ray.data.problems import Problems
from ddpnas_ray.data.raw import SplitName
from ddpnas_ray.data.tables import choose_image_columns, image_pairs
from ddpnas_ray.tasks.segmentation.masks import Labelling

Palette = tuple[tuple[int, int, int], ...]

CITYSCAPES: dict[str, tuple[int, tuple[int, int, int]]] = {  # class: its id in *_labelIds.png, and its colour
    "road": (7, (128, 64, 128)),
    "sidewalk": (8, (244, 35, 232)),
    "building": (11, (70, 70, 70)),
    "wall": (12, (102, 102, 156)),
    "fence": (13, (190, 153, 153)),
    "pole": (17, (153, 153, 153)),
    "traffic light": (19, (250, 170, 30)),
    "traffic sign": (20, (220, 220, 0)),
    "vegetation": (21, (107, 142, 35)),
    "terrain": (22, (152, 251, 152)),
    "sky": (23, (70, 130, 180)),
    "person": (24, (220, 20, 60)),
    "rider": (25, (255, 0, 0)),
    "car": (26, (0, 0, 142)),
    "truck": (27, (0, 0, 70)),
    "bus": (28, (0, 60, 100)),
    "train": (31, (0, 80, 100)),
    "motorcycle": (32, (0, 0, 230)),
    "bicycle": (33, (119, 11, 32)),
}
CAMVID: dict[str, tuple[int, int, int]] = {  # class: its colour; ids are 0 to 10, and 11 is void
    "sky": (128, 128, 128),
    "building": (128, 0, 0),
    "pole": (192, 192, 128),
    "road": (128, 64, 128),
    "pavement": (60, 40, 222),
    "tree": (128, 128, 0),
    "sign symbol": (192, 128, 128),
    "fence": (64, 64, 128),
    "car": (64, 0, 128),
    "pedestrian": (64, 64, 0),
    "bicyclist": (0, 128, 192),
}
IMAGE_END, IDS_END, TRAIN_IDS_END = "_leftImg8bit.png", "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"
OWN_VOID = 255


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Listed:
    """A split as stored: N images, each with its mask.

    Args:
        images: The images.
        masks: Their masks.
        names: Names of the images in errors; None: their paths.
        origin: The file or folder, for errors.
        labelling: What the ids mean; None: every id of the training masks is a class.
        problems: Those of images or masks that were left out.
    """

    images: Sequence[ImageSource]
    masks: Sequence[ImageSource]
    names: Sequence[str] | None
    origin: str
    labelling: Labelling | None
    problems: Problems = field(default_factory=Problems)

    def __len__(self) -> int:
        return len(self.images)

    def name(self, index: int) -> str:
        """Name of an image in errors."""
        return source_name(self.images, self.names, index)

    def mask_name(self, index: int) -> str:
        """Name of its mask in errors."""
        return f"{self.names[index]} (mask)" if self.names is not None else source_name(self.masks, None, index)


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """The data that a configuration names.

    Args:
        data: Section ``data``.
        masks: Folder of the masks of ``data.path``.
        val_masks: That of ``data.val_path``.
        test_masks: That of ``data.test_path``.
        classes: Names of the classes, whose ids are 0, 1, ...; empty: those of the data.
        void: Id of pixels that do not count; None: that of the data; -1: none.
    """

    data: DataConfig
    masks: str | None = None
    val_masks: str | None = None
    test_masks: str | None = None
    classes: tuple[str, ...] = ()
    void: int | None = None

    def read(self, split: SplitName) -> Listed | None:
        """List a split; None: there is none.

        Raises:
            ConfigError: A key is missing.
            DataError: It cannot be read, or is empty.
        """
        listed = READERS[self.data.name](self, split)
        if listed is not None and not len(listed):
            listed.problems.refuse()
            raise DataError(f"{listed.origin}: no images; add some, or remove the split")
        return listed

    @property
    def palette(self) -> Palette | None:
        """Colours of the classes; None: the data declare none."""
        known = {"cityscapes": tuple(colour for _, colour in CITYSCAPES.values()), "camvid": tuple(CAMVID.values())}
        return known.get(self.data.name)

    @property
    def own_void(self) -> int | None:
        """Id of pixels that do not count, of data of one's own; None: there is none."""
        return None if self.void == -1 else OWN_VOID if self.void is None else self.void

    @property
    def labelling(self) -> Labelling | None:
        """What the ids of data of one's own mean, if their classes are named."""
        if not self.classes:
            return None
        return Labelling(self.classes, tuple(range(len(self.classes))), self.own_void)


def find_source(source: Source) -> Source:
    """Return the source if all of its keys apply to its data.

    Raises:
        ConfigError: One does not, or the data have no masks.
    """
    data = source.data
    if data.name not in READERS:
        raise ConfigError(
            f"data.name={data.name} has no masks; task.name=segmentation reads {', '.join(READERS)}: set data.name and "
            "data.path"
        )
    plain = DataConfig()
    instead = {"image_size": "task.size", "crop": "task.crop"}
    for key in ("image_size", "channels", "cache", "crop", "cutout"):
        if (value := getattr(data, key)) != getattr(plain, key):
            hint = f"set {instead[key]} instead" if key in instead else "remove it"
            raise ConfigError(f"data.{key} is {value!r}, which images with masks do not use: {hint}")
    keys = ALLOWED[data.name]
    for key in ("image_column", "label_column", "val_path", "test_path"):
        if getattr(data, key) is not None and key not in keys:
            raise ConfigError(f"data.{key} is not for data.name={data.name}; remove it")
    for key in ("masks", "val_masks", "test_masks", "void", "classes"):
        if getattr(source, key) not in (None, ()) and key not in keys:
            raise ConfigError(f"task.{key} is not for data.name={data.name}; remove it")
    for key, masks in (("path", "masks"), ("val_path", "val_masks"), ("test_path", "test_masks")):
        pair = getattr(data, key), getattr(source, masks)
        if data.name == "folder" and (pair[0] is None) != (pair[1] is None):
            given, missing = (f"data.{key}", f"task.{masks}")[:: 1 if pair[0] is not None else -1]
            raise ConfigError(f"{given} is set but {missing} is not; set both: a folder of images, and one of masks")
    if data.path is None:
        raise ConfigError(f"data.name={data.name} needs data.path, {WHAT[data.name]}")
    _refuse_classes(source)
    return source


def _refuse_classes(source: Source) -> None:
    if twice := next((name for i, name in enumerate(source.classes) if name in source.classes[:i]), None):
        raise ConfigError(f"task.classes has {twice!r} twice; rename one")
    if len(source.classes) == 1:
        raise ConfigError(f"task.classes has only one class ({source.classes[0]!r}); name at least 2")
    if source.void is not None and source.void < len(source.classes) and source.void >= 0:
        raise ConfigError(
            f"task.void is {source.void}, which is the id of class {source.classes[source.void]!r}; set it to an id "
            f"from {len(source.classes)} on, or to -1 for none"
        )


def _cityscapes(source: Source, split: SplitName) -> Listed | None:
    root = Path(os.path.expanduser(str(source.data.path)))
    photos, masks = root / "leftImg8bit" / split, root / "gtFine" / split
    if not os.path.isdir(photos):
        if split == "train":
            raise DataError(f"{photos}: no such folder; set data.path to the folder with leftImg8bit and gtFine")
        return None
    files = [file for file in image_files(photos) if file.endswith(IMAGE_END)]
    stems = [os.path.relpath(file, photos).removesuffix(IMAGE_END) for file in files]
    found = {os.path.relpath(file, masks) for file in image_files(masks)} if os.path.isdir(masks) else set()
    end = IDS_END if any(name.endswith(IDS_END) for name in found) else TRAIN_IDS_END
    if not any(name.endswith(end) for name in found):
        raise DataError(f"{masks}: no masks *{IDS_END} or *{TRAIN_IDS_END}; unpack gtFine into data.path")
    whole = [i for i, stem in enumerate(stems) if stem + end in found]
    problems = Problems(
        f"{file}: no mask {masks / (stem + end)}; unpack gtFine again, or remove the image"
        for file, stem in zip(files, stems, strict=True)
        if stem + end not in found
    )
    ids = tuple(i for i, _ in CITYSCAPES.values()) if end == IDS_END else tuple(range(len(CITYSCAPES)))
    return Listed(
        images=Paths.of([files[i] for i in whole]),
        masks=Paths.of([masks / (stems[i] + end) for i in whole]),
        names=None,
        origin=str(photos),
        labelling=Labelling(tuple(CITYSCAPES), ids, None, lenient=True),
        problems=problems,
    )


def _camvid(source: Source, split: SplitName) -> Listed | None:
    return _parquet_files(source, split, Labelling(tuple(CAMVID), tuple(range(len(CAMVID))), len(CAMVID)))


def _parquet(source: Source, split: SplitName) -> Listed | None:
    return _parquet_files(source, split, source.labelling)


def _parquet_files(source: Source, split: SplitName, labelling: Labelling | None) -> Listed | None:
    files = split_files(source.data, split)
    if not files:
        return None
    table = read_table(files, lambda schema, origin: choose_image_columns(schema, source.data, origin))
    images, masks, names, problems = image_pairs(table.table, *table.columns, table.names, table.base)
    return Listed(images=images, masks=masks, names=names, origin=table.origin, labelling=labelling, problems=problems)


def _folder(source: Source, split: SplitName) -> Listed | None:
    data = source.data
    places: Mapping[SplitName, tuple[str | None, str | None]] = {
        "train": (data.path, source.masks),
        "val": (data.val_path, source.val_masks),
        "test": (data.test_path, source.test_masks),
    }
    if places[split][0] is None:
        return None
    key = "" if split == "train" else f"{split}_"
    keys = f"data.{key}path", f"task.{key}masks"
    roots = [Path(os.path.expanduser(cast(str, place))) for place in places[split]]
    for root, where in zip(roots, keys, strict=True):
        if not os.path.isdir(root):
            raise DataError(f"{root}: {'not a folder' if os.path.exists(root) else 'no such folder'}; set {where}")
        if not os.listdir(root):
            raise DataError(f"{root}: the folder is empty; set {where}")
    problems = Problems()
    photos, masks = (_by_stem(root, problems) for root in roots)
    problems.add(f"{file}: no mask {roots[1] / stem}.*; add it, or remove the image" for stem, file in photos.items()
                 if stem not in masks)  # fmt: skip
    problems.add(f"{file}: no image {roots[0] / stem}.*; add it, or remove the mask" for stem, file in masks.items()
                 if stem not in photos)  # fmt: skip
    both = [stem for stem in photos if stem in masks]
    return Listed(
        images=Paths.of([photos[stem] for stem in both]),
        masks=Paths.of([masks[stem] for stem in both]),
        names=None,
        origin=str(roots[0]),
        labelling=source.labelling,
        problems=problems,
    )


def _by_stem(root: Path, problems: Problems) -> dict[str, str]:
    """Return the images below a folder by their path in it without suffix."""
    found: dict[str, str] = {}
    for file in image_files(root):
        stem = os.path.splitext(os.path.relpath(file, root))[0]
        if stem in found:
            problems.add([f"{file}: has the name of {found[stem]} but for the suffix; remove one"])
        found.setdefault(stem, file)
    return found


READERS: Mapping[str, Callable[[Source, SplitName], Listed | None]] = {
    "cityscapes": _cityscapes,
    "camvid": _camvid,
    "parquet": _parquet,
    "folder": _folder,
}
OWN = ("classes", "void", "val_path", "test_path")
ALLOWED: Mapping[str, tuple[str, ...]] = {
    "cityscapes": (),
    "camvid": (),
    "parquet": (*OWN, "image_column", "label_column"),
    "folder": (*OWN, "masks", "val_masks", "test_masks"),
}
WHAT = {
    "cityscapes": "the folder with leftImg8bit and gtFine",
    "camvid": "the folder with train.parquet, val.parquet and test.parquet",
    "parquet": "a Parquet file or a folder with train*.parquet",
    "folder": "a folder of images, and task.masks, one of masks",
}
