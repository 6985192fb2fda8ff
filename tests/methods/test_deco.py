"""DeCo-Diff against the recorded numbers, its class modes and what every detector promises."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import nn

from lightning_ad.detector import contract
from lightning_ad.maths import deviation
from lightning_ad.maths.deviation import latent_deviation, pixel_deviation
from lightning_ad.methods import DeCoDiff
from tests.methods.tiny import images, rates, same_weights, tiny_pyramid, weights_of
from tests.methods.tiny_latent import TinyLatents, tiny_context_unet
from tests.recordings import authors_denoiser, every_fourth, recorded

CATEGORIES = ["bottle", "grid"]


def deco(null_class=True, features=None, **settings):
    network = tiny_context_unet(null_class=null_class)
    detector = DeCoDiff(TinyLatents(), network, features, **{"class_mode": "null"} | settings)
    detector.match_categories(CATEGORIES, "fit")
    return detector.eval()


def test_training_loss_is_the_authors():
    case = recorded("deco_training")
    detector = DeCoDiff(TinyLatents(), authors_denoiser("deco"), class_mode="given")
    np.testing.assert_allclose(detector.alpha_bar, case["alphas_cumprod"], rtol=1e-6)
    for i, loss in enumerate(case["loss"]):
        one = (case[name][i : i + 1] for name in ("x", "t", "noise", "mask", "classes"))
        with torch.no_grad():
            torch.testing.assert_close(detector.deviation_loss(*one), loss, rtol=1e-4, atol=0)


@pytest.mark.parametrize("steps", [5, 10])
def test_correction_is_the_authors(steps):
    case, network, visited = recorded("deco_correction"), authors_denoiser("deco"), []
    detector = DeCoDiff(TinyLatents(), network, class_mode="given", steps=steps)
    hook = network.register_forward_pre_hook(lambda _, inputs: visited.append(inputs[1]))
    with torch.no_grad():
        corrected = every_fourth(detector.correct(case["x"], case["classes"]))
    hook.remove()
    assert torch.equal(torch.stack(visited)[:, 0], case[f"timesteps_{steps}"].flip(0))
    expected = case[f"corrected_{steps}_steps"]
    torch.testing.assert_close(corrected, expected, rtol=1e-4, atol=1e-4)


def test_maps_are_the_authors():
    case = recorded("deco_maps")
    parts = {
        "pixel": pixel_deviation(case["x_hat"], case["x0"]),
        "latent": latent_deviation(case["z_hat"], case["z0"], 8),
    }
    fused = {**parts, "geometric": deco().fuse(parts, torch.zeros(2))}
    for name, ours in fused.items():
        sampled = every_fourth(every_fourth(ours))[:, 0]
        torch.testing.assert_close(sampled, case[name], rtol=1e-4, atol=1e-5)


def test_smoothing_is_scipys_also_in_small_maps():
    a, b = torch.rand(1, 3, 8, 10), torch.rand(1, 3, 8, 10)
    distance = ((a - b).abs().amax(1)[0].clamp(max=0.4) * 2.5).numpy()
    np.testing.assert_allclose(
        pixel_deviation(a, b)[0, 0], gaussian_filter(distance, 3), rtol=1e-4, atol=1e-5
    )


def test_training_lowers_the_loss():
    detector, category = deco(), torch.tensor([0, 1, 0, 1])
    detector.enter_phase("denoise")

    def loss_on_the_same_deviations():
        torch.manual_seed(0)
        with torch.no_grad():
            return np.mean([detector.loss(images(4), category).item() for _ in range(5)])

    before = loss_on_the_same_deviations()
    optimizer = torch.optim.Adam(detector.denoiser.parameters(), 3e-3)
    for seed in range(1, 21):
        torch.manual_seed(seed)
        optimizer.zero_grad()
        detector.loss(images(4), category).backward()
        optimizer.step()
    assert loss_on_the_same_deviations() < 0.8 * before


def test_only_the_network_trains():
    detector = deco(features=tiny_pyramid())
    detector.enter_phase("denoise")
    before = [weights_of(part) for part in (detector.autoencoder, detector.features)]
    network = weights_of(detector.denoiser)
    optimizer = torch.optim.SGD([p for p in detector.parameters() if p.requires_grad], 0.1)
    detector.loss(images(4), torch.tensor([0, 1, 0, 1])).backward()
    optimizer.step()
    assert same_weights(detector.autoencoder, before[0])
    assert same_weights(detector.features, before[1])
    assert not same_weights(detector.denoiser, network)
    assert detector.denoiser.training and not detector.autoencoder.training
    assert all(p.grad is not None for p in detector.denoiser.parameters())


def test_frozen_parts_are_left_to_the_final_checkpoint():
    detector = deco(features=tiny_pyramid())
    checkpoint = {"state_dict": detector.state_dict()}
    detector.on_save_checkpoint(checkpoint)
    kept = checkpoint["state_dict"]
    assert kept and all(key.startswith("denoiser.") for key in kept)


def test_deviations_are_drawn_as_asked(monkeypatch):
    monkeypatch.setattr(deviation, "draw_patch_side", lambda height, width: 1)
    torch.manual_seed(0)
    detector, drawn = deco(max_masked=0.6, max_shuffled=0.2), {}

    def remember(z, t, noise, mask, category):
        drawn.update(t=t, noise=noise, mask=mask)

    detector.deviation_loss = remember
    detector.latent_loss(torch.full((4000, 4, 8, 8), 100.0), torch.zeros(4000, dtype=torch.long))
    assert drawn["t"].bincount().tolist() == pytest.approx([400] * 10, abs=80)
    deviating = 1 - drawn["mask"].float().mean((1, 2, 3))
    assert float(deviating.mean()) == pytest.approx(0.3, abs=0.02)
    assert 0.59 < float(deviating.max()) <= 0.61
    assert float((drawn["noise"] == 100).float().mean()) == pytest.approx(0.1, abs=0.02)


def test_classes_are_dropped_as_often_as_asked():
    torch.manual_seed(0)
    detector = deco(class_dropout=0.25)
    seen = []
    detector.deviation_loss = lambda z, t, noise, mask, category: seen.append(category)
    detector.latent_loss(torch.zeros(2000, 4, 2, 2), torch.ones(2000, dtype=torch.long))
    assert set(seen[0].tolist()) == {1, 2}
    assert abs(float((seen[0] == 2).float().mean()) - 0.25) < 0.04


def test_network_without_null_class_sees_every_class():
    detector = deco(null_class=False, class_mode="given", class_dropout=0.9)
    seen = []
    detector.deviation_loss = lambda z, t, noise, mask, category: seen.append(category)
    detector.latent_loss(torch.zeros(200, 4, 2, 2), torch.ones(200, dtype=torch.long))
    assert set(seen[0].tolist()) == {1}


@pytest.mark.parametrize("mode", ["given", "null", "predicted"])
def test_neighbours_do_not_matter(mode):
    detector, image = deco(class_mode=mode, features=tiny_pyramid()), images(3)
    category, order = torch.tensor([0, 1, 0]), torch.tensor([2, 0, 1])
    if mode == "predicted":
        detector.build_memory(detector.class_features(image), category)
    with torch.no_grad():
        together = detector.detect(image, category).anomaly_map
        shuffled = detector.detect(image[order], category[order]).anomaly_map
        torch.testing.assert_close(shuffled, together[order], rtol=1e-5, atol=1e-5)
        for i in range(3):
            alone = detector.detect(image[i : i + 1], category[i : i + 1])
            torch.testing.assert_close(alone.anomaly_map[0], together[i], rtol=1e-5, atol=1e-5)


def test_detection_has_the_shapes_it_promises():
    with torch.no_grad():
        detection = deco().detect(images(2), torch.tensor([0, 1]))
    for map in (detection.anomaly_map, *detection.parts.values()):
        assert map.shape == (2, 1, 16, 16) and map.dtype == torch.float32
    assert detection.reconstruction.shape == (2, 3, 16, 16) and detection.score.shape == (2,)


def test_both_decodes_are_one_batch_and_equal_two():
    detector, image = deco(), images(2)
    decode, batches = detector.autoencoder.decode, []
    detector.autoencoder.decode = lambda z: batches.append(len(z)) or decode(z)
    with torch.no_grad():
        reconstruction, parts = detector.compare(image, torch.tensor([0, 0]))
        z = detector.autoencoder.encode(image)
        assert batches == [4]
        torch.testing.assert_close(parts["pixel"], pixel_deviation(reconstruction, decode(z)))


@pytest.mark.parametrize(("reference", "pairs"), [("decoded", True), ("image", False)])
def test_half_precision_is_told_what_is_a_pair(monkeypatch, reference, pairs):
    asked = []
    monkeypatch.setattr(contract, "faster", lambda *which: asked.append(which) or which[0])
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        deco(reference=reference).compare(images(2), torch.tensor([0, 0]))
    assert [told for _, _, told in asked] == [pairs, pairs]  # autoencoder and denoiser


def test_correction_can_be_compared_with_the_image_itself():
    image, category = images(2), torch.tensor([0, 0])
    with torch.no_grad():
        reconstruction, parts = deco(reference="image").compare(image, category)
        _, decoded = deco().compare(image, category)
    torch.testing.assert_close(parts["pixel"], pixel_deviation(reconstruction, image))
    assert not torch.allclose(parts["pixel"], decoded["pixel"], atol=1e-3)


@pytest.mark.parametrize("null", ["null", None])  # YAML reads an unquoted null as None
def test_null_mode_needs_no_class(null):
    with torch.no_grad():
        known = deco(class_mode=null).detect(images(2), torch.tensor([0, 1])).anomaly_map
        unknown = deco().detect(images(2), torch.tensor([-1, -1])).anomaly_map
    assert torch.equal(known, unknown)
    assert deco().protocol == "default (class: null)"


def test_given_mode_uses_the_class_and_refuses_images_without():
    detector = deco(class_mode="given")
    with torch.no_grad():
        first = detector.detect(images(1), torch.tensor([0])).anomaly_map
        second = detector.detect(images(1), torch.tensor([1])).anomaly_map
        assert not torch.allclose(first, second)
        with pytest.raises(ValueError, match=r"class_mode is given.*null or predicted"):
            detector.detect(images(2), torch.tensor([0, -1]))


class Brightness(nn.Module):
    """A pyramid of one layer: the means of each colour."""

    def forward(self, image):
        return [image + 1]


def test_predicted_mode_finds_the_nearest_category():
    detector = deco(features=Brightness(), class_mode="predicted")
    red, blue = torch.tensor([0.8, -0.5, -0.5]), torch.tensor([-0.5, -0.5, 0.8])
    image = torch.stack([red, blue, red]).view(3, 3, 1, 1) + 0.1 * torch.randn(3, 3, 16, 16)
    image = image.clamp(-1, 1)
    with pytest.raises(RuntimeError, match="no calibrated 'centroids'"):
        detector.detect(image, torch.tensor([0, 1, 0]))
    category = torch.tensor([1, 0, 1])
    detector.build_memory(detector.class_features(image), category)
    unknown = torch.full((3,), -1)
    assert detector.class_of(image, unknown).tolist() == [1, 0, 1]
    assert detector.class_of(image[1:2], unknown[:1]).tolist() == [0]
    with torch.no_grad():
        predicted = detector.detect(image, unknown).anomaly_map
        given = deco(class_mode="given").detect(image, category).anomaly_map
    torch.testing.assert_close(predicted, given, rtol=1e-5, atol=1e-5)
    assert (
        next(iter(detector.memory_passes(detector.device)))
        and detector.protocol == "default (class: predicted)"
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"class_mode": "predicted"}, "model.class_mode is predicted, which needs model.features"),
        ({"null_class": False}, "model.class_mode is null, but model.denoiser has no null class"),
        ({"steps": 3}, r"model.levels \(10\) must be a multiple of model.steps \(3\)"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        deco(**settings)


def test_channels_must_agree():
    class Wide(TinyLatents):
        channels = 32

    with pytest.raises(ValueError, match=r"autoencoder .* 32 channels.*denoiser takes 4.*channels"):
        DeCoDiff(Wide(), tiny_context_unet(null_class=True), class_mode="null")


def test_categories_must_agree():
    detector = DeCoDiff(TinyLatents(), tiny_context_unet(3), class_mode="given")
    with pytest.raises(ValueError, match=r"3 classes.*2 categories.*init_args.categories to 2"):
        detector.match_categories(CATEGORIES, "fit")


def test_image_size_must_be_a_multiple_of_the_factor():
    detector = deco()
    data = SimpleNamespace(categories=CATEGORIES, image_size=15)
    detector._trainer = SimpleNamespace(datamodule=data, precision="32-true")
    with pytest.raises(ValueError, match=r"data.image_size \(15\) must be a multiple of 2"):
        detector.setup("fit")


def test_learning_rate_rises_and_falls_step_by_step():
    found = rates(deco(warmup=0.1), 100)
    assert found[0] == 0 and max(found) == found[10] == pytest.approx(1e-4)
    cosine = 1e-4 * (1 + np.cos(np.pi * np.arange(90) / 90)) / 2
    np.testing.assert_allclose(found[10:], cosine, atol=1e-12)


def test_endless_training_has_no_schedule():
    detector = deco()
    detector._trainer = SimpleNamespace(estimated_stepping_batches=float("inf"))
    with pytest.raises(ValueError, match="max_epochs"):
        detector.configure_optimizers()
