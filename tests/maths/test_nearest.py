"""Distances to neighbours against scikit-learn, bins against numpy and the authors' numbers."""

import numpy as np
import torch
from sklearn.neighbors import NearestNeighbors

from lightning_ad.maths.nearest import (
    ROWS_PER_CALL,
    bin_of,
    distance_to_nearest,
    equal_width_edges,
    leave_one_out_distance,
)
from tests.recordings import recorded


def rows(count, seed):
    return torch.randn(count, 24, generator=torch.Generator().manual_seed(seed)).abs()


def scikit_learn(bank):
    return NearestNeighbors(n_neighbors=5, metric="manhattan").fit(bank.float().numpy())


def test_distance_is_scikit_learns_for_a_bank_of_several_calls():
    bank, queries = rows(2 * ROWS_PER_CALL + 9, 0).half(), rows(7, 1).half()
    expected = scikit_learn(bank).kneighbors(queries.float().numpy())[0].mean(1)
    np.testing.assert_allclose(distance_to_nearest(queries, bank, 5), expected, rtol=1e-5)


def test_leaving_one_out_is_scikit_learns_even_with_images_that_occur_twice():
    bank = torch.cat([rows(300, 2), rows(3, 2)])  # several calls
    expected = scikit_learn(bank).kneighbors()[0].mean(1)  # without arguments a row is not its own
    np.testing.assert_allclose(leave_one_out_distance(bank, 5), expected, rtol=1e-5)


def test_bins_are_numpys():
    values = torch.tensor([0.0, 0.1, 2.0, 2.5, 3.99, 4.0, -1.0, 9.0])
    edges = equal_width_edges(torch.tensor([0.0, 4.0, 1.0]), 4)
    expected = np.digitize(values, np.histogram_bin_edges([0, 4], 4)).clip(1, 4)
    assert bin_of(values, edges.repeat(8, 1)).tolist() == expected.tolist()


def test_distances_edges_and_bins_are_the_authors():
    case = recorded("d3ad_dynamic_steps")
    train, test = case["train"], case["test"]
    edges = equal_width_edges(distance_to_nearest(train, train, 20), 10)
    distance = distance_to_nearest(test, train, 20)
    torch.testing.assert_close(edges, case["bin_edges"], rtol=1e-5, atol=0)
    torch.testing.assert_close(distance.double(), case["mean_distance"], rtol=1e-5, atol=0)
    assert torch.equal(bin_of(distance, edges.repeat(len(test), 1)), case["bins"])
