"""The fast greedy choice against the plain one, and neighbours against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from lightning_ad.maths.coreset import (
    HEAD,
    around,
    farthest_points,
    nearest,
    random_projection,
    reweighted,
)


def plain(points, count):
    """Algorithm 1 of the paper, word for word, beginning with the first point."""
    chosen = [0]
    distance = np.linalg.norm(points - points[0], axis=1)
    while len(chosen) < count:
        chosen.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[chosen[-1]], axis=1))
    return chosen


def cloud(count, dimensions, seed=0):
    return torch.randn(count, dimensions, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    ("points", "count"),
    [(30, 30), (700, 200), (2 * HEAD + 100, 300)],
    ids=["all", "one head", "several heads"],
)
def test_the_choice_is_the_plain_algorithms(points, count):
    found = cloud(points, 6)
    assert farthest_points(found, count).tolist() == plain(found.double().numpy(), count)


def test_clusters_larger_than_the_head_are_all_found():
    centres = 100 * cloud(20, 6, seed=1)
    found = torch.cat([centre + cloud(HEAD // 8, 6, seed=2) for centre in centres])
    cluster = farthest_points(found, 20) // (HEAD // 8)
    assert sorted(cluster.tolist()) == list(range(20))


def test_repeated_points_do_not_stop_the_choice():
    assert len(farthest_points(torch.ones(10, 3), 5).unique()) == 5


def test_a_random_projection_keeps_distances():
    found = cloud(200, 256)
    ratio = torch.pdist(found @ random_projection(256, 128, seed=0)) / torch.pdist(found)
    assert abs(float(ratio.mean()) - 1) < 0.05 and float(ratio.std()) < 0.1


def test_the_nearest_is_scikit_learns():
    members, points = cloud(HEAD + 500, 16), cloud(300, 16, seed=1)
    distance, index = nearest(points, members)
    expected = NearestNeighbors(n_neighbors=1).fit(members.numpy()).kneighbors(points.numpy())
    np.testing.assert_allclose(distance.numpy(), expected[0][:, 0], rtol=1e-5)
    assert index.tolist() == expected[1][:, 0].tolist()


def test_small_distances_far_from_the_origin_are_exact():
    members = 30 + torch.eye(4)
    distance, index = nearest(members[2:3] + 1e-3, members)
    assert index.item() == 2
    torch.testing.assert_close(distance, torch.tensor([2e-3]), rtol=1e-2, atol=0)


def test_reweighting_written_out():
    """Equation 7: s = (1 - exp(d*) / sum of exp(d) over the members around m*) d*."""
    members, points = cloud(50, 3), cloud(4, 3, seed=1)
    distance, index = nearest(points, members)
    close = around(members, 5)[index]
    found = reweighted(distance, points, members[close])
    order = np.linalg.norm(members[:, None] - members[None], axis=2).argsort(1)
    for row in range(4):
        group = members.numpy()[order[index[row]][:5]]
        each = np.exp(np.linalg.norm(points[row].numpy() - group, axis=1))
        star = float(distance[row])
        assert float(found[row]) == pytest.approx((1 - np.exp(star) / each.sum()) * star, rel=1e-4)
