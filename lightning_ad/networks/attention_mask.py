"""Where a denoiser looks: regions that draw the self-attention of its middle block.

Self-attention guidance (Hong et al., ICCV 2023, arXiv 2210.00939, section 4.2) disturbs only what
the network attends to. Attention is read from the outside, through a hook, so that a denoiser is
the same network whether it is watched or not.
"""

from types import TracebackType
from typing import Any

import torch.nn.functional as F
from diffusers.models.attention_processor import Attention
from torch import Tensor, nn

from lightning_ad.networks.unet import DiffusionUNet


class WatchedAttention:
    """Context in which a U-Net's middle attention is followed from call to call.

    Raises:
        TypeError: if the denoiser neither is nor wraps a `DiffusionUNet`.
    """

    def __init__(self, denoiser: nn.Module) -> None:
        network = next((m for m in denoiser.modules() if isinstance(m, DiffusionUNet)), None)
        if network is None:
            raise TypeError(
                f"attention is read from the middle block of a DiffusionUNet, not of a"
                f" {type(denoiser).__name__}: choose that denoiser or blur without attention"
            )
        self._attention: Attention = network.unet.mid_block.attentions[0]
        self._seen: Tensor | None = None

    def __enter__(self) -> "WatchedAttention":
        self._hook = self._attention.register_forward_pre_hook(self._watch)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._hook.remove()

    def _watch(self, attention: Attention, inputs: tuple[Any, ...]) -> None:
        self._seen = inputs[0]

    def mask(self, threshold: float, size: tuple[int, int]) -> Tensor:
        """Where positions drew more than ``threshold`` in the last call, (B, 1, *size) of bool.

        What a position draws is its attention weight, averaged over heads and summed over queries:
        1 on average over all positions.
        """
        if self._seen is None:
            raise RuntimeError("the denoiser has not been called since its attention is watched")
        images, _, *side = self._seen.shape
        tokens = self._attention.group_norm(self._seen.flatten(2)).transpose(1, 2)
        query = self._attention.head_to_batch_dim(self._attention.to_q(tokens))
        key = self._attention.head_to_batch_dim(self._attention.to_k(tokens))
        weights = self._attention.get_attention_scores(query, key)  # (B * heads, queries, keys)
        drawn = weights.float().unflatten(0, (images, -1)).mean(1).sum(1)
        mask = (drawn > threshold).float().view(images, 1, *side)
        return F.interpolate(mask, size, mode="nearest").bool()
