"""The space of patches against scikit-learn, and its fast order of operations against the slow."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from lightning_ad.maths.patches import PatchSpace, describe, fit_space, project

CHANNELS = [3, 5]


def layers(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(2, 3, 6, 8, generator=generator, dtype=torch.float64),
        4 * torch.randn(2, 5, 3, 4, generator=generator, dtype=torch.float64),
    ]


def averaged(layer):
    """Mean over the 3x3 cells around each that exist, written out."""
    result = np.empty_like(layer)
    height, width = layer.shape[2:]
    for y in range(height):
        for x in range(width):
            around = layer[:, :, max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
            result[:, :, y, x] = around.mean((2, 3))
    return result


def doubled(layer):
    """Twice as many cells, bilinear between the centres of the old ones."""
    rows, columns = (np.clip((np.arange(2 * n) + 0.5) / 2 - 0.5, 0, n - 1) for n in layer.shape[2:])

    def along(values, places, axis):
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, values.shape[axis] - 1)
        share = (places - low).reshape([-1 if a == axis else 1 for a in range(4)])
        return values.take(low, axis) * (1 - share) + values.take(high, axis) * share

    return along(along(layer, rows, 2), columns, 3)


def test_a_patch_is_described_by_averages_of_all_layers():
    first, second = (layer.numpy() for layer in layers())
    expected = np.concatenate([averaged(first), doubled(averaged(second))], 1)
    np.testing.assert_allclose(describe(layers()).numpy(), expected)


def test_projecting_each_layer_first_changes_nothing():
    generator = torch.Generator().manual_seed(1)
    space = PatchSpace(
        torch.randn(8, generator=generator, dtype=torch.float64),
        torch.randn(8, 4, generator=generator, dtype=torch.float64),
    )
    described = describe(layers()).movedim(1, -1)
    expected = ((described - space.mean) @ space.projection).movedim(-1, 1)
    torch.testing.assert_close(project(layers(), space), expected)


def patches(count=500):
    """Correlated channels, the second layer's ten times as large, away from 0."""
    generator = torch.Generator().manual_seed(2)
    mixed = torch.randn(count, 8, generator=generator) @ torch.randn(8, 8, generator=generator)
    return mixed * torch.tensor([1.0] * 3 + [10.0] * 5) + 3


def scaled(found):
    """Both layers with a summed variance of 1, centred."""
    centred = found - found.mean(0)
    parts = [part / part.var(0, correction=0).sum().sqrt() for part in centred.split(CHANNELS, 1)]
    return torch.cat(parts, 1)


def points(found, space):
    return (found - space.mean) @ space.projection


@pytest.mark.parametrize("components", [8, 3])
def test_full_whitening_is_scikit_learns(components):
    found = patches()
    ours = points(found, fit_space(found, CHANNELS, components, 1.0))
    reference = PCA(components, whiten=True).fit_transform(scaled(found).double().numpy())
    reference *= (len(found) / (len(found) - 1)) ** 0.5  # their variances are of samples
    signs = np.sign((ours.numpy() * reference).sum(0))
    np.testing.assert_allclose(ours.numpy(), reference * signs, rtol=1e-3, atol=1e-3)


def test_no_whitening_keeps_distances_but_for_their_unit():
    found = patches()
    ours = torch.pdist(points(found, fit_space(found, CHANNELS, 8, 0.0)))
    ratio = ours / torch.pdist(scaled(found))
    torch.testing.assert_close(ratio, ratio[0].expand_as(ratio), rtol=1e-3, atol=1e-3)


def test_half_whitening_takes_the_square_root_of_the_spread():
    found = patches()
    half = points(found, fit_space(found, CHANNELS, 6, 0.5)).var(0, correction=0)
    none = points(found, fit_space(found, CHANNELS, 6, 0.0)).var(0, correction=0)
    torch.testing.assert_close(half.mean(), torch.tensor(1.0), rtol=1e-4, atol=1e-4)
    assert half[0] > 1.5 * half[-1]
    torch.testing.assert_close(half / half[0], (none / none[0]).sqrt(), rtol=1e-3, atol=1e-3)


def test_what_cannot_span_a_space_is_refused_with_what_to_do():
    with pytest.raises(ValueError, match=r"8 channels together: set it to at most 8"):
        fit_space(patches(), CHANNELS, 9, 0.5)
    with pytest.raises(ValueError, match=r"4 patches .* too few for model.components 4"):
        fit_space(patches(4), CHANNELS, 4, 0.5)
    with pytest.raises(ValueError, match=r"layer 1 of 2 are the same .* constant"):
        fit_space(torch.ones(50, 8), CHANNELS, 4, 0.5)
    repeated = patches(3).repeat(20, 1)
    with pytest.raises(ValueError, match=r"vary in 2 directions only: set model.components"):
        fit_space(repeated, CHANNELS, 4, 0.5)
