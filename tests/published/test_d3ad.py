"""Each habit of D3AD's published code differs from the default."""

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader

from lightning_ad.maths.nearest import equal_width_edges
from lightning_ad.methods import D3AD
from lightning_ad.published import D3ADAsPublished
from tests.methods.test_d3ad import tiny_latent_denoiser
from tests.methods.tiny import images, same_weights, tiny_pyramid, weights_of
from tests.methods.tiny_latent import TinyLatents
from tests.recordings import recorded


class Images(LightningDataModule):
    """A test set of one category."""

    categories, image_size = ["candle"], 16

    def __init__(self, image):
        super().__init__()
        self.image = image

    def test_dataloader(self):
        items = [{"image": image, "category": 0} for image in self.image]
        return DataLoader(items, batch_size=2)


def detector_of(method, std=0.0):
    detector = method(
        TinyLatents(std), tiny_latent_denoiser(), tiny_pyramid(), neighbours=3, blur=1.0
    )
    detector.match_categories(["candle"], "fit")
    image, category = images(8), torch.zeros(8, dtype=torch.long)
    with torch.no_grad():
        detector.build_memory(detector.fingerprint(detector.pyramid(image)), category)
    for name in ("latent", "feature"):
        detector.calibration[f"{name}_min"] = torch.zeros(2)
        detector.calibration[f"{name}_max"] = torch.ones(2)
    return detector


class Collector(Callback):
    """Keeps the maps of a test."""

    def __init__(self):
        self.maps = []

    def on_test_batch_end(self, trainer, detector, outputs, batch, batch_idx):
        self.maps.append(outputs.anomaly_map)


def maps_of(detector, image):
    """Maps of a test set, as the Trainer's test makes them."""
    collector = Collector()
    options = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = Trainer(accelerator="cpu", callbacks=collector, **options)
    trainer.test(detector, Images(image), verbose=False)
    return torch.cat(collector.maps)


def test_the_map_of_an_image_depends_on_the_whole_test_set():
    image = images(3)
    for method, depends in ((D3ADAsPublished, True), (D3AD, False)):
        together = maps_of(detector_of(method), image)[:2]
        without_the_third = maps_of(detector_of(method), image[:2])
        assert torch.allclose(together, without_the_third, rtol=1e-4, atol=1e-5) != depends


def test_maps_of_the_test_set_span_0_to_1():
    detector = detector_of(D3ADAsPublished)
    detector.blur, detector.latent_share = 0.0, 1.0
    low, high = maps_of(detector, images(3)).aminmax()
    torch.testing.assert_close(torch.stack([low, high]), torch.tensor([0.0, 1.0]))


def test_training_images_count_themselves_as_the_authors_do():
    case = recorded("d3ad_dynamic_steps")
    published, default = detector_of(D3ADAsPublished), detector_of(D3AD)
    published.neighbours = default.neighbours = 20
    edges = equal_width_edges(published.training_distance(case["train"]), 10)
    torch.testing.assert_close(edges, case["bin_edges"], rtol=1e-5, atol=0)
    assert default.training_distance(case["train"]).min() > case["bin_edges"][0]


def test_latents_are_samples():
    image = images(2)
    published, default = detector_of(D3ADAsPublished, std=0.5), detector_of(D3AD, std=0.5)
    mean, _ = default.autoencoder.posterior(image)
    assert torch.equal(default.latent(image), mean)
    spread = (published.latent(image) - mean).std()
    assert abs(float(spread) - 0.5) < 0.1
    assert torch.equal(published.latent(image), published.latent(image))  # both looks see the same


def test_tuning_moves_batch_statistics_and_normalizes_apart():
    both = torch.cat([images(2), 3 * images(2)])
    published, default = detector_of(D3ADAsPublished), detector_of(D3AD)
    for detector in (published, default):
        detector.enter_phase("adapt")
    before = weights_of(published.features)
    apart = published.adapted_features(both)[0][0]
    torch.testing.assert_close(apart, tiny_pyramid().train()(both[:2])[0])
    assert not torch.allclose(apart, default.adapted_features(both)[0][0])
    assert not same_weights(published.features, before)
    assert not published.eval().features.training


def test_results_carry_the_protocols_name():
    assert D3ADAsPublished.protocol != D3AD.protocol
