"""DDAD against the authors' recorded numbers, and what every detector promises."""

from types import SimpleNamespace

import pytest
import torch

from lightning_ad.maths.adaptation import adaptation_loss
from lightning_ad.methods import DDAD
from tests.methods.tiny import (
    images,
    plain_map,
    same_weights,
    tiny_denoiser,
    tiny_pyramid,
    weights_of,
)
from tests.recordings import authors_denoiser, every_fourth, recorded


def ddad(**settings):
    detector = DDAD(tiny_denoiser(), tiny_pyramid(), steps=2, **settings)
    detector.match_categories(["carpet", "grid"], "fit")
    detector.calibration["ratio"] = torch.tensor(2.0)
    return detector.eval()


@pytest.mark.parametrize(("eta", "w"), [(0, 0), (0, 3), (1, 0), (1, 3)])
def test_reconstruction_is_the_authors(eta, w):
    case, denoiser, visited = recorded("ddad_reconstruction"), authors_denoiser("ddad"), []
    detector = DDAD(denoiser, tiny_pyramid(), eta=eta)
    hook = denoiser.register_forward_pre_hook(lambda _, inputs: visited.append(inputs[0]))
    noises = iter(case["noises"])
    guidance = torch.full((len(case["x"]),), float(w))
    with torch.no_grad():
        x0 = detector.reconstruct(case["x"], case["y"], guidance, lambda: next(noises))
    hook.remove()
    for name, ours in (("x1", visited[1]), ("x0", x0)):
        expected = case[f"{name}_eta{eta}_w{w}"]
        torch.testing.assert_close(every_fourth(ours), expected, rtol=1e-4, atol=1e-4)
    assert len(visited) == 10


def test_training_loss_is_the_authors():
    case = recorded("ddad_training_loss")
    detector = DDAD(authors_denoiser("ddad"), tiny_pyramid())
    with torch.no_grad():
        loss = detector.denoise_loss(case["x"], case["t"], case["noise"])
    torch.testing.assert_close(loss, case["loss"], rtol=1e-4, atol=0)


def test_adaptation_loss_is_the_authors():
    case = recorded("ddad_adaptation_loss")
    pyramids = (
        [case[f"{name}{layer}"] for layer in (1, 2, 3)]
        for name in ("recon", "target", "frozen_recon", "frozen_target")
    )
    loss = adaptation_loss(*pyramids, preservation=0.1)
    torch.testing.assert_close(loss, case["loss"], rtol=1e-4, atol=0)


def test_distances_are_balanced_by_their_maxima_on_normal_images():
    detector = ddad()
    detector.set_constants(
        {
            "feature_min": torch.tensor([0.5, 0.1]),
            "feature_max": torch.tensor([2.0, 4.0]),
            "pixel_min": torch.tensor([0.1, 0.7]),
            "pixel_max": torch.tensor([1.0, 0.5]),
        }
    )
    assert float(detector.calibration["ratio"]) == pytest.approx(3 / 0.75)


def test_map_written_out():
    detector = ddad(pixel_weight=3.0, scored_layers=1, blur=1.0)
    ours, plain = plain_map(detector, images(2), v=3.0, ratio=2.0, sigma=1.0)
    torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_adaptation_reconstructs_one_half_of_a_batch_towards_the_other():
    detector, given = ddad(guidance=7.0, adaptation_guidance=2.0), []
    detector.enter_phase("adapt")
    detector.reconstruct = lambda *arguments: given.extend(arguments) or arguments[0]
    detector.loss(images(5), torch.zeros(5, dtype=torch.long))
    start, target, guidance, noise = given
    assert torch.equal(target, images(5)[:2]) and torch.equal(start, images(5)[-2:])
    assert guidance.tolist() == [2.0, 2.0]
    assert noise().shape == start.shape and not torch.equal(noise(), noise())


def test_times_are_drawn_from_the_whole_schedule():
    detector, drawn = ddad(), []
    detector.enter_phase("denoise")
    detector.denoise_loss = lambda image, t, noise: drawn.append(t)
    detector.loss(torch.zeros(4000, 3, 1, 1), torch.zeros(4000, dtype=torch.long))
    assert drawn[0].min() < 10 and 990 <= drawn[0].max() < 1000


def test_guidance_belongs_to_the_category():
    image, no_noise = images(3), {"eta": 0.0}
    mixed = ddad(guidance={"carpet": 0, "grid": 4, "leather": 9}, **no_noise)
    with torch.no_grad():
        reconstruction, _ = mixed.compare(image, torch.tensor([0, 1, -1]))
        for i, w in enumerate((0.0, 4.0, 2.0)):  # an unknown category gets the known ones' mean
            alone, _ = ddad(guidance=w, **no_noise).compare(image[i : i + 1], torch.tensor([0]))
            torch.testing.assert_close(reconstruction[i], alone[0], rtol=1e-5, atol=1e-5)


def test_guidance_must_name_every_category():
    with pytest.raises(ValueError, match=r"model.guidance has no entry for \['grid'\]"):
        ddad(guidance={"carpet": 0})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"level": 255, "steps": 10}, r"model.level \(255\) must be a multiple of model.steps"),
        ({"level": 2000}, "model.level must lie between 1 and 999, not 2000"),
        ({"steps": 0}, r"multiple of model.steps \(0\)"),
        ({"blur": -1.0}, r"model.blur must be at least 0, not -1"),
        ({"scored_layers": 0}, r"model.scored_layers must be at least 1, not 0"),
    ],
)
def test_levels_that_would_fail_after_training_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DDAD(tiny_denoiser(), tiny_pyramid(), **settings)


def test_neighbours_do_not_matter():
    detector, image, category = ddad(), images(3), torch.tensor([0, 1, 0])
    order = torch.tensor([2, 0, 1])
    with torch.no_grad():
        together = detector.detect(image, category).anomaly_map
        shuffled = detector.detect(image[order], category[order]).anomaly_map
        torch.testing.assert_close(shuffled, together[order], rtol=1e-5, atol=1e-5)
        for i in range(3):
            alone = detector.detect(image[i : i + 1], category[i : i + 1])
            torch.testing.assert_close(alone.anomaly_map[0], together[i], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("phase", ["denoise", "adapt"])
def test_only_the_phases_part_trains(phase):
    detector = ddad()
    detector.enter_phase(phase)
    denoiser, features = weights_of(detector.denoiser), weights_of(detector.features)
    optimizer = detector.configure_optimizers()
    for _ in range(2):
        optimizer.zero_grad()
        detector.loss(images(4), torch.zeros(4, dtype=torch.long)).backward()
        optimizer.step()
    assert same_weights(detector.denoiser, denoiser) == (phase == "adapt")
    assert same_weights(detector.features, features) == (phase == "denoise")
    if phase == "adapt":
        assert same_weights(detector._frozen_features[0], features)


def test_adaptation_keeps_batch_statistics():
    detector = ddad()
    before = weights_of(detector.features)
    detector.enter_phase("adapt")
    detector.loss(images(4), torch.zeros(4, dtype=torch.long))
    assert same_weights(detector.features, before)


def test_adaptation_epochs_of_the_category():
    detector = DDAD(tiny_denoiser(), tiny_pyramid(), adaptation_epochs={"carpet": 0, "grid": 6})
    detector.match_categories(["carpet"], "fit")
    assert [phase.name for phase in detector.phases()] == ["denoise"]
    detector = DDAD(tiny_denoiser(), tiny_pyramid(), adaptation_epochs={"carpet": 0, "grid": 6})
    detector.match_categories(["grid"], "fit")
    assert [phase.epochs for phase in detector.phases()] == [None, 6]


def test_lengths_and_batches_of_the_category():
    settings = {
        "training_epochs": {"carpet": 2500, "grid": 2000},
        "adaptation_epochs": {"carpet": 4, "grid": 6},
        "adaptation_batch_size": {"carpet": 32, "grid": 16},
    }
    for categories, numbers in ((["grid"], (2000, 6, 16)), (["carpet", "grid"], (2250, 5, 24))):
        detector = DDAD(tiny_denoiser(), tiny_pyramid(), **settings)
        detector.match_categories(categories, "fit")
        denoise, adapt = detector.phases()
        assert (denoise.epochs, adapt.epochs, adapt.batch_size) == numbers
        assert denoise.batch_size is None
    with pytest.raises(ValueError, match=r"training_epochs has no entry for \['wood'\]"):
        DDAD(tiny_denoiser(), tiny_pyramid(), **settings).match_categories(["grid", "wood"], "fit")


@pytest.mark.parametrize("setting", ["training_epochs", "adaptation_batch_size"])
def test_training_on_nothing_is_refused(setting):
    data = SimpleNamespace(batch_size=4, image_size=16, training_records=lambda: range(9))
    with pytest.raises(ValueError, match=f"model.{setting} must be at least 1, not 0"):
        ddad(**{setting: 0}).check_data(data, "fit")


@pytest.mark.parametrize("setting", ["guidance", "adaptation_epochs", "training_epochs"])
def test_negative_settings_are_refused_before_training(setting):
    detector = DDAD(tiny_denoiser(), tiny_pyramid(), **{setting: -1})
    with pytest.raises(ValueError, match=f"model.{setting} must not be negative, got -1"):
        detector.match_categories(["carpet"], "fit")


@pytest.mark.parametrize(
    ("own", "configured", "key"), [(1, 8, "model.adaptation"), (None, 1, "data.")]
)
def test_adaptation_in_batches_of_one_is_refused_before_training(own, configured, key):
    data = SimpleNamespace(batch_size=configured, image_size=16, training_records=lambda: range(9))
    with pytest.raises(ValueError, match=f"{key}_?batch_size is 1 and 9 images"):
        ddad(adaptation_batch_size=own).check_data(data, "fit")
    data.batch_size = 1
    ddad(adaptation_batch_size=2).check_data(data, "fit")


def test_adaptation_of_a_single_image_is_refused():
    detector = ddad()
    detector.enter_phase("adapt")
    with pytest.raises(ValueError, match=r"data.batch_size must be 2 or more"):
        detector.loss(images(1), torch.zeros(1, dtype=torch.long))


def test_a_loss_that_is_no_number_stops_with_advice():
    detector = ddad()
    detector.enter_phase("denoise")
    batch = {"image": images(2) * float("nan"), "category": torch.zeros(2, dtype=torch.long)}
    with pytest.raises(FloatingPointError, match=r"nan in phase 'denoise', epoch 0.*learning rate"):
        detector.training_step(batch, 0)


def test_detection_without_calibration_says_what_to_run():
    detector = DDAD(tiny_denoiser(), tiny_pyramid(), steps=2)
    detector.match_categories(["carpet"], "fit")
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"no calibrated 'ratio'.*fit"):
        detector.detect(images(1), torch.tensor([0]))
