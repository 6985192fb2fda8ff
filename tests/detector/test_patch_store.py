"""Stored patches are the training images', computed once for each backbone."""

from types import SimpleNamespace

import pytest
import torch

from data_modules import MTD
from data_modules.reading.samplers import Draw
from lightning_ad.detector.patch_store import STEPS, PatchStore
from lightning_ad.methods import FeatureDiffusion
from lightning_ad.networks import FeaturePyramid, PatchDenoiser
from tests.fakes import write_mtd
from tests.methods.tiny import tiny_pyramid


class Counting(torch.nn.Module):
    """Counts the images that a pyramid sees."""

    def __init__(self):
        super().__init__()
        self.pyramid, self.images = tiny_pyramid(), 0

    def forward(self, image):
        self.images += len(image)
        return self.pyramid(image)


@pytest.fixture
def data(tmp_path):
    root = write_mtd(tmp_path / "mtd")
    found = MTD(root=str(root), image_size=16, cache_dir=str(tmp_path / "cache"), num_workers=0)
    found.trainer = SimpleNamespace(world_size=1, global_rank=0, current_epoch=0)
    return found


def detector(data):
    found = over(Counting(), data, stride=2)
    found.features.images = 0
    return found


def over(features, data, stride):
    found = FeatureDiffusion(features, PatchDenoiser(16, 5, 16, stride=stride), components=5)
    found.meet(data, "fit")
    return found


def test_items_are_patches_of_the_training_images(data):
    found = detector(data)
    store = PatchStore(found, data, per_item=10)
    assert len(store) == STEPS * data.batch_size
    batch = next(iter(data.memory_dataloader()))
    with torch.no_grad():
        points = found.points(batch["image"]).flatten(2).transpose(1, 2)
    for number in (0, 1, len(points) + 1):
        item, row = store[Draw(number, 0)], number % len(points)
        torch.testing.assert_close(
            item["patches"].float(), points[row, item["place"]], rtol=1e-2, atol=1e-2
        )
    first, again, later, other = (
        store[draw]["place"].tolist()
        for draw in (Draw(0, 0), Draw(0, 0), Draw(0, 1), Draw(len(points), 0))
    )
    assert first == again and first != later and first != other


def test_the_backbone_sees_every_image_twice_and_then_never_again(data):
    found = detector(data)
    images = len(data.training_records())
    PatchStore(found, data, per_item=4)
    assert found.features.images == 2 * images
    again = detector(data)
    PatchStore(again, data, per_item=4)
    assert again.features.images == 0
    torch.testing.assert_close(again.space["projection"], found.space["projection"])


def test_another_backbone_or_space_has_files_of_its_own(data):
    PatchStore(detector(data), data, per_item=4)
    other = detector(data)
    other.features.pyramid.first[0].weight.data += 1
    PatchStore(other, data, per_item=4)
    padded = detector(data)  # the same weights, but other features
    padded.features.pyramid.first[0].padding_mode = "reflect"
    PatchStore(padded, data, per_item=4)
    scaled = detector(data)
    scaled.features.register_buffer("scale", torch.tensor(2.0), persistent=False)
    PatchStore(scaled, data, per_item=4)
    whiter = detector(data)
    whiter.whitening = 1.0
    PatchStore(whiter, data, per_item=4)
    assert len(list(data.cache_dir.glob("patches-*.npy"))) == 5


def test_other_layers_of_a_backbone_have_files_of_their_own(data):
    """Its weights are the same: what lies behind the last layer is not built, before it all is."""
    for layers, stride in (([1, 2], 4), ([2], 8)):
        torch.manual_seed(0)
        PatchStore(over(FeaturePyramid("resnet18", layers, "random"), data, stride), data, 4)
    assert len(list(data.cache_dir.glob("patches-*.npy"))) == 2


def test_a_damaged_file_is_written_again(data):
    whole = PatchStore(detector(data), data, per_item=4).points.copy()
    for file in data.cache_dir.glob("*-MTD-*.npy"):
        file.write_bytes(file.read_bytes()[:200])
    assert (PatchStore(detector(data), data, per_item=4).points[:] == whole).all()


def test_augmentation_is_refused(data):
    data.framing = SimpleNamespace(augment=("horizontal_flip",))
    with pytest.raises(ValueError, match=r"FeatureDiffusion looks .* once, .* data.augment"):
        detector(data)
