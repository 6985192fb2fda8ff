"""The data module all data sets share: a data set only has to list its records.

Training mixes all chosen categories. Validation holds out normal *training* images, chosen by a
hash of their names, so that neither order nor new files reshuffle them. Test images are seen
exactly once under any number of processes. What an augmentation draws depends on the seed, the
epoch and the image only: not on workers, processes or where a run was resumed.
"""

import hashlib
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, DistributedSampler

from data_modules.cache import DecodedCache, user_cache_dir
from data_modules.check import check_files
from data_modules.dataset import AnomalyDataset, Augmentation, Framing, Load
from data_modules.images import MaskRule, load
from data_modules.layout import find_categories
from data_modules.problems import DataError, WrongTreeError
from data_modules.records import Batch, Counts, Record, Split
from data_modules.samplers import EveryItemOnce, ShuffledDraws


class AnomalyDataModule(LightningDataModule, ABC):
    """A data set and its loaders.

    Args:
        root: Folder that holds the data set as its publisher ships it.
        category: One category, a list of them, or `all`.
        image_size: Side of the square images in pixels; the aspect ratio is not kept.
        batch_size: Training images per process and step.
        eval_batch_size: Images per batch outside training; `batch_size` if not given.
        num_workers: Processes that prepare batches.
        val_fraction: Share of the training images held out for validation and calibration.
        cache: Decode once into a memory-mapped file; false decodes anew in every epoch.
        cache_dir: Folder for that file; `lightning_ad` in the user's cache folder if not given.
        resize: Side in pixels to resize to before a crop of `image_size` is taken, at a random
            place in training and from the centre elsewhere; no crop if not given.
        augment: What training images may undergo: `horizontal_flip`, `vertical_flip`,
            `quarter_turns`; nothing if not given.
        seed: Decides the order of training images and their augmentations.
    """

    tree: ClassVar[str] = "<category>/train/good, <category>/test/<defect>"
    mask_rule: MaskRule = "half"
    published: ClassVar[Mapping[str, Counts]] = {}
    published_empty_masks: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        root: str = "",
        category: str | list[str] = "all",
        image_size: int = 256,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 2,
        val_fraction: float = 0.1,
        cache: bool = True,
        cache_dir: str | None = None,
        resize: int | None = None,
        augment: list[Augmentation] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not 0 < val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie between 0 and 1, not {val_fraction}")
        for name, value in (("image_size", image_size), ("batch_size", batch_size)):
            if value < 1:
                raise ValueError(f"data.{name} must be at least 1, not {value}")
        self.root = self.locate(root)
        self.category = category
        self.image_size = image_size
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.val_fraction = val_fraction
        self.seed = seed
        self.framing = Framing(image_size, resize or image_size, tuple(augment or ()))
        self.cache = cache
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else user_cache_dir()
        self._loads: dict[Split, Load] = {}

    # What a data set has to say

    def locate(self, root: str) -> Path:
        """The folder to read, from the option `root`; an error if there is none to fall back on."""
        if not root:
            raise WrongTreeError(f"{self.data_set} needs data.root, a folder with {self.tree}")
        return Path(root).expanduser()

    @abstractmethod
    def categories_in(self, root: Path) -> list[str]:
        """Names of the categories that a folder holds, sorted; none if it is not this data set."""

    @abstractmethod
    def list_category(self, category: str) -> list[Record]:
        """All records of one category, each mask where it has to be, whether it is there or not."""

    @abstractmethod
    def list_masks(self, category: str) -> list[Path]:
        """All files of one category that are there to be masks: to find those without an image."""

    @property
    def has_masks(self) -> bool:
        """Whether defects are marked pixel by pixel."""
        return True

    # What follows from it

    @property
    def data_set(self) -> str:
        """The data set's name: its class's."""
        return type(self).__name__

    @cached_property
    def categories(self) -> list[str]:
        """The chosen categories; their order numbers them in a batch."""
        known = find_categories(self.root, self.categories_in, self.data_set, self.tree)
        if self.category == "all":
            return known
        chosen = [self.category] if isinstance(self.category, str) else list(self.category)
        unknown = [category for category in chosen if category not in known]
        if unknown or not chosen:
            names = ", ".join(map(repr, unknown)) or "none"
            raise DataError(
                f"{self.data_set}: unknown category {names} (data.category); "
                f"{self.root} holds: {', '.join(known)}"
            )
        return chosen

    @cached_property
    def _listed(self) -> list[Record]:
        listed = []
        for category in self.categories:
            records = self.list_category(category)
            listed += sorted(records, key=lambda record: (record.split, str(record.image)))
        return listed

    def records(self) -> list[Record]:
        """All records of the chosen categories: by category, then split, then path."""
        return list(self._listed)

    def records_of(self, split: Split) -> list[Record]:
        """The records of one split; an error if there are none."""
        found = [record for record in self._listed if record.split == split]
        if not found:
            raise DataError(
                f"{self.data_set}: {self.root} holds no {split} images of "
                f"{', '.join(self.categories)}; expected {self.tree}"
            )
        return found

    def predict_records(self) -> list[Record]:
        """The images that `predict` scores: the test images."""
        return self.records_of("test")

    def is_held_out(self, records: Sequence[Record]) -> list[bool]:
        """Which of one category's training records validate: those whose names hash lowest."""
        count = min(max(1, round(len(records) * self.val_fraction)), len(records) - 1)
        hashes = [_hash([record.image.name]) for record in records]
        chosen = set(sorted(range(len(records)), key=lambda index: hashes[index])[:count])
        return [index in chosen for index in range(len(records))]

    @cached_property
    def _train_and_held_out(self) -> tuple[list[Record], list[Record]]:
        by_category = defaultdict(list)
        for record in self.records_of("train"):
            by_category[record.category].append(record)
        train: list[Record] = []
        held_out: list[Record] = []
        for records in by_category.values():
            for record, held in zip(records, self.is_held_out(records), strict=True):
                (held_out if held else train).append(record)
        if not train or not held_out:
            raise DataError(
                f"{self.data_set}: {self.root} holds one training image of "
                f"{', '.join(self.categories)}; two are needed, as one is held out for validation"
            )
        return train, held_out

    def held_out_records(self) -> list[Record]:
        """The normal training images that only validate and calibrate."""
        return self._train_and_held_out[1]

    # Loaders

    def setup(self, stage: str) -> None:
        """List and check all that a stage will read, before hours are spent; fill the cache."""
        if stage == "predict":
            check_files(self.data_set, self.predict_records())
        if stage in ("fit", "validate"):
            self._prepare("train")
        if stage == "test" or (stage == "fit" and any(r.split == "test" for r in self._listed)):
            self._prepare("test")

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented training images without the held-out ones."""
        dataset = self._dataset(self._train_and_held_out[0], self._prepare("train"), training=True)
        sampler = ShuffledDraws(dataset, self.batch_size, *self._place, self.seed)
        if self.trainer is not None:
            # Lightning opens a resumed run's loader before it tells the sampler the epoch.
            sampler.set_epoch(self.trainer.current_epoch)
        return self._loader(dataset, self.batch_size, sampler)

    def val_dataloader(self) -> DataLoader[Batch]:
        """Held-out normal training images, as they are."""
        return self._once(self._train_and_held_out[1], self._prepare("train"))

    def memory_dataloader(self) -> DataLoader[Batch]:
        """The training images without augmentation, each once and in order: for feature banks."""
        return self._once(self._train_and_held_out[0], self._prepare("train"))

    def test_dataloader(self) -> DataLoader[Batch]:
        """The test images of all chosen categories, each once."""
        return self._once(self.records_of("test"), self._prepare("test"))

    def predict_dataloader(self) -> DataLoader[Batch]:
        """The images to be scored, each once; never cached, as they are read only once."""
        return self._once(self.predict_records(), self._decode)

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides the numbers that come out of this data, as JSON values."""
        return {
            "data_set": self.data_set,
            "categories": self.categories,
            "image_size": self.image_size,
            "resize": self.framing.resize,
            "mask_rule": self.mask_rule,
            "val_fraction": self.val_fraction,
            "train": self._names_hash("train"),
            "test": self._names_hash("test"),
        }

    def _names_hash(self, split: Split) -> str:
        records = [record for record in self._listed if record.split == split]
        return _hash(sorted(record.image.relative_to(self.root).as_posix() for record in records))

    @property
    def _decode(self) -> Load:
        return partial(load, size=self.framing.resize, rule=self.mask_rule)

    def _prepare(self, split: Split) -> Load:
        """Check a split's files, or find them decoded in the cache; how to get at the pixels."""
        if split not in self._loads:
            records = self.records_of(split)
            if self.cache:
                size, rule = self.framing.resize, self.mask_rule
                self._loads[split] = DecodedCache(
                    self.cache_dir, self.data_set, records, size, rule
                )
            else:
                check_files(self.data_set, records)
                self._loads[split] = self._decode
        return self._loads[split]

    @property
    def _place(self) -> tuple[int, int]:
        """Rank of this process and number of processes."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def _dataset(
        self, records: Sequence[Record], load: Load, training: bool = False
    ) -> AnomalyDataset:
        transform = self.framing.transform(training)
        return AnomalyDataset(records, self.categories, load, transform, self.seed)

    def _once(self, records: Sequence[Record], load: Load) -> DataLoader[Batch]:
        dataset = self._dataset(records, load)
        return self._loader(dataset, self.eval_batch_size, EveryItemOnce(dataset, *self._place))

    def _loader(
        self, dataset: AnomalyDataset, batch_size: int, sampler: DistributedSampler
    ) -> DataLoader[Batch]:
        return DataLoader(
            dataset,  # type: ignore[arg-type]  # items are collated to batches
            batch_size=batch_size,
            sampler=sampler,
            num_workers=self.num_workers,
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def name_share(name: str) -> float:
    """A number in [0, 1) that only depends on a file's name: to split where no split is given."""
    return int(_hash([name])[:8], 16) / 16**8


def _hash(names: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(names).encode()).hexdigest()
