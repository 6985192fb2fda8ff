"""The data module all data sets share: a data set only has to list its records.

Training mixes all chosen categories. Test images are seen exactly once under any number of
processes. What an augmentation draws depends on the seed, the epoch and the image only: not on
workers, processes or where a run was resumed.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, cast

import cv2
import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from data_modules.catalogue import Catalogue, names_hash, path_below
from data_modules.problems import DataError, Problem
from data_modules.reading.cache import DecodedCache, user_cache_dir
from data_modules.reading.check import check_files
from data_modules.reading.dataset import AnomalyDataset, Described
from data_modules.reading.extent import unseen_region, vanishing
from data_modules.reading.framing import Augmentation, Framing
from data_modules.reading.geometry import Fit, Size, height_and_width, plain, written
from data_modules.reading.images import (
    FULL_16_BIT,
    MAX_MEGAPIXELS,
    Decoding,
    Interpolation,
    Pixels,
    size_of,
    true_mask,
)
from data_modules.reading.interest import RegionOfInterest, region_at
from data_modules.reading.readable import Readable, ReadableLoader, readable
from data_modules.reading.remarks import dark, log_remarks
from data_modules.reading.samplers import EveryItemOnce, ShuffledDraws, few_of
from data_modules.reading.tiles import Cut, Load, Tile, Tiling, mask_in_tile, tiles_of
from data_modules.reading.watch import Arrivals
from data_modules.records import Batch, DescribedBatch, Record, Split

MOST_HELD_OUT = 512
"""Tiles of held-out images, at even distances among all, that validate what trains on tiles."""


class AnomalyDataModule(LightningDataModule, Catalogue):
    """A data set and its loaders.

    Args:
        root: Folder that holds the data set as its publisher ships it.
        category: One category, a list of them, or `all`.
        image_size: What a network sees, in pixels: the side of a square, or [height, width].
        batch_size: Training images per process and step.
        eval_batch_size: Images per batch outside training; `batch_size` if not given.
        num_workers: Processes that prepare batches.
        val_fraction: Share of the training images held out for validation and calibration.
        cache: Decode once into a memory-mapped file; false decodes anew in every epoch.
        cache_dir: Folder for that file; `lightning_ad` in the user's cache folder if not given.
        resize: Size in pixels to bring images to before a crop of `image_size` is taken, at a
            random place in training and from the centre elsewhere, where defects outside of it are
            not seen; no crop if not given.
        augment: What training images may undergo: `horizontal_flip`, `vertical_flip`, `half_turns`
            (by 180 degrees, every second image), `quarter_turns`, `translation` (by up to a
            sixteenth of the side, mirrored at the edges); nothing if not given.
        seed: Decides the order of training images and their augmentations.
        interpolation: How images are resized: `area` averages over what becomes one pixel;
            `bilinear` and `bicubic` are what the authors of checkpoints used who resized by
            torchvision.
        white_level: The value of 16-bit images that becomes white, 4095 for a camera of 12 bits.
        fit: How images of another shape are brought to size: `squash` gives up their aspect ratio;
            `pad` keeps it and mirrors what is missing, which is neither scored nor counted; `crop`
            keeps it and shows the middle, where defects outside of it are not seen; `tile` keeps
            images as they are, for detectors that cut them into tiles of `image_size`.
        max_megapixels: With `tile`, the largest image that is read, in millions of pixels; each
            million takes up to 40 MB of memory when it is scored.
        roi: Region of interest, outside of which nothing is scored, calibrated on or counted: a
            mask in which white marks what counts, of the size of the photographs; or a folder of
            masks called as the categories are, or of one for each image in the images' own tree.
    """

    def __init__(
        self,
        root: str = "",
        category: str | list[str] = "all",
        image_size: Size = 256,
        batch_size: int = 32,
        eval_batch_size: int | None = None,
        num_workers: int = 2,
        val_fraction: float = 0.1,
        cache: bool = True,
        cache_dir: str | None = None,
        resize: Size | None = None,
        augment: list[Augmentation] | None = None,
        seed: int = 0,
        interpolation: Interpolation = "area",
        white_level: int = FULL_16_BIT,
        fit: Fit = "squash",
        max_megapixels: float = MAX_MEGAPIXELS,
        roi: str | None = None,
    ) -> None:
        super().__init__()
        # Images are read in parallel already, and OpenCV's own threads do not survive a fork.
        cv2.setNumThreads(0)
        _require_sensible(val_fraction, image_size, batch_size)
        self.root = self.locate(root)
        self.category = category
        self.image_size = plain(image_size)
        self.batch_size = batch_size
        self.eval_batch_size = eval_batch_size or batch_size
        self.num_workers = num_workers
        self.val_fraction = val_fraction
        self.seed = seed
        self.framing = Framing(
            self.image_size,
            plain(resize or image_size),
            tuple(augment or ()),
            interpolation,
            white_level,
            fit,
        )
        self.cache = cache
        self.cache_dir = Path(cache_dir).expanduser() if cache_dir else user_cache_dir()
        self.max_megapixels = max_megapixels
        self.roi = Path(roi).expanduser() if roi else None
        self._know_nothing()

    def _know_nothing(self) -> None:
        """Start without what is found out on the way."""
        self.train_batch_size = self.batch_size  # what trains may ask for batches of its own
        self.stored: Dataset | None = None
        """What training reads instead of images, as long as a method has computed it of them."""
        self._region: RegionOfInterest | None = None
        self._loads: dict[Split, Load] = {}
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._tested: dict[str, Record] | None = None
        self._remarked = False
        self.unreadable: list[Problem] = []  # photographs that predict could not read
        self.scored_before: set[str] = set()  # names of photographs that predict leaves out
        self.arrivals: Arrivals | None = None
        self._first_epoch = 0

    def setup(self, stage: str) -> None:
        """List and check all that a stage will read, before hours are spent; fill the cache."""
        if stage == "predict" and self.arrivals is None:
            self.predict_records()
        if stage == "fit":
            self._first_epoch = 0  # a checkpoint to go on from is read later
        if stage in ("fit", "validate"):
            self._prepare("train")
        if stage == "test" or (stage == "fit" and self.listed("test")):
            self._prepare("test")
        if stage in ("fit", "test") and not self._remarked:
            dark_images = dark(self.first_peaks(), self.framing.white_level)
            tested = self.listed("test")
            small = vanishing(tested, self.framing, self.mask_rule)
            cut = unseen_region(tested, self.framing, self.region)
            log_remarks(self.data_set, [*self.remarks(), *dark_images, *small, *cut])
            self._remarked = True

    def train_dataloader(self) -> DataLoader[Batch]:
        """Shuffled, augmented training images without the held-out ones; or what is `stored`."""
        dataset = self.stored or self._dataset(
            self.training_records(), self._prepare("train"), training=True
        )
        sampler = ShuffledDraws(dataset, self.train_batch_size, *self._place, self.seed)
        # A resumed run's workers begin to draw before Lightning tells the sampler the epoch.
        sampler.set_epoch(max(self._first_epoch, self._epochs_over))
        workers = self.num_workers if self.stored is None else 0  # reading takes no time
        return self._loader(dataset, self.train_batch_size, sampler, workers)

    @property
    def _epochs_over(self) -> int:
        """Epochs that the Trainer's fit has trained."""
        if self.trainer is None:
            return 0
        return self.trainer.fit_loop.epoch_progress.current.processed  # type: ignore[attr-defined]

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps: the epoch that a resumed run goes on with."""
        return {"epoch": self._epochs_over}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the epoch to go on with, before the training images' loader is made."""
        self._first_epoch = state_dict["epoch"]

    def val_dataloader(self) -> DataLoader[Batch]:
        """Held-out normal training images, as they are."""
        return self._once(self.held_out_records(), self._prepare("train"))

    def memory_dataloader(self) -> DataLoader[Batch]:
        """The training images without augmentation, each once and in order: for feature banks."""
        return self._once(self.training_records(), self._prepare("train"))

    def fold_dataloaders(self, count: int) -> Iterator[tuple[DataLoader[Batch], DataLoader[Batch]]]:
        """Of each of so many folds of the training images, the others' loader and its own."""
        load = self._prepare("train")
        for fold in self.folds(count):
            own = {record.image for record in fold}
            others = [each for each in super().training_records() if each.image not in own]
            yield self._once(self._cut(others), load), self._once(self._cut(fold), load)

    def test_dataloader(self) -> DataLoader[DescribedBatch]:
        """The test images of all chosen categories, each once."""
        dataset = Described(self._dataset(self.records_of("test"), self._prepare("test")))
        return self._in_order(dataset)

    def predict_dataloader(self) -> DataLoader[DescribedBatch]:
        """The images to be scored, each once; never cached, as they are read only once.

        Those that cannot be read are left out, and listed in `unreadable`; so are, without a word,
        those that were `scored_before`.
        """
        if self.arrivals is not None:
            return DataLoader(self.arrivals, batch_size=None)
        records = [r for r in self.predict_records() if r.name not in self.scored_before]
        described = Described(self._dataset(records, self.decoding))
        dataset = Readable(described, self.unreadable)
        sampler = EveryItemOnce(dataset, *self._place)
        return self._loader(
            dataset, self.images_at_once, sampler, self.num_workers, ReadableLoader, readable
        )

    def watch(self, known: set[str]) -> Arrivals:
        """Let `predict` go on with what arrives; see `Folder`, which alone can."""
        raise DataError(f"{self.data_set} cannot be watched: give --data Folder --data.root FOLDER")

    @property
    def region(self) -> RegionOfInterest | None:
        """What counts of the photographs, if not all of them; a checkpoint may bring its own."""
        if self._region is None and self.roi is not None:
            self._region = region_at(self.roi, self.root, self.categories)
        return self._region

    @region.setter
    def region(self, region: RegionOfInterest | None) -> None:
        self._region = region

    def files_hash(self, split: Split) -> str:
        """As of every data set, and of the region of interest."""
        files = super().files_hash(split)
        if self.region is None:
            return files
        return names_hash([files, self.region.digest(self.listed(split))])[:16]

    def fingerprint_fields(self) -> dict[str, Any]:
        """What decides the numbers that come out of this data, as JSON values."""
        sizes = (("image_size", self.image_size), ("resize", self.framing.resize))
        return {
            "data_set": self.data_set,
            "categories": self.categories,
            **{name: each if isinstance(each, int) else written(each) for name, each in sizes},
            "mask_rule": self.mask_rule,
            "val_fraction": self.val_fraction,
            "train": self._names_hash("train"),
            "test": self._names_hash("test"),
            **self.decoding.changed(),
            **({"roi": self.region.digest(self._listed)} if self.region else {}),
        }

    def true_mask(self, name: str, size: tuple[int, int]) -> Pixels:
        """What is marked (H, W), 0/1, in the test image of that size, at that size."""
        if self._tested is None:
            self._tested = {record.name: record for record in self.records_of("test")}
        return true_mask(self._tested[name], self.mask_rule, size)

    def _names_hash(self, split: Split) -> str:
        return names_hash(sorted(path_below(r.image, self.root) for r in self.listed(split)))

    @property
    def decoding(self) -> Decoding:
        """How this data set's files become pixels."""
        seen = self.framing
        size = 0 if seen.whole else seen.resize
        return Decoding(
            size,
            self.mask_rule,
            seen.interpolation,
            seen.white_level,
            seen.fit,
            self.max_megapixels,
        )

    def _prepare(self, split: Split) -> Load:
        """Check a split's files, or find them decoded in the cache; how to get at the pixels."""
        if split not in self._loads:
            records = self.records_of(split)
            if self.cache:
                self._loads[split] = DecodedCache(
                    self.cache_dir, self.data_set, records, self.decoding
                )
            else:
                check_files(self.data_set, records, self.mask_rule)
                self._loads[split] = self.decoding
            if self.region is not None:
                self.region.require_masks(records)
        return self._loads[split]

    @property
    def _place(self) -> tuple[int, int]:
        """Rank of this process and number of processes."""
        if self.trainer is None:
            return 0, 1
        return self.trainer.global_rank, self.trainer.world_size

    def in_tiles(self, tiling: Tiling) -> Self:
        """The same data, of which what trains and what is held out comes in tiles."""
        view = copy.copy(self)
        view.framing = replace(self.framing, tiling=tiling)
        return view

    def training_records(self) -> list[Record]:
        """The normal training images without those held out; or their tiles."""
        return self._cut(super().training_records())

    def held_out_records(self) -> list[Record]:
        """The normal training images that only validate and calibrate; or some of their tiles.

        Of these, only such as show some of the region of interest.
        """
        records = super().held_out_records()
        if self.framing.tiling is None:
            return records
        return few_of([t for r in records for t in self._judged_tiles(r)], MOST_HELD_OUT)

    def _cut(self, records: list[Record]) -> list[Record]:
        tiling = self.framing.tiling
        if tiling is None:
            return records
        return [
            tile
            for record in records
            for tile in tiles_of(record, self._size_of(record.image), self.framing.seen, tiling)
        ]

    def _judged_tiles(self, record: Record) -> list[Record]:
        tiles = self._cut([record])
        if self.region is None:
            return tiles
        mask = self.region.mask(record.image, record.category, self._size_of(record.image))
        return [tile for tile in tiles if mask_in_tile(mask, cast("Tile", tile)).any()]

    def _size_of(self, image: Path) -> tuple[int, int]:
        if image not in self._sizes:
            self._sizes[image] = size_of(image)
        return self._sizes[image]

    @property
    def images_at_once(self) -> int:
        """Images per batch outside training: one where their sizes differ."""
        return 1 if self.framing.whole and not self.framing.tiling else self.eval_batch_size

    def _dataset(
        self, records: Sequence[Record], load: Load, training: bool = False
    ) -> AnomalyDataset:
        if self.framing.tiling:
            tiles = cast("Sequence[Tile]", records)
            records = [tile.widened() for tile in tiles] if training else tiles
            load = Cut(load)
        return AnomalyDataset(
            records, self.categories, load, self.framing, self.seed, training, self.region
        )

    def _once(self, records: Sequence[Record], load: Load) -> DataLoader[Batch]:
        return self._in_order(self._dataset(records, load))

    def _in_order(self, dataset: Dataset) -> DataLoader[Any]:
        sampler = EveryItemOnce(dataset, *self._place)
        return self._loader(dataset, self.images_at_once, sampler, self.num_workers)

    def _loader(
        self,
        dataset: Dataset,
        batch_size: int,
        sampler: DistributedSampler,
        workers: int,
        loader: type[DataLoader] = DataLoader,
        collate: Callable[[list[Any]], Any] | None = None,
    ) -> DataLoader[Any]:
        return loader(
            dataset,
            batch_size=batch_size,
            sampler=sampler,
            num_workers=workers,
            collate_fn=collate,
            persistent_workers=workers > 0,
            pin_memory=torch.cuda.is_available(),
        )


def _require_sensible(val_fraction: float, image_size: Size, batch_size: int) -> None:
    if not 0 < val_fraction < 1:
        raise ValueError(f"data.val_fraction must lie between 0 and 1, not {val_fraction}")
    for name, value in (("image_size", image_size), ("batch_size", batch_size)):
        if min(height_and_width(value)) < 1:
            raise ValueError(f"data.{name} must be at least 1, not {written(value)}")
