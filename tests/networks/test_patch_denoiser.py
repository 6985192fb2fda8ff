"""The denoiser of patches: its size, its start, and that patches don't see each other."""

import pytest
import torch
from torch import nn

from lightning_ad.networks import PatchDenoiser


def small(categories=2):
    torch.manual_seed(0)
    network = PatchDenoiser(32, components=6, width=16, categories=categories)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def inputs(images=3):
    generator = torch.Generator().manual_seed(1)
    y = torch.randn(images, 16, 6, generator=generator)
    return y, torch.full((images, 1, 1), 0.7), torch.arange(16), torch.zeros(images).long()


def test_its_size_is_the_measured_ones():
    count = sum(parameter.numel() for parameter in PatchDenoiser().parameters())
    assert count == pytest.approx(2.1e6, rel=0.03)


def test_it_starts_without_an_opinion():
    torch.manual_seed(0)
    assert not PatchDenoiser(32, components=6, width=16)(*inputs()).any()


def test_a_patch_depends_on_itself_its_place_its_level_and_its_category():
    network = small()
    y, sigma, place, category = inputs()
    before = network(y, sigma, place, category)
    moved = y.clone()
    moved[1, 4] += 1
    after = network(moved, sigma, place, category)
    assert [tuple(row) for row in (before != after).any(2).nonzero().tolist()] == [(1, 4)]
    assert (network(y, sigma, place.flip(0), category) != before).any(2).all()
    assert (network(y, 2 * sigma, place, category) != before).any(2).all()
    assert (network(y, sigma, place, category + 1) != before).any(2).all()


def test_places_may_differ_from_image_to_image():
    network = small()
    y, sigma, place, category = inputs()
    chosen = torch.tensor([[3, 0], [5, 5], [15, 2]])
    drawn = y[torch.arange(3)[:, None], chosen]
    expected = network(y, sigma, place, category)[torch.arange(3)[:, None], chosen]
    torch.testing.assert_close(network(drawn, sigma, chosen, category), expected)
