"""The one evaluation path: what makes a detector of a method.

The contract of a method, what it tells and may ask for, is `lightning_ad.detector.contract`. Here
that becomes Lightning's steps, a `Detection` that never depends on the other images of a batch, a
finding about each photograph, and checkpoints that suffice alone.
"""

from collections.abc import Callable, Sequence
from typing import Any, Self

import numpy as np
import torch
import yaml
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from numpy.typing import NDArray
from torch import Tensor

from data_modules.reading.framing import Framing
from data_modules.reading.images import Pixels
from lightning_ad.detector import scoring, states, thresholds
from lightning_ad.detector.agreement import require_takable, require_trained_framing
from lightning_ad.detector.calibration import Calibration
from lightning_ad.detector.contract import Method
from lightning_ad.detector.deciding import Decision
from lightning_ad.detector.detection import Detection
from lightning_ad.detector.judged import JUDGED
from lightning_ad.detector.per_category import UNKNOWN_CATEGORY, require_at_least
from lightning_ad.detector.photograph import Finding, Photograph, framing_of, pixels_of, seen
from lightning_ad.detector.processes import data_module, leave_group_at_exit
from lightning_ad.detector.region import interest_of, lend_region, masks_of_batch
from lightning_ad.maths.diffusion import seeded_noise

PRECISIONS = ("32-true", "16-mixed", "bf16-mixed")
"""Trainer precisions that leave schedules and weights in float32."""

LOSSES = ("loss", "val_loss")
"""What callbacks may watch: of one phase as ``<phase>/loss``, of the current one as ``loss``."""


class AnomalyDetector(Method):
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
        self.decision = Decision(self, false_alarm_rate)
        self.standardize, self.top_share, self.folds = standardize, top_share, folds
        self.categories, self.choices = [], {}
        self.calibration = Calibration()
        self.trained_with: dict[str, Any] | None = None
        """What its checkpoints carry about settings and data, see `lightning_ad.experiment`."""
        self.phase = ""
        self.framing: Framing | None = None
        self.precision = "32-true"
        self.settled = None
        self.noise_of = seeded_noise
        self._category_index = {}
        self._met: Any = None
        self._held_out_loss = torch.zeros(2)
        self._faster = {}  # a dict stays out of checkpoints

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

    # Photographs.

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
        pixels = pixels_of(photograph, self.known_framing.white_level)
        return self.predict_all([pixels], [category], [interest])[0]

    @torch.inference_mode()
    def predict_all(
        self,
        photographs: Sequence[Pixels],
        categories: Sequence[str | None],
        interests: Sequence[NDArray[Any] | None],
    ) -> list[Finding]:
        """Score photographs, each (H, W, 3), as one batch; else as `predict` does."""
        framing = self.known_framing
        if framing.whole and len(photographs) > 1:  # whose sizes may differ
            each = zip(photographs, categories, interests, strict=True)
            return [self.predict_all([p], [c], [i])[0] for p, c, i in each]
        which = torch.tensor([self.number_of(name) for name in categories], device=self.device)
        sizes = [(pixels.shape[0], pixels.shape[1]) for pixels in photographs]
        masks = [
            interest_of(self.calibration, self.categories, name, size, interest)
            for name, size, interest in zip(categories, sizes, interests, strict=True)
        ]
        judged = scoring.judged_of(framing, sizes, masks)
        image = torch.cat([seen(pixels, framing) for pixels in photographs]).to(self.device)
        with self.in_own_precision():
            found = self.detect(image, which, judged)
        return scoring.findings(self.decision, found, which, framing, sizes, masks)

    def findings_of(self, detection: Detection, batch: Any) -> list[Finding]:
        """What is said about the photographs of a `DescribedBatch`: worked out for all who ask."""
        if detection.findings is None:
            sizes = [(height, width) for height, width in batch["size"].tolist()]
            masks = masks_of_batch(data_module(self.trainer), batch)
            category, framing = self.category_of(batch), self.known_framing
            detection.findings = scoring.findings(
                self.decision, detection, category, framing, sizes, masks
            )
        return detection.findings

    @property
    def known_framing(self) -> Framing:
        """How photographs are read; a RuntimeError before data or a checkpoint told so."""
        if self.framing is None:
            raise RuntimeError(
                "the detector knows neither data nor a checkpoint yet, and not how photographs are "
                "read: `load_detector` returns one that does"
            )
        return self.framing

    def number_of(self, category: str | None) -> int:
        """The index of one of `categories`, or `UNKNOWN_CATEGORY` for None."""
        if category not in (None, *self.categories):
            raise ValueError(f"category '{category}' is none of the detector's, {self.categories}")
        return UNKNOWN_CATEGORY if category is None else self.categories.index(category)

    def in_own_precision(self) -> torch.autocast:
        """The context in which Lightning's Trainer scores in `precision`."""
        kind = self.precision.partition("-")[0]
        dtype = {"16": torch.float16, "bf16": torch.bfloat16}.get(kind)
        return torch.autocast(self.device.type, dtype, enabled=dtype is not None)

    # Decisions.

    @property
    def false_alarm_rate(self) -> float:
        """The rate that the thresholds in force are for."""
        return self.decision.false_alarm_rate

    def decide_by(
        self,
        false_alarm_rate: float | None = None,
        threshold: float | None = None,
        smallest_region: int = 1,
    ) -> None:
        """Move the thresholds; nothing is trained or scored again.

        Args:
            false_alarm_rate: see `AnomalyDetector`; if not given, it stays as it is.
            threshold: a score above which images count as anomalous, instead of the calibrated
                one; that of pixels stays.
            smallest_region: area in pixels of a photograph below which no region is reported.

        Raises:
            ValueError: for what is no such number, or for both a rate and a threshold.
        """
        self.decision.move(false_alarm_rate, threshold, smallest_region)

    def threshold(self, false_alarm_rate: float, category: str | None = None) -> float:
        """The image threshold of another false-alarm rate; `decide_by` makes it the one in force.

        ``category`` is one of `categories`; None takes the normal images of all of them.
        """
        number = self.number_of(category)
        return thresholds.threshold_of(self.calibration, false_alarm_rate, number)

    # Detection.

    @torch.no_grad()
    def detect(self, image: Tensor, category: Tensor, judged: Tensor | None = None) -> Detection:
        """Score images (B, 3, H, W) in [-1, 1] of the categories (B,), or `UNKNOWN_CATEGORY`.

        Scores are of the pixels that ``judged`` (B, 1, H, W) marks, if it is given.
        """
        free = self.framing is None or self.takes_whole
        scoring.require_image(image, image.shape[2:] if free else self.known_framing.seen)
        reconstruction, parts = scoring.checked_compare(self, image, category)
        anomaly_map = scoring.checked_fuse(self, parts, category)
        score = scoring.judged_score(self, anomaly_map, parts, judged)
        if reconstruction is not None:
            reconstruction = reconstruction.float()
        return Detection(anomaly_map, score, reconstruction, parts)

    # Phases.

    def enter_phase(self, name: str) -> None:
        """Let only that phase's parts require gradients and train."""
        self.phase = name
        for need in ("trained", "loss", "configure_optimizers"):
            if getattr(type(self), need) is getattr(Method, need):
                raise NotImplementedError(
                    f"{type(self).__name__} has no `{need}` for its phase '{name}': write it, or "
                    "let `phases` return [] if the method trains nothing"
                )
        trained = self.trained()
        if not any(True for part in trained for _ in part.parameters()):
            raise ValueError(
                f"{type(self).__name__}.trained() names no parameters in phase '{name}'"
            )
        states.freeze_all_but(self, trained)
        self.train()

    def train(self, mode: bool = True) -> Self:
        """Set the mode of the parts that train in this phase; what is frozen stays in eval mode."""
        super().train(False)
        self.training = mode
        self._faster = {}  # what they copy may change
        for part in self.trained() if self.phase else []:
            part.train(mode)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Weights that move leave copies of them behind."""
        self._faster = {}
        return super()._apply(fn, recurse)

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
                require_trained_framing(self.framing, datamodule)
                lend_region(self.calibration, self.categories, datamodule)
            require_takable(self.title, self.takes_whole, datamodule)
            self.check_data(datamodule, stage)
            if stage == "fit":
                self.framing = datamodule.framing
            self._met = datamodule

    def __getstate__(self) -> dict[str, Any]:
        """A copy, such as an average of the weights, holds no data."""
        return {**super().__getstate__(), "_met": None}

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

    predict_step = test_step

    def on_test_start(self) -> None:
        """Prepare for speed."""
        self.prepare_inference()

    on_predict_start = on_test_start

    def fingerprint_fields(self, datamodule: Any) -> dict[str, Any]:
        """What the numbers of a test depend on beside `protocol` and data, as JSON values."""
        calibrated = thresholds.part_calibrated_on(self.calibration)
        return calibrated | self.decision.fingerprint_fields()

    # Checkpoints.

    def load_state_dict(self, state_dict: Any, *args: Any, **kwargs: Any) -> Any:
        """Load weights and calibration; the thresholds become those of `false_alarm_rate`."""
        result = super().load_state_dict(state_dict, *args, **kwargs)
        if thresholds.CATEGORY in self.calibration:
            self.decision.set_thresholds()
        return result

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Name the method and its categories; leave out what only the final checkpoint holds."""
        checkpoint["method"] = type(self).__name__
        checkpoint["categories"] = self.categories
        checkpoint["trained_with"] = self.trained_with
        states.leave_out(checkpoint, self.kept_once)

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
        self.decision.calibrated_rate = thresholds.stated_rate(checkpoint)
        self.take_categories(checkpoint)
        trainer, datamodule = self._trainer, getattr(self._trainer, "datamodule", None)
        if trainer is not None and trainer.state.fn is not None and datamodule is not None:
            # Lightning loads after `setup`, which did not know yet what was trained on.
            self.meet(datamodule, trainer.state.fn.value)
        states.complete(checkpoint, self.state_dict())
