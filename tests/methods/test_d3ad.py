"""D3AD against the authors' recorded numbers, and what every detector promises."""

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from lightning_ad.detector.calibration import Calibration
from lightning_ad.maths import maps
from lightning_ad.maths.nearest import distance_to_nearest
from lightning_ad.methods import D3AD
from lightning_ad.networks import DiffusionUNet, KLAutoencoder
from tests.methods.tiny import images, same_weights, tiny_pyramid, weights_of
from tests.methods.tiny_latent import TinyLatents
from tests.recordings import authors_denoiser, every_fourth, recorded

CATEGORIES = ["candle", "pcb"]
TRAINED_ON = torch.arange(16) // 8


def tiny_latent_denoiser(channels=4):
    torch.manual_seed(5)
    return DiffusionUNet(8, 8, (1, 2), attention_at=(4,), heads=2, channels=channels).eval()


def d3ad(categories=CATEGORIES, **settings):
    settings = {"neighbours": 3, "blur": 1.0, **settings}
    detector = D3AD(TinyLatents(), tiny_latent_denoiser(), tiny_pyramid(), **settings)
    detector.match_categories(categories, "fit")
    return detector.eval()


def calibrated(**settings):
    """A detector that has seen 16 images, of which some look more usual than others."""
    detector = d3ad(**settings)
    image = images(16) * torch.linspace(0.2, 1, 16).roll(5).view(-1, 1, 1, 1)
    with torch.no_grad():
        detector.build_memory(detector.fingerprint(detector.pyramid(image)), TRAINED_ON)
        _, parts = detector.compare(image, TRAINED_ON)
    detector.set_constants(extremes_of(parts, TRAINED_ON))
    return detector


def extremes_of(parts, category):
    bounds = {f"{name}_min": part.flatten(1).amin(1) for name, part in parts.items()}
    bounds |= {f"{name}_max": part.flatten(1).amax(1) for name, part in parts.items()}
    return bounds | {"category": category}


def probe():
    """Images of both categories and of none, from dull to loud: several levels in one batch."""
    image = images(6) * torch.tensor([0.1, 0.6, 1, 0.3, 1, 0.6]).view(-1, 1, 1, 1)
    return image, torch.tensor([0, 0, 1, 1, -1, -1])


@pytest.mark.parametrize("w", [0, 4])
def test_reconstruction_is_the_authors(w):
    case, denoiser, visited = recorded("d3ad_reconstruction"), authors_denoiser("d3ad"), []
    detector = D3AD(TinyLatents(), denoiser, tiny_pyramid(), guidance=w)
    hook = denoiser.register_forward_pre_hook(lambda _, inputs: visited.append(inputs))
    with torch.no_grad():
        restored = detector.reconstruct(case["z"], case["T"], torch.full((2,), -1))
    hook.remove()
    start = every_fourth(visited[0][0])
    torch.testing.assert_close(start, case["start"], rtol=1e-4, atol=1e-5)
    expected = case[f"z0_w{w}"]
    torch.testing.assert_close(every_fourth(restored), expected, rtol=1e-4, atol=1e-4)
    assert len(visited) == 10
    assert [t[1].item() for _, t in visited] == [72, 64, 56, 48, 40, 32, 24, 16, 8, 0]


def test_levels_are_the_authors():
    case = recorded("d3ad_dynamic_steps")
    detector = d3ad(["candle"], neighbours=20)
    detector.calibration["bank"] = case["train"]
    detector.calibration["bin_edges"] = case["bin_edges"].repeat(2, 1)
    levels = detector.level(case["test"], torch.zeros(len(case["test"]), dtype=torch.long))
    assert levels.tolist() == case["steps"].tolist()
    assert (levels // 10).tolist() == case["stride"].tolist()


def test_map_scaled_by_the_same_images_is_the_authors():
    case = recorded("d3ad_maps")
    latent = maps.pixel_distance(case["z_hat"], case["z"])
    pyramids = [[case[f"{letter}{layer}"] for layer in (2, 3)] for letter in "fg"]
    parts = {
        "latent": maps.resize(latent, (256, 256)),
        "feature": maps.feature_distance(*pyramids, (256, 256)),
    }
    category = torch.zeros(2, dtype=torch.long)
    detector = d3ad(["candle"], blur=4.0)
    detector.set_constants(extremes_of(parts, category))
    for name, expected in (("latent", "latent_l1"), ("feature", "feature_cos")):
        torch.testing.assert_close(every_fourth(every_fourth(parts[name])), case[expected])
    heat_map = every_fourth(every_fourth(detector.fuse(parts, category)))
    torch.testing.assert_close(heat_map, case["heat_map"], rtol=1e-4, atol=1e-5)


def test_distances_written_out():
    detector, (image, category) = calibrated(scored_layers=1), probe()
    given = {}
    reconstruct = detector.reconstruct

    def watch(latent, level, category):
        given["restored"] = reconstruct(latent, level, category)
        return given["restored"]

    detector.reconstruct = watch
    with torch.no_grad():
        _, parts = detector.compare(image, category)
        z, restored = detector.autoencoder.encode(image), given["restored"]
        layers = (detector.features(x)[-1] for x in (image, detector.autoencoder.decode(restored)))
    f, g = (layer / layer.norm(dim=1, keepdim=True) for layer in layers)
    small = {
        "latent": (z - restored).abs().mean(1, keepdim=True),
        "feature": 1 - (f * g).sum(1, keepdim=True),
    }
    for name, part in small.items():
        expected = F.interpolate(part, 16, mode="bilinear", align_corners=True)
        torch.testing.assert_close(parts[name], expected, rtol=1e-4, atol=1e-5)


def test_denoiser_learns_the_noise_at_times_from_the_whole_schedule():
    detector, drawn = d3ad(), []
    detector.enter_phase("denoise")
    detector.denoise_loss = lambda latent, t, noise: drawn.extend((latent, t, noise))
    detector.latent_loss(torch.zeros(4000, 4, 1, 1), torch.zeros(4000, dtype=torch.long))
    assert drawn[1].min() < 10 and 990 <= drawn[1].max() < 1000
    del detector.denoise_loss
    latent, t, noise = torch.randn(2, 4, 8, 8), torch.tensor([3, 900]), torch.randn(2, 4, 8, 8)
    with torch.no_grad():
        ab = detector.alpha_bar[t].view(-1, 1, 1, 1)
        predicted = detector.denoiser(ab.sqrt() * latent + (1 - ab).sqrt() * noise, t)
        loss = detector.denoise_loss(latent, t, noise)
    torch.testing.assert_close(loss, (predicted - noise).square().mean())


def test_training_draws_latents_that_an_image_may_stand_for():
    detector, seen = d3ad(), []
    detector.enter_phase("denoise")
    detector.autoencoder.std = 0.5
    detector.latent_loss = lambda z, category: seen.append(z)
    detector.loss(images(4), torch.zeros(4, dtype=torch.long))
    mean, _ = detector.autoencoder.posterior(images(4))
    assert float((seen[0] - mean).std()) == pytest.approx(0.5, abs=0.05)
    assert torch.equal(detector.latent(images(4)), mean)


def test_images_are_known_by_the_shallowest_scored_layer_in_16_x_16_patches():
    shallow, deep = torch.rand(2, 3, 32, 32), torch.rand(2, 5, 16, 16)
    patches = shallow.view(2, 3, 16, 2, 16, 2).mean((3, 5)).flatten(1)
    torch.testing.assert_close(d3ad().fingerprint([shallow, deep]), patches.half())


def test_every_bin_has_its_level():
    detector = d3ad()
    expected = [10, 20, 20, 30, 40, 50, 60, 60, 70, 80]  # tenths of 80, rounded to tens
    assert detector.level_of(torch.arange(1, 11)).tolist() == expected
    assert d3ad(max_level=10).level_of(torch.tensor([1, 10])).tolist() == [10, 10]


def test_no_image_starts_from_the_first_of_several_bins():
    detector, features = d3ad(["candle"]), torch.rand(9, 20)
    category = torch.zeros(9, dtype=torch.long)
    detector.build_memory(features, category)
    nearer = distance_to_nearest(features, features, 3)  # with themselves among the neighbours
    edges = detector.calibration["bin_edges"][0]
    assert (nearer < edges[1]).any()
    assert detector.level(features, category)[nearer < edges[2]].unique().tolist() == [20]


def test_a_training_images_level_leaves_the_image_itself_out():
    detector, features = d3ad(["candle"]), torch.rand(9, 20)
    detector.build_memory(features, torch.zeros(9, dtype=torch.long))
    distances = (features[:, None] - features).abs().sum(2)
    distances.fill_diagonal_(float("inf"))
    unusual = distances.sort(1).values[:, :3].mean(1)
    edges = detector.calibration["bin_edges"][0]
    torch.testing.assert_close(edges[[0, -1]].float(), torch.stack(unusual.aminmax()))


def test_an_image_is_measured_by_its_own_category():
    mixed, (image, category) = calibrated(), probe()
    bank = mixed.calibration["bank"]
    fingerprint = mixed.fingerprint(mixed.pyramid(image))
    levels = mixed.level(fingerprint, category)
    for i, name in enumerate(CATEGORIES):
        single = d3ad([name])
        single.build_memory(bank[i == TRAINED_ON], torch.zeros(8, dtype=torch.long))
        alone = single.level(fingerprint[category == i], torch.zeros(2, dtype=torch.long))
        assert torch.equal(alone, levels[category == i])
    assert len(levels.unique()) > 2


def test_neighbours_in_the_batch_do_not_matter():
    detector, (image, category) = calibrated(), probe()
    order = torch.tensor([4, 2, 0, 5, 3, 1])
    with torch.no_grad():
        together = detector.detect(image, category)
        shuffled = detector.detect(image[order], category[order])
        torch.testing.assert_close(
            shuffled.anomaly_map, together.anomaly_map[order], rtol=1e-5, atol=1e-5
        )
        for i in range(len(image)):
            alone = detector.detect(image[i : i + 1], category[i : i + 1])
            torch.testing.assert_close(
                alone.anomaly_map[0], together.anomaly_map[i], rtol=1e-5, atol=1e-5
            )


def test_normal_images_span_0_to_1_and_categories_have_ranges_of_their_own():
    detector, values = d3ad(blur=0.0, latent_share=1.0), torch.tensor([2.0, 6.0, 4.0, 5.0])
    parts = {name: values.view(2, 1, 1, 2) for name in ("latent", "feature")}
    detector.set_constants(extremes_of(parts, torch.tensor([0, 1])))
    scaled = [detector.fuse(parts, torch.tensor([i, i])).flatten().tolist() for i in (0, 1, -1)]
    assert scaled == [[0, 1, 0.5, 0.75], [-2, 2, 0, 1], [0, 1, 0.5, 0.75]]


@pytest.mark.parametrize("phase", ["denoise", "adapt"])
def test_only_the_phases_part_trains(phase):
    detector = d3ad()
    detector.enter_phase(phase)
    before = {name: weights_of(part) for name, part in detector.named_children()}
    optimizer = detector.configure_optimizers()
    for _ in range(2):
        optimizer.zero_grad()
        detector.loss(images(4), torch.tensor([0, 1, 0, 1])).backward()
        optimizer.step()
    moved = {
        name for name, part in detector.named_children() if not same_weights(part, before[name])
    }
    assert moved == {"features" if phase == "adapt" else "denoiser"}


def test_adaptation_keeps_batch_statistics():
    detector = d3ad()
    before = weights_of(detector.features)
    detector.enter_phase("adapt")
    detector.loss(images(4), torch.zeros(4, dtype=torch.long))
    assert same_weights(detector.features, before)


def test_adaptation_of_a_perfect_reconstruction_has_nothing_to_do():
    detector = d3ad()
    detector.reconstruct = lambda latent, level, category: latent
    detector.autoencoder.encode = lambda image: image
    detector.autoencoder.decode = lambda latent: latent
    level, category = torch.tensor([10, 80]), torch.zeros(2, dtype=torch.long)
    loss = detector.adapt_loss(images(2), category, level)
    torch.testing.assert_close(loss, torch.tensor(0.0), rtol=0, atol=1e-5)


def test_cached_latents_train_the_denoiser_and_nothing_else():
    detector, batch = d3ad(), {"image": images(2), "path": ["a", "b"], "category": TRAINED_ON[:2]}
    detector.latents = SimpleNamespace(draw=lambda paths, device: torch.zeros(2, 4, 8, 8))
    detector.enter_phase("denoise")
    detector.batch_loss(batch).backward()
    assert detector.autoencoder.encoded == 0
    detector.trainer = SimpleNamespace(datamodule=None)
    detector.cache_latents = True
    detector.enter_phase("adapt")
    detector.on_fit_start()
    detector.batch_loss(batch).backward()
    assert detector.autoencoder.encoded == 2


def test_the_memory_is_tensors_and_travels_with_the_weights():
    detector, other, (image, category) = calibrated(), d3ad(), probe()
    other.load_state_dict(detector.state_dict())
    assert other.calibration["bank"].dtype == torch.float16
    with torch.no_grad():
        expected = detector.detect(image, category)
        assert torch.equal(other.detect(image, category).anomaly_map, expected.anomaly_map)


def test_half_precision_of_the_bank_keeps_levels():
    bank, queries = (
        torch.randn(n, 2048, generator=torch.Generator().manual_seed(n)) for n in (60, 200)
    )
    queries = queries * torch.linspace(0.5, 1.5, 200)[:, None]
    category = torch.zeros(200, dtype=torch.long)
    levels = []
    for dtype in (torch.float32, torch.float16):
        detector = d3ad(["candle"])
        detector.build_memory(bank.to(dtype), torch.zeros(60, dtype=torch.long))
        levels.append(detector.level(queries.to(dtype), category))
    assert len(levels[0].unique()) > 3
    assert (levels[0] == levels[1]).float().mean() > 0.99


def test_different_channels_are_refused_with_both_settings_named():
    with pytest.raises(ValueError, match=r"autoencoder .* 4 channels.*denoiser takes 32.*channels"):
        D3AD(TinyLatents(), tiny_latent_denoiser(channels=32), tiny_pyramid())


def test_settings_that_would_fail_after_training_are_refused():
    with pytest.raises(ValueError, match=r"model.guidance has no entry for \['pcb'\]"):
        d3ad(guidance={"candle": 4})
    with pytest.raises(ValueError, match=r"model\.max_level must lie between 1 and 999, not 1000"):
        d3ad(max_level=1000)
    with pytest.raises(ValueError, match=r"model\.max_level \(85\) must be a multiple of .*\(10\)"):
        d3ad(max_level=85)


def test_a_single_bin_is_a_static_level():
    detector, features = d3ad(["candle"], bins=1, max_level=600), torch.rand(9, 20)
    category = torch.zeros(9, dtype=torch.long)
    detector.build_memory(features, category)
    assert detector.level(features * 2, category).tolist() == [600] * 9


def test_features_beyond_half_precision_still_have_a_level():
    detector = d3ad(["candle"])
    pyramid = [torch.rand(9, 4, 16, 16) * 1e6]
    detector.build_memory(detector.fingerprint(pyramid), torch.zeros(9, dtype=torch.long))
    assert torch.isfinite(detector.calibration["bin_edges"]).all()


def test_fewer_images_than_neighbours_are_refused_before_training():
    detector = d3ad(["candle", "pcb"])
    names = ["candle"] * 4 + ["pcb"] * 3
    records = [SimpleNamespace(category=name) for name in names]
    datamodule = SimpleNamespace(
        categories=["candle", "pcb"], image_size=16, training_records=lambda: records
    )
    detector.trainer = SimpleNamespace(datamodule=datamodule, precision="32-true")
    with pytest.raises(ValueError, match=r"3 training images of pcb.*3 neighbours.*neighbours"):
        detector.setup("fit")
    with pytest.raises(ValueError, match=r"3 training images of pcb"):
        detector.build_memory(torch.rand(7, 5), torch.tensor([0, 0, 0, 0, 1, 1, 1]))


def test_an_image_size_the_autoencoder_cannot_divide_is_refused():
    detector = d3ad()
    datamodule = SimpleNamespace(categories=CATEGORIES, image_size=17)
    trainer = SimpleNamespace(datamodule=datamodule, precision="32-true", ckpt_path=None)
    detector.trainer = trainer
    with pytest.raises(ValueError, match=r"data.image_size \(17\) must be a multiple of 2"):
        detector.setup("test")


def test_detection_without_calibration_says_what_to_run():
    detector = calibrated()
    detector.calibration = Calibration()
    with torch.no_grad(), pytest.raises(RuntimeError, match=r"no calibrated 'bank'.*fit"):
        detector.detect(*probe())


def test_runs_on_stable_diffusions_autoencoder(tmp_path):
    torch.manual_seed(6)
    AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 2,
        up_block_types=["UpDecoderBlock2D"] * 2,
        block_out_channels=[8, 8],
        norm_num_groups=4,
        sample_size=16,
    ).save_pretrained(tmp_path)
    autoencoder = KLAutoencoder(str(tmp_path))
    detector = D3AD(autoencoder, tiny_latent_denoiser(), tiny_pyramid(), neighbours=2)
    detector.match_categories(["candle"], "fit")
    detector.load_pretrained = autoencoder.load_pretrained
    detector.load_pretrained()
    image, category = images(3), torch.zeros(3, dtype=torch.long)
    detector.enter_phase("denoise")
    detector.loss(image, category).backward()
    with torch.no_grad():
        detector.build_memory(detector.fingerprint(detector.pyramid(image)), category)
        reconstruction, parts = detector.compare(image, category)
    assert reconstruction.shape == image.shape and reconstruction.abs().max() <= 1
    assert {name: part.shape for name, part in parts.items()} == dict.fromkeys(
        ("latent", "feature"), (3, 1, 16, 16)
    )
