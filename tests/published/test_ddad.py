"""Each habit of DDAD's published code differs from the default, and as its authors have it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from data_modules import Folder
from lightning_ad.methods import DDAD
from lightning_ad.published import DDADAsPublished
from lightning_ad.published.ddad import central
from tests.fakes import texture, write
from tests.maths.test_maps import ddads_distances
from tests.methods.tiny import SIZE, images, same_weights, tiny_denoiser, tiny_pyramid, weights_of
from tests.recordings import every_fourth


def published(**settings):
    detector = DDADAsPublished(tiny_denoiser(), tiny_pyramid(), steps=2, **settings)
    detector.match_categories(["carpet"], "fit")
    detector._category_index = {0: 0}
    return detector.eval()


def batch_of(image):
    size = len(image)
    mask = torch.zeros(size, 1, SIZE, SIZE, dtype=torch.uint8)
    mask[:, :, 0] = 1  # marked in the border that is cut off
    mask[:, :, 8] = 1
    return {"image": image, "mask": mask, "category": torch.zeros(size, dtype=torch.long)}


@pytest.mark.parametrize("v", [1, 7])
def test_fused_map_is_the_authors(v):
    case, pixel, feature = ddads_distances()
    parts = {"pixel": pixel, "feature": feature}
    heat_map = every_fourth(published(pixel_weight=v).fuse(parts, torch.zeros(2)))
    torch.testing.assert_close(heat_map, case[f"heat_map_v{v}"], rtol=1e-4, atol=1e-5)


def test_a_score_depends_on_its_neighbours():
    image, category = images(3), torch.zeros(3, dtype=torch.long)
    image[1:] *= 0.1
    default = DDAD(tiny_denoiser(), tiny_pyramid(), steps=2).eval()
    default.match_categories(["carpet"], "fit")
    default.calibration["ratio"] = torch.tensor(1.0)
    for detector, depends in ((published(), True), (default, False)):
        with torch.no_grad():
            together = detector.detect(image, category).score[:2]
            alone = detector.detect(image[:2], category[:2]).score
        assert torch.allclose(together, alone, rtol=1e-3) != depends


def test_metrics_see_the_central_crop():
    image = images(2)
    detector, batch = published(), batch_of(image)
    with torch.no_grad():
        whole = detector.detect(image, torch.zeros(2, dtype=torch.long))
        cropped = detector.test_step(batch, 0)
    assert batch["mask"].shape == cropped.anomaly_map.shape == (2, 1, 14, 14)
    assert torch.equal(cropped.anomaly_map, whole.anomaly_map[..., 1:15, 1:15])
    assert torch.equal(cropped.score, cropped.anomaly_map.flatten(1).amax(1))
    assert torch.equal(batch["image"], image[..., 1:15, 1:15])
    assert not batch["mask"][:, :, 0].any()
    assert batch["mask"][:, :, 7].all()


def test_224_of_256_pixels_are_central():
    rows = torch.arange(256).view(1, 1, 256, 1).expand(1, 1, 256, 256)
    assert central(rows).shape == (1, 1, 224, 224)
    assert central(rows)[0, 0, [0, -1], 0].tolist() == [16, 239]


def test_adaptation_moves_batch_statistics():
    detector = published()
    before = weights_of(detector.features)
    detector.enter_phase("adapt")
    detector.loss(images(4), torch.zeros(4, dtype=torch.long))
    assert not same_weights(detector.features, before)
    assert not detector.eval().features.training


def test_adaptation_normalizes_reconstructions_and_targets_apart():
    both = torch.cat([images(2), 3 * images(2)])
    detector, default = published(), DDAD(tiny_denoiser(), tiny_pyramid(), steps=2)
    for method in (detector, default):
        method.enter_phase("adapt")
    apart = detector.adapted_features(both)[0][0]
    fresh = tiny_pyramid().train()
    torch.testing.assert_close(apart, fresh(both[:2])[0])
    assert not torch.allclose(apart, default.adapted_features(both)[0][0])


def test_results_carry_the_protocols_name():
    assert published().protocol != DDAD.protocol


def test_fingerprint_names_the_batch_that_scores_depend_on(monkeypatch):
    detector = DDADAsPublished(tiny_denoiser(), tiny_pyramid())
    monkeypatch.setattr(DDADAsPublished, "trainer", SimpleNamespace(world_size=2))
    for size in (16, 32):
        fields = detector.fingerprint_fields(SimpleNamespace(eval_batch_size=size))
        assert fields == {"eval_batch_size": size, "processes": 2}


@pytest.mark.parametrize(
    ("options", "name"), [({"roi": "roi.png"}, "data.roi"), ({"fit": "pad"}, "data.fit pad")]
)
def test_the_crop_is_the_only_part_that_counts(tmp_path, options, name):
    write(tmp_path / "train/0.png", texture(0, 20, 20))
    write(tmp_path / "roi.png", np.full((20, 20), 255, np.uint8))
    given = {"roi": str(tmp_path / "roi.png")} if "roi" in options else options
    data = Folder(str(tmp_path), image_size=SIZE, **{"fit": "squash", **given})
    with pytest.raises(ValueError, match=f"central seven eighths of each image, and {name}"):
        published().check_data(data, "test")
