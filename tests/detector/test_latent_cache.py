"""Cached latents equal those of direct encoding, and are all that training reads."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer

from data_modules import MVTecAD
from data_modules.problems import DataError
from lightning_ad.detector import latent_cache
from lightning_ad.detector.latent_cache import LatentCache
from lightning_ad.methods import DeCoDiff
from tests.fakes import write_mvtec
from tests.methods.tiny_latent import TinyLatents, tiny_context_unet

CPU = torch.device("cpu")
VIEWS = 3


@pytest.fixture
def root(tmp_path):
    return write_mvtec(tmp_path / "mvtec", size=24)


def data(root, **settings):
    options = {"image_size": 16, "batch_size": 4, "num_workers": 0, "val_fraction": 0.3}
    module = MVTecAD(str(root), cache_dir=str(root.parent / "cache"), **options | settings)
    module.setup("fit")
    return module


def latents_in_training(module, autoencoder):
    """What training without a cache would encode of each image, epoch by epoch."""
    loader, found = module.train_dataloader(), {}
    for epoch in range(VIEWS):
        loader.sampler.set_epoch(epoch)
        for draw in loader.sampler:
            item = loader.dataset[draw]
            found.setdefault(item["path"], []).append(autoencoder.encode(item["image"][None])[0])
    return found


def assert_drawn_from(cache, path, latents):
    """Draws of an image are each one of its latents, and all of those occur."""
    torch.manual_seed(0)
    drawn = cache.draw([path] * 60, CPU)
    seen = [{i for i, z in enumerate(latents) if torch.allclose(z, one)} for one in drawn]
    assert all(seen) and set.union(*seen) == set(range(len(latents)))


def assert_held_out_stay(cache, module, autoencoder):
    held_out = next(iter(module.val_dataloader()))
    torch.testing.assert_close(
        cache.draw(held_out["path"], CPU), autoencoder.encode(held_out["image"])
    )


def files(root):
    return sorted(path.name for path in (root.parent / "cache").glob("latents-*"))


def test_latents_are_those_of_direct_encoding(root):
    module, autoencoder = data(root), TinyLatents()
    cache = LatentCache(autoencoder, module, VIEWS)
    for loader in (module.memory_dataloader(), module.val_dataloader()):
        for batch in loader:
            drawn = cache.draw(batch["path"], CPU)
            torch.testing.assert_close(drawn, autoencoder.encode(batch["image"]))


def test_images_are_found_in_any_order(root):
    module, autoencoder = data(root), TinyLatents()
    batch = next(iter(module.memory_dataloader()))
    backwards = LatentCache(autoencoder, module, VIEWS).draw(batch["path"][::-1], CPU)
    torch.testing.assert_close(backwards, autoencoder.encode(batch["image"]).flip(0))


def test_posterior_is_sampled_anew_at_each_draw(root):
    module, autoencoder = data(root), TinyLatents(std=0.5)
    cache = LatentCache(autoencoder, module, VIEWS)
    paths = next(iter(module.memory_dataloader()))["path"]
    mean = cache.draw(paths, CPU, sample=False)
    draws = torch.stack([cache.draw(paths, CPU) for _ in range(200)])
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.25)
    assert abs(float((draws - mean).std()) - 0.5) < 0.02


@pytest.mark.parametrize(
    "settings",
    [
        {"augment": ["translation"]},
        {"resize": 21},
        {"resize": 20, "augment": ["half_turns", "vertical_flip"]},
    ],
    ids=["translation", "crop", "turns"],
)
def test_views_are_those_of_the_first_epochs_in_pixels(root, settings):
    module, autoencoder = data(root, **settings), TinyLatents()
    cache = LatentCache(autoencoder, module, VIEWS)
    uncached = latents_in_training(module, autoencoder)
    whole = [path for path, latents in uncached.items() if len(latents) == VIEWS]
    assert whole
    for path in whole:
        assert_drawn_from(cache, path, uncached[path])
    assert_held_out_stay(cache, module, autoencoder)


def test_a_cropped_view_is_the_latent_of_a_crop_not_a_crop_of_the_latent(root):
    class Bordered(TinyLatents):
        """Sees the border, as an autoencoder with padding does."""

        def posterior(self, image):
            image = image.clone()
            image[..., :2] += 1
            return super().posterior(image)

    module, autoencoder = data(root, resize=20), Bordered()
    cache = LatentCache(autoencoder, module, VIEWS)
    whole = {i["path"]: i["image"] for i in data(root, image_size=20).memory_dataloader().dataset}
    for path in cache.files[0].rows:
        crops = torch.stack(
            [whole[path][:, y : y + 16, x : x + 16] for y in range(5) for x in range(5)]
        )
        distance = (autoencoder.encode(crops) - cache.draw([path], CPU)).abs().amax((1, 2, 3))
        assert distance.min() < 1e-6


def test_where_nothing_varies_there_is_one_view(root):
    cache = LatentCache(TinyLatents(), data(root), VIEWS)
    assert [len(file.latents) for file in cache.files] == [len(file.rows) for file in cache.files]


def test_other_views_are_another_file(root):
    written = set()
    for views, settings in (
        (3, {"resize": 20}),
        (2, {"resize": 20}),
        (3, {"resize": 20, "seed": 1}),
        (3, {"resize": 20, "augment": ["half_turns"]}),
    ):
        LatentCache(TinyLatents(), data(root, **settings), views)
        assert set(files(root)) > written
        written = set(files(root))


def test_images_are_encoded_once_and_again_when_something_changes(root):
    autoencoder = TinyLatents()
    LatentCache(autoencoder, data(root), VIEWS)
    encoded, written = autoencoder.encoded, files(root)
    assert encoded >= 12
    LatentCache(autoencoder, data(root), VIEWS)
    assert autoencoder.encoded == encoded and files(root) == written

    with torch.no_grad():
        autoencoder.into.weight[0, 0] += 1e-3
    LatentCache(autoencoder, data(root), VIEWS)
    assert len(files(root)) == len(written) + 4  # two files, two locks
    LatentCache(autoencoder, data(root, image_size=18), VIEWS)
    assert len(files(root)) == len(written) + 8
    autoencoder.scale = 0.5
    LatentCache(autoencoder, data(root, image_size=18), VIEWS)
    assert len(files(root)) == len(written) + 12
    autoencoder.scale = 1.0
    held_out = data(root).val_dataloader().dataset.records
    train = next(p for p in root.glob("*/train/good/*") if p not in {r.image for r in held_out})
    train.write_bytes(train.read_bytes() + b"\0")
    LatentCache(autoencoder, data(root), VIEWS)
    assert len(files(root)) == len(written) + 14  # the training images only


def assert_direct(cache, module, autoencoder):
    batch = next(iter(module.memory_dataloader()))
    torch.testing.assert_close(cache.draw(batch["path"], CPU), autoencoder.encode(batch["image"]))


def test_an_interruption_leaves_nothing_behind(root, monkeypatch):
    module, autoencoder = data(root), TinyLatents()
    posterior, calls = latent_cache._posterior, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) > 1:
            raise KeyboardInterrupt
        return posterior(*args)

    monkeypatch.setattr(latent_cache, "_posterior", interrupted)
    with pytest.raises(KeyboardInterrupt):
        LatentCache(autoencoder, module, VIEWS)
    assert not any(name.endswith((".partial", ".npy")) for name in files(root))
    monkeypatch.setattr(latent_cache, "_posterior", posterior)
    assert_direct(LatentCache(autoencoder, module, VIEWS), module, autoencoder)


def test_what_a_killed_process_leaves_is_not_read(root):
    module, autoencoder = data(root), TinyLatents()
    for file in LatentCache(autoencoder, module, VIEWS).files:
        file.path.rename(f"{file.path}.partial")
        with Path(f"{file.path}.partial").open("rb+") as left:
            left.seek(-64, os.SEEK_END)
            left.write(bytes(64))
    assert_direct(LatentCache(autoencoder, module, VIEWS), module, autoencoder)
    assert not any(name.endswith(".partial") for name in files(root))


@pytest.mark.parametrize("damage", ["empty", "cut", "64 bytes"])
def test_a_damaged_file_is_written_again(root, damage):
    module, autoencoder = data(root), TinyLatents()
    for file in LatentCache(autoencoder, module, VIEWS).files:
        content = file.path.read_bytes()
        turned = bytes(byte ^ 0xFF for byte in content[128:192])
        file.path.write_bytes(
            {
                "empty": b"",
                "cut": content[:-1],
                "64 bytes": content[:128] + turned + content[192:],
            }[damage]
        )
    assert_direct(LatentCache(autoencoder, module, VIEWS), module, autoencoder)


def test_training_reads_latents_only(root):
    module, autoencoder = data(root), TinyLatents()
    detector = DeCoDiff(
        autoencoder, tiny_context_unet(null_class=True), class_mode="null", cache_latents=True
    )
    after_start = []
    detector.on_train_start = lambda: after_start.append(autoencoder.encoded)
    trainer = Trainer(
        max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, num_sanity_val_steps=0,
        default_root_dir=root,
    )  # fmt: skip
    trainer.fit(detector, module)
    assert trainer.global_step >= 2 and "denoise/val_loss" in trainer.callback_metrics
    assert after_start == [autoencoder.encoded]


def test_only_a_cache_changes_where_latents_come_from(root):
    module, seen = data(root), []
    batch = next(iter(module.memory_dataloader()))
    for cached in (True, False):
        network = tiny_context_unet(null_class=True)
        detector = DeCoDiff(TinyLatents(), network, class_mode="null")
        detector.match_categories(module.categories, "fit")
        detector.latents = LatentCache(detector.autoencoder, module, VIEWS) if cached else None
        detector.latent_loss = lambda z, category: seen.append((z, category))
        detector.batch_loss(batch)
    torch.testing.assert_close(*seen)


def test_a_full_disk_is_noticed_before_writing(root, monkeypatch):
    module = data(root)
    free = shutil.disk_usage(root)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(DataError, match=r"latents need .* GB are free .*data\.cache_dir"):
        LatentCache(TinyLatents(), module, VIEWS)


def test_whoever_comes_second_waits_for_the_first(root):
    module, autoencoder = data(root), TinyLatents()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: LatentCache(autoencoder, module, VIEWS), range(2)))
    together = autoencoder.encoded
    shutil.rmtree(module.cache_dir)
    alone = TinyLatents()
    LatentCache(alone, data(root), VIEWS)
    assert together == alone.encoded
