"""The one evaluation path: what every method shares, and what it has to tell on its own.

A method is a subclass that says how it compares an image with what it knows of normal ones, be it
a reconstruction (`compare`), how it fuses the resulting maps into one (`fuse`) and, where a phase
trains, how (`trained`, `loss`, `configure_optimizers`). The base class turns that into Lightning
steps, a `Detection` that never depends on the other images of a batch, calibration from normal
images, and checkpoints that suffice alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

import numpy as np
import torch
import yaml
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from data_modules.reading.dataset import judged_in
from data_modules.reading.framing import Framing
from data_modules.reading.geometry import written
from data_modules.reading.images import Pixels
from data_modules.reading.interest import ALL
from lightning_ad.detector import thresholds
from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.deciding import Deciding
from lightning_ad.detector.judged import JUDGED, judged_part
from lightning_ad.detector.memory import MemoryPass
from lightning_ad.detector.normals import relative_to_normals
from lightning_ad.detector.per_category import UNKNOWN_CATEGORY, per_category, require_at_least
from lightning_ad.detector.photograph import (
    Finding,
    Numbers,
    Photograph,
    finding_of,
    framing_of,
    map_of_photograph,
    pixels_of,
    seen,
)
from lightning_ad.detector.processes import data_module, leave_group_at_exit
from lightning_ad.detector.region import BY_IMAGE, kept_region, lend_region, masks_of_batch
from lightning_ad.maths.diffusion import Noise, seeded_noise
from lightning_ad.speed.faster import faster
from lightning_ad.speed.half_precision import HalfPrecision

N = TypeVar("N", bound=nn.Module)

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
"""Trainer precisions that leave schedules and weights in float32."""

LOSSES = ("loss", "val_loss")
"""What callbacks may watch: of one phase as ``<phase>/loss``, of the current one as ``loss``."""

STATES = ("state_dict", "current_model_state")
"""Where a checkpoint holds weights; the second is written by Lightning's weight averaging."""


@dataclass
class Detection:
    """What a method says about a batch of images."""

    anomaly_map: Tensor
    """(B, 1, H, W) float32, larger is more anomalous."""
    score: Tensor
    """(B,) float32, one score per image."""
    reconstruction: Tensor | None
    """(B, 3, H, W) in [-1, 1], the image as the model would have it; None if it makes none."""
    parts: dict[str, Tensor]
    """The named maps (B, 1, H, W) that were fused into ``anomaly_map``."""
    findings: list[Finding] | None = None
    """What is said about each photograph, once a callback has asked `findings_of` for it."""


@dataclass(frozen=True)
class Phase:
    """One stage of training, a `fit` of its own."""

    name: str
    epochs: int | None = None
    """Length in epochs; None leaves it to the Trainer."""
    batch_size: int | None = None
    """Images per process and step; None leaves them to the data."""


class AnomalyDetector(Deciding, LightningModule, ABC):
    """Base of all methods.

    Args:
        false_alarm_rate: share of normal images that are flagged, and of those in which any pixel
            is; it may be another one whenever a calibrated checkpoint is loaded.
        standardize: take each map relative to what held-out normal images have at the same place,
            see `lightning_ad.detector.normals`; for parts that lie alike in all images.
        top_share: share of the map's largest values whose mean is an image's score; 0 takes the
            largest one.
        folds: K, for methods that train nothing: cross-calibration. The training images are scored
            as well, each K-th of them by what the others teach, so that many more normal scores
            vouch for a false-alarm rate; calibration takes K times as long.
    """

    protocol = "default"
    """Name of the evaluation protocol, part of every result's fingerprint."""
    kept_once: tuple[str, ...] = ()
    """Names of frozen parts that only the final checkpoint holds."""
    pairs: bool | None = None
    """What half precision has to spare, see `lightning_ad.speed.faster`."""
    takes_whole = False
    """Whether it takes photographs of any size, as ``data.fit`` tile leaves them."""
    by_category: tuple[str, ...] = ()
    """Names of settings that may be one number, or one per category by name."""

    def __init__(
        self,
        false_alarm_rate: float = 0.01,
        standardize: bool = False,
        top_share: float = 0.0,
        folds: int | None = None,
    ) -> None:
        super().__init__()
        thresholds.require_decision(false_alarm_rate)
        if not 0 <= top_share < 1:
            raise ValueError(f"model.top_share must be from 0 to below 1, not {top_share}")
        if folds is not None:
            require_at_least(2, folds=folds)
        self.false_alarm_rate = false_alarm_rate
        self.standardize, self.top_share, self.folds = standardize, top_share, folds
        self.categories: list[str] = []
        self.choices: dict[str, tuple[float, ...]] = {}
        """Values of settings of which calibration chooses one for each category."""
        self.calibration = Calibration()
        self.trained_with: dict[str, Any] | None = None
        """What its checkpoints carry about settings and data, see `lightning_ad.experiment`."""
        self.phase = ""
        self.framing: Framing | None = None
        self.precision = "32-true"
        self.settled: int | None = None
        """The category that all images are scored as, see `settle`."""
        self.noise_of: Callable[[Tensor], Noise] = seeded_noise
        """Where a stochastic sampler has the noise for images (B, C, H, W) from."""
        self._category_index: dict[int, int] = {}
        self._met: Any = None
        self._held_out_loss = torch.zeros(2)
        self._faster: dict[nn.Module, HalfPrecision] = {}  # a dict stays out of checkpoints

    # What a method tells.

    def phases(self) -> list[Phase]:
        """The training phases, in order; none for a method that trains nothing."""
        return [Phase("denoise")]

    def trained(self) -> list[nn.Module]:
        """The parts that train in the current `phase`; all others stay frozen, in eval mode."""
        return []

    def loss(self, image: Tensor, category: Tensor) -> Tensor:
        """Loss of the current `phase` on a batch (B, 3, H, W) with categories (B,)."""
        raise NotImplementedError

    def configure_optimizers(self) -> Any:
        """The optimizer of the current `phase`, or what else Lightning takes."""

    @abstractmethod
    def compare(self, image: Tensor, category: Tensor) -> tuple[Tensor | None, dict[str, Tensor]]:
        """Reconstruct images (B, 3, H, W); return that and named distance maps (B, 1, H, W).

        Without a reconstruction, None. Nothing here may depend on the batch's other images: noise
        comes from ``self.noise_of(image)``. A category may be `UNKNOWN_CATEGORY`; what treats
        categories apart asks `groups_of`, so that it can be exported.
        """

    def fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """Fuse the named maps (B, 1, H, W) of `compare` into one anomaly map (B, 1, H, W).

        Runs after `set_constants`, there on CPU: move what else takes part to ``category.device``.
        Unless a method says more, a single map is the anomaly map.
        """
        if len(parts) != 1:
            raise NotImplementedError(
                f"{type(self).__name__}.compare returns the maps {', '.join(parts)}: write `fuse`"
            )
        return next(iter(parts.values()))

    def score(self, anomaly_map: Tensor, parts: dict[str, Tensor]) -> Tensor:
        """Image scores (B,) of anomaly maps (B, 1, H, W): their maxima, or see ``top_share``.

        A method that scores before it fuses or smooths finds the maps of `compare` in ``parts``.
        """
        values = anomaly_map.flatten(1)
        return values.topk(max(1, round(self.top_share * values.shape[1]))).values.mean(1)

    def set_constants(self, extremes: dict[str, Tensor]) -> None:
        """Set fusion constants from ``<part>_min``, ``<part>_max`` and ``category``, each (N,).

        They are the extremes of each map of `compare` over the held-out normal images; what is put
        into ``self.calibration[name]`` travels with the weights.
        """

    @property
    def has_constants(self) -> bool:
        """Whether `set_constants` has any to set."""
        return type(self).set_constants is not AnomalyDetector.set_constants

    def memory_passes(self, device: torch.device) -> Iterable[MemoryPass]:
        """The looks at all training images that calibration takes, before it takes `extremes`.

        Write it as a generator: each pass is finished when the generator goes on, which may then
        compute on ``device`` and put what it found into ``self.calibration``.
        """
        return ()

    # What a detector tells that wraps another.

    @property
    def title(self) -> str:
        """The method's name in results."""
        return type(self).__name__

    @property
    def learner(self) -> "AnomalyDetector":
        """The detector that a run trains, on `lessons`, before it calibrates this one."""
        return self

    def lessons(self, datamodule: Any) -> Any:
        """The data in the form that `learner` trains and calibrates on."""
        return datamodule

    # What all methods share.

    @torch.inference_mode()
    def predict(
        self,
        photograph: Photograph,
        category: str | None = None,
        interest: NDArray[np.bool_] | None = None,
    ) -> Finding:
        """Score one photograph, read and resized as the data modules do.

        Args:
            photograph: a file, an array (H, W, 3) or (H, W) of uint8, or a PIL image.
            category: one of `categories`, or None where it is not known.
            interest: which pixels (H, W) count, if not those of the checkpoint's region of
                interest.
        """
        if self.framing is None:
            raise RuntimeError("only what `load_detector` returns knows how photographs are read")
        pixels = pixels_of(photograph, self.framing.white_level)
        return self.predict_all([pixels], [category], [interest])[0]

    @torch.inference_mode()
    def predict_all(
        self,
        photographs: Sequence[Pixels],
        categories: Sequence[str | None],
        interests: Sequence[NDArray[Any] | None],
    ) -> list[Finding]:
        """Score photographs, each (H, W, 3), as one batch; else as `predict` does."""
        framing = self.framing
        if framing is None:
            raise RuntimeError("only what `load_detector` returns knows how photographs are read")
        if framing.whole and len(photographs) > 1:  # whose sizes may differ
            each = zip(photographs, categories, interests, strict=True)
            return [self.predict_all([p], [c], [i])[0] for p, c, i in each]
        which = torch.tensor([self.number_of(name) for name in categories], device=self.device)
        sizes = [(pixels.shape[0], pixels.shape[1]) for pixels in photographs]
        masks = [
            self._interest(name, size, interest)
            for name, size, interest in zip(categories, sizes, interests, strict=True)
        ]
        judged = None
        if framing.padded or any(mask is not None for mask in masks):
            pairs = zip(sizes, masks, strict=True)
            judged = torch.stack([judged_in(framing, size, mask) for size, mask in pairs])
            if not judged.flatten(1).any(1).all():
                raise ValueError("the region of interest has less than a pixel that is seen")
        image = torch.cat([seen(pixels, framing) for pixels in photographs]).to(self.device)
        with self.in_own_precision():
            found = self.detect(image, which, judged)
        return self.findings(found, which, sizes, masks)

    def _interest(
        self, category: str | None, size: tuple[int, int], given: NDArray[Any] | None
    ) -> Pixels | None:
        """The mask (H, W) that is given, or of the checkpoint's region of interest, if any."""
        if given is not None:
            if given.shape != size:
                raise ValueError(f"interest is {given.shape}, the photograph {size}")
            return (given != 0).astype(np.uint8)
        if BY_IMAGE in self.calibration:
            raise ValueError("each image has a region of interest of its own: give `interest`")
        region = kept_region(self.calibration, self.categories)
        if region is None:
            return None
        return region.mask(Path("the photograph"), category or ALL, size)

    def findings(
        self,
        detection: Detection,
        category: Tensor,
        sizes: Sequence[tuple[int, int]],
        interests: Sequence[Pixels | None],
    ) -> list[Finding]:
        """What is said about photographs of these sizes (H, W), of the categories (B,).

        ``interests`` are their regions of interest (H, W), where they have some.
        """
        if self.framing is None:
            raise RuntimeError("the detector knows neither data nor a checkpoint yet")
        columns = (
            detection.score,
            self.image_threshold(category),
            thresholds.p_values(self.calibration, detection.score, category),
            self.pixel_threshold(category),
        )
        places = zip(detection.anomaly_map, sizes, interests, strict=True)
        maps = [map_of_photograph(m[None], self.framing, size, mask) for m, size, mask in places]
        numbers = zip(*map(Tensor.tolist, columns), strict=True)
        return [
            finding_of(anomaly_map, Numbers(*row), self.smallest_region)
            for anomaly_map, row in zip(maps, numbers, strict=True)
        ]

    def findings_of(self, detection: Detection, batch: Any) -> list[Finding]:
        """What is said about the photographs of a `DescribedBatch`: worked out for all who ask."""
        if detection.findings is None:
            sizes = [(height, width) for height, width in batch["size"].tolist()]
            interests = masks_of_batch(data_module(self.trainer), batch)
            detection.findings = self.findings(detection, self.category_of(batch), sizes, interests)
        return detection.findings

    def in_own_precision(self) -> torch.autocast:
        """The context in which Lightning's Trainer scores in `precision`."""
        kind = self.precision.partition("-")[0]
        dtype = {"16": torch.float16, "bf16": torch.bfloat16}.get(kind)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    @torch.no_grad()
    def detect(self, image: Tensor, category: Tensor, judged: Tensor | None = None) -> Detection:
        """Score images (B, 3, H, W) in [-1, 1] of the categories (B,), or `UNKNOWN_CATEGORY`.

        Scores are of the pixels that ``judged`` (B, 1, H, W) marks, if it is given.
        """
        self._require_image(image)
        reconstruction, parts = self.checked_compare(image, category)
        anomaly_map = self.checked_fuse(parts, category)
        score = self.score_of_judged(anomaly_map, parts, judged)
        if reconstruction is not None:
            reconstruction = reconstruction.float()
        return Detection(anomaly_map, score, reconstruction, parts)

    def score_of_judged(
        self, anomaly_map: Tensor, parts: dict[str, Tensor], judged: Tensor | None
    ) -> Tensor:
        """`score` of the pixels that ``judged`` (B, 1, H, W) marks in each map, or of all."""
        if judged is None:
            return self.score(anomaly_map, parts)
        scores = []
        for index, marks in enumerate(judged.bool()):
            one = {"": anomaly_map, **parts}
            own = {name: judged_part(part[index], marks)[None] for name, part in one.items()}
            scores.append(self.score(own.pop(""), own))
        return torch.cat(scores)

    def checked_compare(
        self, image: Tensor, category: Tensor
    ) -> tuple[Tensor | None, dict[str, Tensor]]:
        """`compare`, its maps of the shape they must have, relative to normal ones if learned."""
        reconstruction, parts = self.compare(image, category)
        for name, part in parts.items():
            self._require_shape(f"compare's '{name}'", part, image)
        return reconstruction, relative_to_normals(self.calibration, parts, category)

    def checked_fuse(self, parts: dict[str, Tensor], category: Tensor) -> Tensor:
        """`fuse`, its map of the shape it must have."""
        anomaly_map = self.fuse(parts, category)
        self._require_shape("fuse's map", anomaly_map, next(iter(parts.values())))
        return anomaly_map

    def _require_image(self, image: Tensor) -> None:
        size = image.shape[2:] if self.framing is None or self.takes_whole else self.framing.seen
        if image.ndim != 4 or image.shape[1:] != (3, *size):
            expected = ", ".join(map(str, ("B", 3, *size)))
            raise ValueError(
                f"expected images ({expected}), as the detector was trained on, not "
                f"{tuple(image.shape)}: `predict` reads and resizes photographs"
            )
        low, high = image.aminmax()
        if not (low >= -1.001 and high <= 1.001):
            raise ValueError(
                f"expected images in [-1, 1], not from {low:.4g} to {high:.4g}: scale 8-bit values "
                "by image / 127.5 - 1, or let `predict` read the photographs"
            )

    def _require_shape(self, name: str, found: Tensor, like: Tensor) -> None:
        expected = (like.shape[0], 1, *like.shape[2:])
        if tuple(found.shape) != expected:
            raise ValueError(
                f"{type(self).__name__}: {name} must be of shape {expected}, not "
                f"{tuple(found.shape)}"
            )

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Load weights and calibration; the thresholds become those of `false_alarm_rate`."""
        result = super().load_state_dict(state_dict, *args, **kwargs)
        if thresholds.CATEGORY in self.calibration:
            self.set_thresholds()
        return result

    def fingerprint_fields(self, datamodule: Any) -> dict[str, Any]:
        """What the numbers of a test depend on beside `protocol` and data, as JSON values."""
        return thresholds.part_calibrated_on(self.calibration) | self.moved_to()

    def setting_of(self, name: str, category: Tensor) -> Tensor:
        """A setting in `by_category`, as a number (B,) for each image of the categories (B,)."""
        values = per_category(getattr(self, name), self.categories, name)
        return torch.tensor(values, device=category.device)[category]

    def chosen(self, name: str, category: Tensor) -> Tensor:
        """A setting (B,) in `choices` as chosen for the categories (B,); before, its own value."""
        if name in self.calibration:
            return self.calibration.of(name, category)
        return torch.full(category.shape, getattr(self, name), device=category.device)

    def common_setting(self, name: str, least: int = 0) -> int | None:
        """A setting in `by_category` for all categories together: the mean, rounded.

        None if it is None.

        Raises:
            ValueError: if that is less than ``least``.
        """
        value = getattr(self, name)
        if value is None:
            return None
        whole = round(per_category(value, self.categories, name)[-1])
        require_at_least(least, **{name: whole})
        return whole

    def settle(self, number: int) -> None:
        """Score all images as of one category, or `UNKNOWN_CATEGORY`, from now on.

        What happens to an image then depends on no values of its batch, as an export needs it.
        """
        self.settled = number

    def groups_of(self, category: Tensor) -> list[tuple[int, Tensor | slice]]:
        """The numbers among the categories (B,) of images, each with which images those are."""
        if self.settled is not None:
            return [(self.settled, slice(None))]
        return [(number, category == number) for number in category.unique().tolist()]

    def category_of(self, batch: Any) -> Tensor:
        """The detector's own index (B,) of each image's category, or `UNKNOWN_CATEGORY`."""
        known = [self._category_index.get(i, UNKNOWN_CATEGORY) for i in batch["category"].tolist()]
        return torch.tensor(known, device=batch["category"].device)

    def load_pretrained(self) -> None:
        """Load published weights into the parts that come with some."""
        for part in self.children():
            load = getattr(part, "load_pretrained", None)
            if load is not None:
                load()

    def lasting_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """What the final checkpoint keeps of the detector's configuration, to be built again."""
        return config

    def enter_phase(self, name: str) -> None:
        """Let only that phase's parts require gradients and train."""
        self.phase = name
        for need in ("trained", "loss", "configure_optimizers"):
            if getattr(type(self), need) is getattr(AnomalyDetector, need):
                raise NotImplementedError(
                    f"{type(self).__name__} has no `{need}` for its phase '{name}': write it, or "
                    "let `phases` return [] if the method trains nothing"
                )
        self.requires_grad_(False)
        trained = self.trained()
        if not any(True for part in trained for _ in part.parameters()):
            raise ValueError(
                f"{type(self).__name__}.trained() names no parameters in phase '{name}'"
            )
        for part in trained:
            part.requires_grad_(True)
        # Buffers are the same everywhere. Broadcasting them at each forward pass, as DDP would,
        # hangs where one process validates one batch fewer than another.
        buffers = [name for name, _ in self.named_buffers()]
        DistributedDataParallel._set_params_and_buffers_to_ignore_for_model(self, buffers)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the parts that train in this phase; what is frozen stays in eval mode."""
        super().train(False)
        self.training = mode
        self._faster = {}  # what they copy may change
        for part in self.trained() if self.phase else []:
            part.train(mode)
        return self

    def prepare_inference(self) -> None:
        """Lay weights out for speed: channels last won in inference on every device measured."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Weights that move leave copies of them behind."""
        self._faster = {}
        return super()._apply(fn, recurse)

    def in_precision(self, network: N) -> N | HalfPrecision:
        """A network for inference: itself, or under autocast a copy in half precision, kept."""
        if not torch.is_autocast_enabled(self.device.type):
            return network
        if network not in self._faster:
            dtype = torch.get_autocast_dtype(self.device.type)
            self._faster[network] = faster(network, dtype, self.pairs)
        return self._faster[network]

    # Lightning's hooks.

    def setup(self, stage: str) -> None:
        """Learn the data's categories; a model that trains without the CLI enters its phase."""
        if self.trainer.precision not in PRECISIONS:
            raise ValueError(
                f"trainer.precision {self.trainer.precision} would round the noise schedule and "
                f"the weights: choose one of {', '.join(PRECISIONS)}"
            )
        leave_group_at_exit()
        if stage == "fit" or not self.trainer.ckpt_path:  # else when the checkpoint is loaded
            self.meet(data_module(self.trainer), stage)
        if stage in ("fit", "validate") and not self.phase:
            self._enter_first_phase(stage)
        if stage == "fit":
            self._take_batches(data_module(self.trainer))

    def _enter_first_phase(self, stage: str) -> None:
        first = next((phase.name for phase in self.phases()), None)
        if first is None:
            rank_zero_warn(f"{type(self).__name__} trains nothing, so nothing has a loss")
            self.trainer.limit_train_batches = self.trainer.limit_val_batches = 0
        elif stage == "fit":
            self.load_pretrained()
            self.enter_phase(first)
        else:
            self.phase = first

    def _take_batches(self, datamodule: Any) -> None:
        """Let the data's training batches be of the size that the current phase asks for."""
        sizes = [phase.batch_size for phase in self.phases() if phase.name == self.phase]
        datamodule.train_batch_size = next(filter(None, sizes), datamodule.batch_size)

    def meet(self, datamodule: Any, stage: str) -> None:
        """Match the data's categories and check the data: once, until a checkpoint brings others.

        `lightning fit` does so before an image is read.
        """
        if self._met is not datamodule:
            self.match_categories(datamodule.categories, stage)
            if self.folds and self.phases():
                raise ValueError(
                    f"model.folds is for methods that train nothing; {type(self).__name__} would "
                    "have to be trained for each fold: leave it out"
                )
            if stage != "fit":
                self._require_same_size(datamodule)
                lend_region(self.calibration, self.categories, datamodule)
            self._require_its_fit(datamodule)
            self.check_data(datamodule, stage)
            if stage == "fit":
                self.framing = datamodule.framing
            self._met = datamodule

    def __getstate__(self) -> dict[str, Any]:
        """A copy, such as an average of the weights, holds no data."""
        return {**super().__getstate__(), "_met": None}

    def _require_same_size(self, datamodule: Any) -> None:
        if self.framing and self.framing.image_size != datamodule.image_size:
            raise ValueError(
                f"the checkpoint was trained on images of {written(self.framing.image_size)} "
                f"pixels, data.image_size is {written(datamodule.image_size)}: leave "
                "data.image_size out"
            )
        framing = getattr(datamodule, "framing", self.framing)  # of others' data there may be none
        if self.framing and framing and self.framing.fit != framing.fit:
            raise ValueError(
                f"the checkpoint was trained with data.fit {self.framing.fit}, not {framing.fit}: "
                "leave data.fit out"
            )

    def _require_its_fit(self, datamodule: Any) -> None:
        framing = getattr(datamodule, "framing", None)
        if not isinstance(framing, Framing):  # of another's data module
            return
        if framing.whole and framing.tiling is None and not self.takes_whole:
            raise ValueError(
                f"{self.title} takes images of one size: with data.fit tile, --tiles cuts them for "
                "it (model: Tiled)"
            )
        if self.takes_whole and not framing.whole:
            raise ValueError(
                f"{self.title} takes photographs as they are: set data.fit to tile, not "
                f"{framing.fit}"
            )

    def check_data(self, datamodule: Any, stage: str) -> None:
        """Raise a ValueError for data that the networks cannot take, or too little of it."""

    def match_categories(self, categories: list[str], stage: str) -> None:
        """Map the data's categories to the detector's own, or refuse categories it never saw.

        Settings by category that lack one are refused too.
        """
        self.categories = self.categories or list(categories)
        for name in self.by_category:
            self.common_setting(name)
        unknown = sorted(set(categories) - set(self.categories))
        if unknown and stage != "predict":
            raise ValueError(
                f"the checkpoint was trained on {self.categories}, the data has {unknown} too: "
                "set data.category to what it was trained on, or train on these categories"
            )
        own = {name: i for i, name in enumerate(self.categories)}
        self._category_index = {
            i: own.get(name, UNKNOWN_CATEGORY) for i, name in enumerate(categories)
        }

    def batch_loss(self, batch: Any) -> Tensor:
        """Loss of the current phase on a batch; a method may look up its paths in a cache."""
        return self.loss(batch["image"], self.category_of(batch))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """One step of the current phase."""
        loss = self.batch_loss(batch)
        if not torch.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss.item()} in phase '{self.phase}', epoch {self.current_epoch}, "
                f"step {self.global_step}: lower the learning rate or train in 32-true precision; "
                "finished phases are kept, the same command goes on from the last checkpoint"
            )
        self.log(f"{self.phase}/loss", loss, prog_bar=True)
        self.log("loss", loss, logger=False)
        return loss

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """The loss on held-out normal images, with the same noise in every epoch."""
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(batch_idx)
            loss = self.batch_loss(batch)
        size = len(batch["image"])
        self._held_out_loss += torch.stack([loss.detach() * size, loss.new_tensor(size)])

    def on_validation_epoch_start(self) -> None:
        """Start the sum over held-out images."""
        self._held_out_loss = torch.zeros(2, device=self.device)

    def on_validation_epoch_end(self) -> None:
        """Log the mean; here, as one process may have no batch while another reduces its loss."""
        total, images = self.trainer.strategy.reduce(self._held_out_loss, reduce_op="sum")
        self.log(f"{self.phase}/val_loss", total / images, prog_bar=True, sync_dist=True)
        self.log("val_loss", total / images, logger=False, sync_dist=True)

    def test_step(self, batch: Any, batch_idx: int) -> Detection:  # type: ignore[override]
        """Score a batch; callbacks do the rest."""
        return self.detect(batch["image"], self.category_of(batch), batch.get(JUDGED))

    def predict_step(self, batch: Any, batch_idx: int) -> Detection:
        """Score a batch; callbacks do the rest."""
        return self.detect(batch["image"], self.category_of(batch), batch.get(JUDGED))

    def on_test_start(self) -> None:
        """Prepare for speed."""
        self.prepare_inference()

    def on_predict_start(self) -> None:
        """Prepare for speed."""
        self.prepare_inference()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the method and its categories; leave out what only the final checkpoint holds."""
        checkpoint["method"] = type(self).__name__
        checkpoint["categories"] = self.categories
        checkpoint["trained_with"] = self.trained_with
        for key in STATES:
            if key in checkpoint:
                checkpoint[key] = self.without_kept_once(checkpoint[key])

    def without_kept_once(self, state: dict[str, Tensor]) -> dict[str, Tensor]:
        """A state dict less the frozen parts that only the final checkpoint holds."""
        prefixes = tuple(f"{name}." for name in self.kept_once)
        return {key: value for key, value in state.items() if not key.startswith(prefixes)}

    def take_categories(self, checkpoint: dict[str, Any]) -> None:
        """Take over the categories of a checkpoint, if it names some."""
        known = list(checkpoint["categories"]) or self.categories
        if known != self.categories:
            self.categories, self._met = known, None

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Check the method and take over its categories; keep own parts the checkpoint lacks."""
        if "config" in checkpoint and self.framing is None:
            self.framing, self._met = framing_of(yaml.safe_load(checkpoint["config"])), None
        method = checkpoint.get("method", "another program")
        if method not in [base.__name__ for base in type(self).__mro__]:
            raise ValueError(
                f"the checkpoint is of {method}, the configuration of {type(self).__name__}: "
                "give the checkpoint's own config.yaml, or no --config at all"
            )
        thresholds.require_movable(checkpoint, self.false_alarm_rate)
        self.calibrated_rate = thresholds.stated_rate(checkpoint)
        self.take_categories(checkpoint)
        trainer, datamodule = self._trainer, getattr(self._trainer, "datamodule", None)
        if trainer is not None and trainer.state.fn is not None and datamodule is not None:
            # Lightning loads after `setup`, which did not know yet what was trained on.
            self.meet(datamodule, trainer.state.fn.value)
        for key in STATES:
            if key in checkpoint:
                present = {name.split(".")[0] for name in checkpoint[key]}
                own = self.state_dict().items()
                absent = {k: v for k, v in own if k.split(".")[0] not in present}
                checkpoint[key] = {**absent, **checkpoint[key]}
