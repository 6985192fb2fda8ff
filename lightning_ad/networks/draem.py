"""The two networks of DRAEM: one that repairs an image, one that marks what was repaired.

Zavrtanik, Kristan, Skočaj, "DRÆM: A discriminatively trained reconstruction embedding for surface
anomaly detection", ICCV 2021, arXiv 2108.07610. Parts are named as in the authors' code, so that
their weights load.
"""

import torch
from torch import Tensor, nn


class ReconstructiveNetwork(nn.Module):
    """Encoder and decoder without shortcuts: images (B, 3, H, W) in [0, 1], repaired.

    Args:
        width: channels of the first of five levels; the authors' is 128. H and W are multiples
            of 16.
    """

    factor = 16

    def __init__(self, width: int = 128) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width]
        self.encoder = _Encoder(3, widths)
        self.decoder = _PlainDecoder(width)

    def forward(self, image: Tensor) -> Tensor:
        """Repair images (B, 3, H, W)."""
        return self.decoder(self.encoder(image)[-1])


class SegmentationNetwork(nn.Module):
    """U-Net on a reconstruction and its image (B, 6, H, W): logits (B, 2, H, W), normal first.

    Args:
        width: channels of the first of six levels; the authors' is 64. H and W are multiples
            of 32.
    """

    factor = 32

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width, 8 * width, 8 * width]
        self.encoder_segment = _Encoder(6, widths)
        self.decoder_segment = _ShortcutDecoder(widths)

    def forward(self, both: Tensor) -> Tensor:
        """Logits of reconstructions and images, concatenated along their channels."""
        return self.decoder_segment(self.encoder_segment(both))


class _Encoder(nn.Module):
    """Blocks ``block1``, ``block2``, ..., each after the first at half the resolution."""

    def __init__(self, channels: int, widths: list[int]) -> None:
        super().__init__()
        self.levels = len(widths)
        for number, (before, after) in enumerate(
            zip([channels, *widths], widths, strict=False), start=1
        ):
            self.add_module(f"block{number}", _block(before, after, after))

    def forward(self, image: Tensor) -> list[Tensor]:
        outputs = [self.get_submodule("block1")(image)]
        for number in range(2, self.levels + 1):
            halved = nn.functional.max_pool2d(outputs[-1], 2)
            outputs.append(self.get_submodule(f"block{number}")(halved))
        return outputs


class _PlainDecoder(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.up1, self.db1 = _up(8 * width, 8 * width), _block(8 * width, 8 * width, 4 * width)
        self.up2, self.db2 = _up(4 * width, 4 * width), _block(4 * width, 4 * width, 2 * width)
        self.up3, self.db3 = _up(2 * width, 2 * width), _block(2 * width, 2 * width, width)
        self.up4, self.db4 = _up(width, width), _block(width, width, width)
        self.fin_out = nn.Sequential(nn.Conv2d(width, 3, 3, padding=1))

    def forward(self, deepest: Tensor) -> Tensor:
        x = self.db1(self.up1(deepest))
        x = self.db2(self.up2(x))
        x = self.db3(self.up3(x))
        return self.fin_out(self.db4(self.up4(x)))


class _ShortcutDecoder(nn.Module):
    """Levels ``b``, 1, 2, 3, 4 upwards; each sees the encoder's output of its resolution."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        w1, w2, w3, w4, w5, w6 = widths
        self.up_b, self.db_b = _up(w6, w5), _block(2 * w5, w5, w5)
        self.up1, self.db1 = _up(w5, w3), _block(w3 + w4, w3, w3)
        self.up2, self.db2 = _up(w3, w2), _block(w2 + w3, w2, w2)
        self.up3, self.db3 = _up(w2, w1), _block(w1 + w2, w1, w1)
        self.up4, self.db4 = _up(w1, w1), _block(w1 + w1, w1, w1)
        self.fin_out = nn.Sequential(nn.Conv2d(w1, 2, 3, padding=1))

    def forward(self, levels: list[Tensor]) -> Tensor:
        *shortcuts, x = levels
        for name, shortcut in zip(("_b", "1", "2", "3", "4"), reversed(shortcuts), strict=True):
            up, block = self.get_submodule(f"up{name}"), self.get_submodule(f"db{name}")
            x = block(torch.cat([up(x), shortcut], 1))
        return self.fin_out(x)


def _block(before: int, between: int, after: int) -> nn.Sequential:
    return nn.Sequential(*_convolution(before, between), *_convolution(between, after))


def _up(before: int, after: int) -> nn.Sequential:
    upsampling = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
    return nn.Sequential(upsampling, *_convolution(before, after))


def _convolution(before: int, after: int) -> list[nn.Module]:
    return [nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
