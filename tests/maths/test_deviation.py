"""DeCo-Diff's forward process and correction against recorded numbers and their definitions."""

from collections import Counter

import torch

from lightning_ad.maths import deviation
from lightning_ad.maths.diffusion import squared_cosine_schedule
from tests.recordings import every_fourth, recorded


def test_training_pair_is_the_authors():
    case = recorded("deco_training")
    zt, d = deviation.deviate(
        case["x"], case["noise"], case["mask"], case["alphas_cumprod"].float(), case["t"]
    )
    torch.testing.assert_close(every_fourth(zt), case["x_t"], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(every_fourth(d), case["target"], rtol=1e-4, atol=1e-5)


def test_taking_the_deviation_away_gives_the_latent_back():
    alpha_bar = squared_cosine_schedule(10)
    z, noise = torch.randn(4, 3, 8, 8).double(), torch.randn(4, 3, 8, 8).double()
    t = torch.tensor([0, 3, 6, 9])
    mask = deviation.patch_mask(torch.full((4,), 0.5), 8, 8, 2)
    zt, d = deviation.deviate(z, noise, mask, alpha_bar, t)
    back = zt - (1 - alpha_bar[t]).sqrt().view(-1, 1, 1, 1) * d
    torch.testing.assert_close(back, z)
    kept = mask.expand_as(z)
    assert torch.equal(zt[kept], z[kept]) and not d[kept].any() and d[~kept].all()


def test_patches_cover_their_share_and_are_square():
    torch.manual_seed(0)
    share = torch.linspace(0, 1, 41)
    for side in deviation.PATCH_SIDES:
        mask = deviation.patch_mask(share, 32, 32, side)
        cells = (32 // side) ** 2
        assert torch.equal((mask.float().mean((1, 2, 3)) * cells).round(), (share * cells).round())
        patches = mask.unfold(2, side, side).unfold(3, side, side).flatten(4)
        assert torch.equal(patches.any(-1), patches.all(-1))


def test_every_place_is_masked_as_often():
    torch.manual_seed(0)
    often = deviation.patch_mask(torch.full((4000,), 0.3), 8, 8, 2).float().mean(0)
    # 16 cells, round(4.8) = 5 of them; four standard deviations of a mean of 4000
    torch.testing.assert_close(often, torch.full_like(often, 5 / 16), rtol=0, atol=0.03)


def test_sides_are_drawn_as_often_as_published():
    torch.manual_seed(0)
    drawn = Counter(deviation.draw_patch_side(32, 32) for _ in range(4000))
    assert set(drawn) == set(deviation.PATCH_SIDES)
    for side, chance in deviation.PATCH_SIDES.items():
        assert abs(drawn[side] / 4000 - chance) < 0.03


def test_sides_fit_a_small_latent():
    torch.manual_seed(0)
    assert {deviation.draw_patch_side(12, 8) for _ in range(200)} == {1, 2, 4}


def test_shuffling_moves_whole_patches_across_images_and_places():
    torch.manual_seed(0)
    z = torch.arange(3 * 2 * 8 * 8).view(3, 2, 8, 8)
    shuffled = deviation.shuffle_patches(z, 4)

    def patches(latent):
        return [
            tuple(latent[image, :, row : row + 4, column : column + 4].flatten().tolist())
            for image in range(3)
            for row in (0, 4)
            for column in (0, 4)
        ]

    assert sorted(patches(shuffled)) == sorted(patches(z))
    assert any(
        a // 128 != b // 128 for a, b in zip(z[:, 0, 0, 0], shuffled[:, 0, 0, 0], strict=True)
    )


def test_noise_is_gaussian_with_some_foreign_patches():
    torch.manual_seed(0)
    z = torch.full((200, 1, 8, 8), 100.0)
    noise = deviation.mixed_noise(z, 2, 0.3)
    foreign = (noise == 100).float().mean((1, 2, 3))
    assert 0.12 < float(foreign.mean()) < 0.18 and float(foreign.max()) <= 5 / 16
    gaussian = noise[noise != 100]
    assert abs(float(gaussian.mean())) < 0.05 and abs(float(gaussian.std()) - 1) < 0.05
