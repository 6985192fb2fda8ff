"""Products by oneDNN against double precision."""

import pytest
import torch

from lightning_ad.speed.products import IMAGES, Linear, affine


@pytest.mark.parametrize("shape", [(1,), (IMAGES,), (3 * IMAGES + 5,), (2, 9), (0,)])
def test_rows_are_multiplied_whatever_their_number(shape):
    generator = torch.Generator().manual_seed(0)
    points = torch.randn(*shape, 7, generator=generator)
    weight, bias = torch.randn(5, 7, generator=generator), torch.randn(5, generator=generator)
    expected = points.double() @ weight.double().T + bias.double()
    with torch.inference_mode():
        found = affine(points, weight, bias)
        seen_from_behind = affine(points.mT.contiguous().mT, weight, bias)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(seen_from_behind, found)


def test_a_layer_learns_and_scores_alike():
    layer, points = Linear(7, 5), torch.randn(4, 9, 7)
    with torch.no_grad():
        scored = layer(points)
    learnt = layer(points)
    learnt.sum().backward()
    torch.testing.assert_close(scored, learnt)
    torch.testing.assert_close(layer.weight.grad, points.sum((0, 1)).expand(5, 7))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        assert layer(points).dtype == torch.bfloat16
