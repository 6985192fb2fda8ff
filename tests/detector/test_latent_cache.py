"""Cached latents equal those of direct encoding, and are all that training reads."""

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
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


@pytest.fixture
def root(tmp_path):
    return write_mvtec(tmp_path / "mvtec", size=24)


def data(root, **settings):
    options = {"image_size": 16, "batch_size": 4, "num_workers": 0, "val_fraction": 0.3}
    module = MVTecAD(str(root), cache_dir=str(root.parent / "cache"), **options | settings)
    module.setup("fit")
    return module


def windows(latent):
    """The nine places of 8 x 8 pixels in a latent of 10 x 10."""
    return {
        (top, left): latent[:, top : top + 8, left : left + 8]
        for top in range(3)
        for left in range(3)
    }


def assert_drawn_everywhere(cache, path, places):
    """A training image's latents are each at one of the places, and all places occur."""
    torch.manual_seed(0)
    drawn = cache.draw([path] * 90, CPU)
    seen = [{place for place, latent in places.items() if torch.equal(latent, z)} for z in drawn]
    assert all(len(found) == 1 for found in seen) and set.union(*seen) == set(places)


def assert_held_out_stay(cache, module, autoencoder):
    held_out = next(iter(module.val_dataloader()))
    torch.testing.assert_close(
        cache.draw(held_out["path"], CPU), autoencoder.encode(held_out["image"])
    )


def files(root):
    return sorted(path.name for path in (root.parent / "cache").glob("latents-*"))


def test_latents_are_those_of_direct_encoding(root):
    module, autoencoder = data(root), TinyLatents()
    cache = LatentCache(autoencoder, module)
    for loader in (module.memory_dataloader(), module.val_dataloader()):
        for batch in loader:
            drawn = cache.draw(batch["path"], CPU)
            torch.testing.assert_close(drawn, autoencoder.encode(batch["image"]))


def test_images_are_found_in_any_order(root):
    module, autoencoder = data(root), TinyLatents()
    batch = next(iter(module.memory_dataloader()))
    backwards = LatentCache(autoencoder, module).draw(batch["path"][::-1], CPU)
    torch.testing.assert_close(backwards, autoencoder.encode(batch["image"]).flip(0))


def test_posterior_is_sampled_anew_at_each_draw(root):
    module, autoencoder = data(root), TinyLatents(std=0.5)
    cache = LatentCache(autoencoder, module)
    paths = next(iter(module.memory_dataloader()))["path"]
    mean = cache.draw(paths, CPU, sample=False)
    draws = torch.stack([cache.draw(paths, CPU) for _ in range(200)])
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.25)
    assert abs(float((draws - mean).std()) - 0.5) < 0.02


def test_translation_moves_training_latents_and_mirrors_them(root):
    module, autoencoder = data(root, augment=["translation"]), TinyLatents()
    cache = LatentCache(autoencoder, module)
    batch = next(iter(module.memory_dataloader()))
    latent = np.pad(autoencoder.encode(batch["image"])[0], ((0, 0), (1, 1), (1, 1)), "reflect")
    assert_drawn_everywhere(cache, batch["path"][0], windows(torch.from_numpy(latent)))
    assert_held_out_stay(cache, module, autoencoder)


def test_a_random_crop_is_one_of_the_latent_of_the_whole_image(root):
    module, autoencoder = data(root, resize=20), TinyLatents()
    cache = LatentCache(autoencoder, module)
    batch = next(iter(module.memory_dataloader()))
    path = batch["path"][0]
    whole = cache.files[0].read([path], CPU)[0, 0]
    assert whole.shape[1:] == (10, 10)
    crops = windows(whole)
    torch.testing.assert_close(crops[1, 1], autoencoder.encode(batch["image"])[0])
    assert_drawn_everywhere(cache, path, crops)
    assert_held_out_stay(cache, module, autoencoder)


def test_images_are_encoded_once_and_again_when_something_changes(root):
    autoencoder = TinyLatents()
    LatentCache(autoencoder, data(root))
    encoded, written = autoencoder.encoded, files(root)
    assert encoded >= 12
    LatentCache(autoencoder, data(root))
    assert autoencoder.encoded == encoded and files(root) == written

    with torch.no_grad():
        autoencoder.into.weight[0, 0] += 1e-3
    LatentCache(autoencoder, data(root))
    assert len(files(root)) == len(written) + 4  # two files, two locks
    LatentCache(autoencoder, data(root, image_size=18))
    assert len(files(root)) == len(written) + 8
    autoencoder.scale = 0.5
    LatentCache(autoencoder, data(root, image_size=18))
    assert len(files(root)) == len(written) + 12
    autoencoder.scale = 1.0
    held_out = data(root).val_dataloader().dataset.records
    train = next(p for p in root.glob("*/train/good/*") if p not in {r.image for r in held_out})
    train.write_bytes(train.read_bytes() + b"\0")
    LatentCache(autoencoder, data(root))
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
        LatentCache(autoencoder, module)
    assert not any(name.endswith((".partial", ".npy")) for name in files(root))
    monkeypatch.setattr(latent_cache, "_posterior", posterior)
    assert_direct(LatentCache(autoencoder, module), module, autoencoder)


def test_what_a_killed_process_leaves_is_not_read(root):
    module, autoencoder = data(root), TinyLatents()
    for file in LatentCache(autoencoder, module).files:
        file.path.rename(f"{file.path}.partial")
        with Path(f"{file.path}.partial").open("rb+") as left:
            left.seek(-64, os.SEEK_END)
            left.write(bytes(64))
    assert_direct(LatentCache(autoencoder, module), module, autoencoder)
    assert not any(name.endswith(".partial") for name in files(root))


@pytest.mark.parametrize("damage", ["empty", "cut", "64 bytes"])
def test_a_damaged_file_is_written_again(root, damage):
    module, autoencoder = data(root), TinyLatents()
    for file in LatentCache(autoencoder, module).files:
        content = file.path.read_bytes()
        turned = bytes(byte ^ 0xFF for byte in content[128:192])
        file.path.write_bytes(
            {
                "empty": b"",
                "cut": content[:-1],
                "64 bytes": content[:128] + turned + content[192:],
            }[damage]
        )
    assert_direct(LatentCache(autoencoder, module), module, autoencoder)


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
        detector.latents = LatentCache(detector.autoencoder, module) if cached else None
        detector.latent_loss = lambda z, category: seen.append((z, category))
        detector.batch_loss(batch)
    torch.testing.assert_close(*seen)


def test_augmentation_that_latents_cannot_follow_is_refused(root):
    with pytest.raises(ValueError, match=r"model.cache_latents.*data.augment \['vertical_flip'\]"):
        LatentCache(TinyLatents(), data(root, augment=["vertical_flip"]))
    with pytest.raises(ValueError, match=r"data.resize to be a multiple of 2.* not 19"):
        LatentCache(TinyLatents(), data(root, resize=19))


def test_a_full_disk_is_noticed_before_writing(root, monkeypatch):
    module = data(root)
    free = shutil.disk_usage(root)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: free)
    with pytest.raises(DataError, match=r"latents need .* GB are free .*data\.cache_dir"):
        LatentCache(TinyLatents(), module)


def test_whoever_comes_second_waits_for_the_first(root):
    module, autoencoder = data(root), TinyLatents()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: LatentCache(autoencoder, module), range(2)))
    together = autoencoder.encoded
    shutil.rmtree(module.cache_dir)
    alone = TinyLatents()
    LatentCache(alone, data(root))
    assert together == alone.encoded
