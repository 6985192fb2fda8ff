"""The label-free objective sees held-out normal images only, and the same defects every time."""

import json

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from sklearn.metrics import roc_auc_score

from data_modules import Folder, MVTecAD
from data_modules.defects import paste_defect
from lightning_ad.callbacks.objective import Objective, held_out_names, with_defects
from tests.fakes import texture, write, write_mvtec
from tests.methods.tiny import Brightness


@pytest.fixture
def data(tmp_path):
    root = write_mvtec(tmp_path / "mvtec", train=12)
    return MVTecAD(str(root), image_size=32, num_workers=0, val_fraction=0.4, cache=False)


@pytest.mark.parametrize("side", [16, 64, 200])
def test_nothing_changes_outside_the_mask(side):
    image = texture(3, side, side)
    for seed in range(20):
        pasted, mask = paste_defect(image, "brick", np.random.default_rng(seed))
        assert mask.any() and mask.mean() < 0.6 and pasted.shape == image.shape
        assert (pasted[mask == 0] == image[mask == 0]).all()
        assert (pasted[mask == 1] != image[mask == 1]).any()


def test_a_defect_depends_on_the_image_name_alone(data):
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    first = with_defects(batch, data.categories, held_out_names(data))
    order = torch.arange(len(batch["path"])).flip(0)
    turned = {
        "image": batch["image"][order], "category": batch["category"][order],
        "label": batch["label"][order], "path": [batch["path"][i] for i in order],
    }  # fmt: skip
    again = with_defects(turned, data.categories, held_out_names(data))
    assert torch.equal(again["image"], first["image"][order])
    assert torch.equal(again["mask"], first["mask"][order])
    assert first["label"].all() and first["image"].abs().max() <= 1


@pytest.mark.parametrize("name", ["top.png", "cam 0.png"])
def test_images_of_one_name_get_defects_of_their_own(tmp_path, name):
    for part in range(30):
        write(tmp_path / f"ok/{part:02d}/{name}", texture(0, 16, 16))
    data = Folder(
        root=str(tmp_path), normal_dir="ok", image_size=16, num_workers=0, cache=False,
        val_fraction=0.3,
    )  # fmt: skip
    data.setup("fit")
    batch = next(iter(data.val_dataloader()))
    masks = with_defects(batch, data.categories, held_out_names(data))["mask"]
    assert len(torch.unique(masks.flatten(1), dim=0)) == len(masks) > 5


def test_it_is_the_auroc_of_held_out_images_and_their_defective_copies(data, tmp_path):
    detector = Brightness()
    trainer = Trainer(
        accelerator="cpu", logger=False, callbacks=[Objective()], default_root_dir=tmp_path,
        enable_progress_bar=False, enable_checkpointing=False,
    )  # fmt: skip
    trainer.test(detector, data, verbose=False)
    written = json.loads((tmp_path / "objective.json").read_text())

    per_category = {"image": [], "pixel": []}
    batches = list(data.val_dataloader())
    normal = {key: torch.cat([batch[key] for batch in batches]) for key in ("image", "category")}
    normal["path"] = [path for batch in batches for path in batch["path"]]
    normal["label"] = torch.zeros(len(normal["path"]), dtype=torch.long)
    defective = with_defects(normal, data.categories, held_out_names(data))
    assert all("/train/good/" in path for path in normal["path"])
    for index in range(len(data.categories)):
        chosen = normal["category"] == index
        images = torch.cat([normal["image"][chosen], defective["image"][chosen]])
        maps = images.abs().mean(1, keepdim=True)
        masks = torch.cat([torch.zeros_like(maps[: chosen.sum()]), defective["mask"][chosen]])
        labels = torch.arange(len(images)) >= chosen.sum()
        per_category["image"].append(roc_auc_score(labels, maps.amax((1, 2, 3))))
        per_category["pixel"].append(roc_auc_score(masks.flatten(), maps.flatten()))
    for level, values in per_category.items():
        # Histograms rank within 1e-4 of sorting.
        assert written[f"objective/{level}_auroc"] == pytest.approx(np.mean(values), abs=1e-4)
        assert trainer.callback_metrics[f"objective/{level}_auroc"] == pytest.approx(
            written[f"objective/{level}_auroc"], abs=1e-6
        )
