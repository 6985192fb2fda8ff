"""The contract of a method: what it tells, and what it may ask for.

A method is a subclass of `lightning_ad.AnomalyDetector`, and so of `Method`. It must say how it
compares an image with what it knows of normal ones, be it a reconstruction (`compare`); where it
makes several maps, how it fuses them (`fuse`); and where a phase trains, how (`trained`, `loss`,
`configure_optimizers`). The rest has defaults.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.detection import Phase
from lightning_ad.detector.memory import MemoryPass
from lightning_ad.detector.per_category import UNKNOWN_CATEGORY, per_category, require_at_least
from lightning_ad.maths.diffusion import Noise
from lightning_ad.maths.maps import mean_of_largest
from lightning_ad.speed.faster import faster
from lightning_ad.speed.half_precision import HalfPrecision

N = TypeVar("N", bound=nn.Module)


class Method(LightningModule, ABC):
    """What a method tells, and what it may ask for; `AnomalyDetector` makes a detector of it."""

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
    choices: dict[str, tuple[float, ...]]
    """Values of settings of which calibration chooses one for each category."""

    # What it is given.

    categories: list[str]
    """The categories trained on; a category's index is its place among them."""
    calibration: Calibration
    """Named tensors that travel with the weights."""
    phase: str
    """Name of the current phase, "" in none."""
    top_share: float
    """Share of a map's largest values whose mean is the score; 0 takes the largest one."""
    noise_of: Callable[[Tensor], Noise]
    """Where a stochastic sampler has the noise for images (B, C, H, W) from."""
    settled: int | None
    """The category that all images are scored as, see `settle`."""
    _category_index: dict[int, int]
    _faster: dict[nn.Module, HalfPrecision]

    # Training.

    def phases(self) -> list[Phase]:
        """The training phases, in order; none for a method that trains nothing."""
        return [Phase("denoise")]

    def trained(self) -> list[nn.Module]:
        """The parts that train in the current `phase`; all others stay frozen, in eval mode."""
        return []

    def loss(self, image: Tensor, category: Tensor) -> Tensor:
        """Loss of the current `phase` on a batch (B, 3, H, W) with categories (B,)."""
        raise NotImplementedError

    def batch_loss(self, batch: Any) -> Tensor:
        """Loss of the current phase on a batch; a method may look up its paths in a cache."""
        return self.loss(batch["image"], self.category_of(batch))

    def configure_optimizers(self) -> Any:
        """The optimizer of the current `phase`, or what else Lightning takes."""

    def load_pretrained(self) -> None:
        """Load published weights into the parts that come with some."""
        for part in self.children():
            load = getattr(part, "load_pretrained", None)
            if load is not None:
                load()

    # Detection.

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
        Of an image that is judged in part, all maps are cut to the rectangle that holds what is;
        what is not has the smallest value there that is. A score of all values leaves it out by the
        mask (B, 1, H, W) in ``parts`` that `lightning_ad.detector.judged.JUDGED` names.
        """
        return mean_of_largest(anomaly_map, self.top_share * anomaly_map[0].numel())

    def prepare_inference(self) -> None:
        """Lay weights out for speed: channels last won in inference on every device measured."""
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    # Calibration.

    def set_constants(self, extremes: dict[str, Tensor]) -> None:
        """Set constants from ``<part>_min``, ``_max``, ``_mean`` and ``category``, each (N,).

        They are of what is judged in each map of `compare` of held-out normal images; what is put
        into ``self.calibration[name]`` travels with the weights.
        """

    @property
    def has_constants(self) -> bool:
        """Whether `set_constants` has any to set."""
        return type(self).set_constants is not Method.set_constants

    def memory_passes(self, device: torch.device) -> Iterable[MemoryPass]:
        """The looks at all training images that calibration takes, before it takes `extremes`.

        Write it as a generator: each pass is finished when the generator goes on, which may then
        compute on ``device`` and put what it found into ``self.calibration``.
        """
        return ()

    # Data and checkpoints.

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

    def lasting_config(self, config: dict[str, Any]) -> dict[str, Any]:
        """What the final checkpoint keeps of the detector's configuration, to be built again."""
        return config

    def fingerprint_fields(self, datamodule: Any) -> dict[str, Any]:
        """What the numbers of a test depend on beside `protocol` and data, as JSON values."""
        return {}

    # What it may ask for.

    def category_of(self, batch: Any) -> Tensor:
        """The detector's own index (B,) of each image's category, or `UNKNOWN_CATEGORY`."""
        known = [self._category_index.get(i, UNKNOWN_CATEGORY) for i in batch["category"].tolist()]
        return torch.tensor(known, device=batch["category"].device)

    def groups_of(self, category: Tensor) -> list[tuple[int, Tensor | slice]]:
        """The numbers among the categories (B,) of images, each with which images those are."""
        if self.settled is not None:
            return [(self.settled, slice(None))]
        return [(number, category == number) for number in category.unique().tolist()]

    def settle(self, number: int) -> None:
        """Score all images as of one category, or `UNKNOWN_CATEGORY`, from now on.

        What happens to an image then depends on no values of its batch, as an export needs it.
        """
        self.settled = number

    def setting_of(self, name: str, category: Tensor) -> Tensor:
        """A setting in `by_category`, as a number (B,) for each image of the categories (B,)."""
        values = per_category(getattr(self, name), self.categories, name)
        return torch.tensor(values, device=category.device)[category]

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

    def chosen(self, name: str, category: Tensor) -> Tensor:
        """A setting (B,) in `choices` as chosen for the categories (B,); before, its own value."""
        if name in self.calibration:
            return self.calibration.of(name, category)
        return torch.full(category.shape, getattr(self, name), device=category.device)

    def in_precision(self, network: N) -> N | HalfPrecision:
        """A network for inference: itself, or under autocast a copy in half precision, kept."""
        if not torch.is_autocast_enabled(self.device.type):
            return network
        if network not in self._faster:
            dtype = torch.get_autocast_dtype(self.device.type)
            self._faster[network] = faster(network, dtype, self.pairs)
        return self._faster[network]
