"""DRAEM against the authors' recorded numbers, and the defects it trains on."""

import json

import numpy as np
import pytest
import torch

from data_modules.perlin import perlin_noise
from data_modules.problems import DataError
from data_modules.textured_defects import SHIPPED, TexturedDefects
from lightning_ad.maths.losses import focal_loss, ssim_loss
from lightning_ad.methods import DRAEM
from lightning_ad.networks.draem import ReconstructiveNetwork, SegmentationNetwork
from tests.fakes import write
from tests.methods.tiny import rates
from tests.recordings import GOLDEN, every_fourth, fill_baseline, recorded

HALF = {"rtol": 2e-3, "atol": 2e-3}
"""How far inputs recorded in half precision let results stray."""


@pytest.fixture(scope="module")
def case():
    arrays = recorded("draem")
    return {
        name: value.float() if value.dtype == torch.half else value
        for name, value in arrays.items()
    }


def draem(reconstruction=16, segmentation=8):
    detector = DRAEM(ReconstructiveNetwork(reconstruction), SegmentationNetwork(segmentation))
    detector.match_categories(["carpet"], "fit")
    return detector.eval()


@pytest.fixture(scope="module")
def authors():
    detector = draem()
    fill_baseline(detector.reconstruction)
    fill_baseline(detector.segmentation)
    return detector


@torch.no_grad()
def test_networks_and_score_are_the_authors(case, authors):
    found = authors.detect(2 * case["augmented"] - 1, torch.zeros(2, dtype=torch.long))
    repaired, defect = authors.repair(2 * case["augmented"] - 1)
    torch.testing.assert_close(every_fourth(repaired), case["reconstruction"], **HALF)
    torch.testing.assert_close(every_fourth(defect), case["segmentation"][:, 1:], **HALF)
    torch.testing.assert_close(found.score, case["image_score"], **HALF)


def test_a_share_of_the_squares_may_score():
    shared = DRAEM(ReconstructiveNetwork(4), SegmentationNetwork(4), top_share=0.05)
    defect = torch.rand(2, 1, 40, 48, generator=torch.Generator().manual_seed(0))
    padded = torch.nn.functional.pad(defect, (10,) * 4).unfold(2, 21, 1).unfold(3, 21, 1)
    means = padded.mean((4, 5)).flatten(1).sort(1, descending=True).values
    torch.testing.assert_close(shared.score(defect, {}), means[:, :96].mean(1))  # of 40 x 48
    torch.testing.assert_close(draem(4, 4).score(defect, {}), means[:, 0])


@torch.no_grad()
def test_losses_are_the_authors(case, authors):
    repaired, defect = authors.repair(2 * case["augmented"] - 1)
    both = torch.cat([1 - defect, defect], 1)
    torch.testing.assert_close(focal_loss(both, case["mask"]), case["loss_focal"], **HALF)
    in_range = ssim_loss(case["ssim_input"], case["image"])
    torch.testing.assert_close(in_range, case["loss_ssim_in_0_1"], rtol=1e-4, atol=0)
    # The authors take a range of 2 where a network, not yet trained, leaves [0, 1] downwards.
    wide = ssim_loss(repaired, case["image"], data_range=2.0)
    torch.testing.assert_close(wide, case["loss_ssim"], rtol=1e-3, atol=0)
    l2 = (repaired - case["image"]).square().mean()
    torch.testing.assert_close(l2, case["loss_l2"], rtol=1e-3, atol=0)
    image, copy = (2 * case[name] - 1 for name in ("image", "augmented"))
    total = authors.paired_loss(image, copy, case["mask"])
    torch.testing.assert_close(
        total, l2 + ssim_loss(repaired, case["image"]) + case["loss_focal"], rtol=1e-3, atol=0
    )


def test_networks_of_full_width_take_the_authors_weights():
    shapes = json.loads((GOLDEN / "draem_keys.json").read_text())
    with torch.device("meta"):
        networks = {
            "reconstructive": ReconstructiveNetwork(),
            "discriminative": SegmentationNetwork(),
        }
    for name, network in networks.items():
        own = {key: list(value.shape) for key, value in network.state_dict().items()}
        assert own == shapes[name]


@pytest.mark.parametrize("cells", ["1x4", "8x2"])
def test_perlin_noise_is_the_authors(case, cells):
    noise = perlin_noise(case[f"perlin_angles_{cells}"].numpy(), (64, 64))
    np.testing.assert_allclose(noise[::4, ::4], case[f"perlin_{cells}"], atol=1e-6)


GRAY = np.full((64, 64, 3), 100, np.uint8)


def test_defects_lie_inside_their_masks_and_half_of_the_images_have_none():
    defects, without, turned = TexturedDefects(), 0, 0
    for seed in range(200):
        drawn = defects(GRAY, "carpet", np.random.default_rng(seed))
        outside = drawn.mask == 0
        np.testing.assert_array_equal(drawn.defective[outside], drawn.normal[outside])
        without += np.array_equal(drawn.defective, drawn.normal) and not drawn.mask.any()
        turned += not np.array_equal(drawn.normal, GRAY)
    assert 80 <= without <= 130  # a scale whose noise stays low may leave no defect, too
    assert 40 <= turned <= 80  # three in ten


def test_defects_depend_on_the_generator_alone():
    first, other = TexturedDefects(), TexturedDefects()
    first(GRAY, "carpet", np.random.default_rng(7))
    for seed in range(6):
        a = first(GRAY, "carpet", np.random.default_rng(seed))
        b = other(GRAY, "carpet", np.random.default_rng(seed))
        np.testing.assert_array_equal(a.defective, b.defective)


def test_a_texture_shines_through_at_least_by_a_fifth(tmp_path):
    write(tmp_path / "deep/white.png", np.full((20, 30, 3), 255, np.uint8))
    defects = TexturedDefects(str(tmp_path))
    defects._altered = lambda texture, generator: texture
    seen = []
    for seed in range(60):
        drawn = defects(GRAY, "carpet", np.random.default_rng(seed))
        still = np.array_equal(drawn.normal, GRAY)
        seen += [drawn.defective[drawn.mask == 1].min()] if drawn.mask.any() and still else []
    opacity = (np.array(seen, float) - 100) / 155
    assert 0.19 <= opacity.min() < 0.35 and 0.85 < opacity.max() <= 1


def test_a_category_is_never_its_own_texture(monkeypatch):
    taken = set()
    monkeypatch.setattr(
        "data_modules.textured_defects.photograph", lambda name: taken.add(name) or GRAY[..., 0]
    )
    for seed in range(100):
        TexturedDefects()(GRAY, "brick", np.random.default_rng(seed))
    assert taken == set(SHIPPED) - {"brick"}


def test_a_folder_without_images_is_named(tmp_path):
    with pytest.raises(DataError, match=r"model\.textures.*no images.*" + tmp_path.name):
        TexturedDefects(str(tmp_path))


def test_an_image_is_repaired_to_what_it_is_without_the_defect_turned_if_the_copy_is():
    torch.manual_seed(0)
    detector, white = draem(reconstruction=4, segmentation=4), torch.ones(40, 3, 32, 32)
    detector.paired_loss = lambda *parts: parts
    normal, defective, mask = detector.loss(white, torch.zeros(40, dtype=torch.long))
    torch.testing.assert_close(torch.where(mask == 1, normal, defective), normal, rtol=0, atol=0)
    turned = (normal != white).flatten(1).any(1)  # black corners come into sight
    assert 4 <= turned.sum() <= 20  # three in ten


def test_the_learning_rate_falls_when_the_authors_does():
    optimizer = torch.optim.Adam([torch.zeros(1)], lr=1e-4)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [80, 90], gamma=0.2)
    theirs = []
    for _ in range(100):
        theirs += schedule.get_last_lr()
        optimizer.step()
        schedule.step()
    assert rates(draem(reconstruction=4, segmentation=4), 100) == pytest.approx(theirs)


def test_training_learns_to_mark_pasted_defects():
    torch.manual_seed(0)
    detector = draem(reconstruction=4, segmentation=4)
    detector.enter_phase("train")
    optimizer = torch.optim.Adam(
        [p for part in detector.trained() for p in part.parameters()], lr=3e-3
    )
    image, category = torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.long)
    losses = []
    for _ in range(40):
        loss = detector.loss(image, category)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert sum(losses[-8:]) < 0.7 * sum(losses[:8])
