"""What loaders promise: the same draws for the same seed, every test image once, nothing lost."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

from data_modules import DataError, MVTecAD
from data_modules.reading.samplers import EveryItemOnce, ShuffledDraws
from lightning_ad.detector.processes import leave_group_at_exit
from tests import fakes
from tests.shrunk import REPOSITORY

AUGMENT = ["horizontal_flip", "vertical_flip", "quarter_turns"]


def module(root: Path, **options: Any) -> MVTecAD:
    defaults = {"image_size": 32, "batch_size": 4, "num_workers": 0, "cache": False}
    return MVTecAD(root=str(root), **{**defaults, **options})


def epoch_of(loader: DataLoader, epoch: int) -> list[dict[str, Any]]:
    assert isinstance(loader.sampler, DistributedSampler)
    loader.sampler.set_epoch(epoch)
    return list(loader)


def paths(batches: list[dict[str, Any]]) -> list[str]:
    return [path for batch in batches for path in batch["path"]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return fakes.write_mvtec(tmp_path_factory.mktemp("tree"), train=12)


def test_batch_is_what_the_contract_says(root: Path) -> None:
    batch = next(iter(module(root).test_dataloader()))
    assert batch["image"].shape == (4, 3, 32, 32)
    assert batch["image"].dtype == torch.float32
    assert batch["mask"].shape == (4, 1, 32, 32)
    assert batch["mask"].dtype == torch.uint8
    assert batch["label"].dtype == batch["category"].dtype == torch.int64
    assert all(isinstance(path, str) for path in batch["path"])


def test_white_is_one_and_black_minus_one(tmp_path: Path) -> None:
    halves = np.zeros((32, 32, 3), np.uint8)
    halves[:16] = 255
    for part in ("train", "test"):
        for number in range(2):
            fakes.write(tmp_path / "c" / part / "good" / f"{number}.png", halves)
    image = next(iter(module(tmp_path).test_dataloader()))["image"]
    assert (image[:, :, :16] == 1).all()
    assert (image[:, :, 16:] == -1).all()


def test_epochs_differ_and_repeat_by_seed(root: Path) -> None:
    loader = module(root, augment=AUGMENT, seed=3).train_dataloader()
    first, second = epoch_of(loader, 0), epoch_of(loader, 1)
    assert paths(first) != paths(second)
    again = epoch_of(module(root, augment=AUGMENT, seed=3).train_dataloader(), 1)
    assert paths(again) == paths(second)
    for batch, expected in zip(again, second, strict=True):
        assert torch.equal(batch["image"], expected["image"])
    other = epoch_of(module(root, augment=AUGMENT, seed=4).train_dataloader(), 1)
    assert paths(other) != paths(second)


def test_augmentation_depends_on_neither_workers_nor_processes(root: Path) -> None:
    def images(workers: int, processes: int, batch_size: int) -> dict[str, torch.Tensor]:
        found = {}
        for rank in range(processes):
            options = {"augment": AUGMENT, "resize": 40, "num_workers": workers}
            data = module(root, batch_size=batch_size, **options)
            loader = data.train_dataloader()
            sampler = ShuffledDraws(loader.dataset, batch_size, rank, processes, data.seed)
            loader = DataLoader(
                loader.dataset, batch_size=batch_size, sampler=sampler, num_workers=workers
            )
            for batch in epoch_of(loader, 5):
                found.update(zip(batch["path"], batch["image"], strict=True))
        return found

    alone = images(workers=0, processes=1, batch_size=4)
    assert len(alone) == 20
    for others in (images(2, 1, 4), images(0, 2, 2)):
        assert others.keys() == alone.keys()
        assert all(torch.equal(others[path], alone[path]) for path in alone)


def test_augmentation_only_moves_pixels(root: Path) -> None:
    plain = {
        path: image
        for batch in module(root).memory_dataloader()
        for path, image in zip(batch["path"], batch["image"], strict=True)
    }
    moved = 0
    for batch in epoch_of(module(root, augment=AUGMENT).train_dataloader(), 0):
        for path, image in zip(batch["path"], batch["image"], strict=True):
            turned = [
                torch.rot90(side, turns, (1, 2))
                for side in (plain[path], plain[path].flip(2))
                for turns in range(4)
            ]
            assert any(torch.equal(image, candidate) for candidate in turned)
            moved += not torch.equal(image, plain[path])
    assert moved > 5


def test_half_turns_turn_every_second_image_upside_down(root: Path) -> None:
    plain = {item["path"]: item["image"] for item in module(root).memory_dataloader().dataset}
    loader, turned = module(root, augment=["half_turns"]).train_dataloader(), []
    for epoch in range(10):
        for batch in epoch_of(loader, epoch):
            for path, image in zip(batch["path"], batch["image"], strict=True):
                upside_down = plain[path].flip((1, 2))
                assert torch.equal(image, upside_down) or torch.equal(image, plain[path])
                turned.append(torch.equal(image, upside_down))
    assert 0.4 < sum(turned) / len(turned) < 0.6


def test_crop_is_random_in_training_and_central_elsewhere(root: Path) -> None:
    whole = next(iter(module(root, image_size=40).test_dataloader()))
    centre = next(iter(module(root, image_size=32, resize=40).test_dataloader()))
    assert torch.equal(centre["image"], whole["image"][..., 4:36, 4:36])
    assert torch.equal(centre["mask"], whole["mask"][..., 4:36, 4:36])

    data = module(root, image_size=32, resize=40)
    full = {
        path: image
        for batch in module(root, image_size=40).memory_dataloader()
        for path, image in zip(batch["path"], batch["image"], strict=True)
    }
    places = set()
    for batch in epoch_of(data.train_dataloader(), 0):
        for path, image in zip(batch["path"], batch["image"], strict=True):
            windows = full[path].unfold(1, 32, 1).unfold(2, 32, 1)
            same = (windows == image[:, None, None]).all(dim=-1).all(dim=-1).all(dim=0)
            assert same.any()
            places.add(tuple(same.nonzero()[0].tolist()))
    assert len(places) > 5


def test_translation_moves_training_images_and_mirrors_them(root: Path) -> None:
    data = module(root, augment=["translation"])
    whole = {
        path: np.pad(image, ((0, 0), (2, 2), (2, 2)), mode="reflect")
        for batch in module(root).memory_dataloader()
        for path, image in zip(batch["path"], batch["image"], strict=True)
    }
    places = set()
    loader = data.train_dataloader()
    for batch in (batch for epoch in range(5) for batch in epoch_of(loader, epoch)):
        for path, image in zip(batch["path"], batch["image"].numpy(), strict=True):
            windows = np.lib.stride_tricks.sliding_window_view(whole[path], (3, 32, 32))[0]
            same = (windows == image).all(axis=(-3, -2, -1))
            assert same.any()
            places.add(tuple(np.argwhere(same)[0].tolist()))
    assert places == {(top, left) for top in range(5) for left in range(5)}
    for loader in ("memory_dataloader", "val_dataloader", "test_dataloader"):
        moved, plain = (next(iter(getattr(m, loader)())) for m in (data, module(root)))
        assert torch.equal(moved["image"], plain["image"])


def test_held_out_images_follow_names_not_order(root: Path, tmp_path: Path) -> None:
    held_out = {record.image.name for record in module(root).held_out_records()}
    grown = fakes.write_mvtec(tmp_path, train=12)
    for name in ("0000.png", "zzz.png"):
        fakes.write(grown / "bottle/train/good" / name, fakes.texture(7, 48, 48))
    again = {record.image.name for record in module(grown).held_out_records()}
    assert held_out <= again | {"0000.png", "zzz.png"}
    assert [r.category for r in module(root, val_fraction=0.25).held_out_records()] == [
        *["bottle"] * 3,
        *["grid"] * 3,
    ]


@pytest.mark.parametrize("train", [2, 3, 30])
def test_something_is_held_out_of_every_category(tmp_path: Path, train: int) -> None:
    data = module(fakes.write_mvtec(tmp_path, train=train), val_fraction=0.01)
    assert [record.category for record in data.held_out_records()] == ["bottle", "grid"]
    everything = module(tmp_path, val_fraction=0.99)
    assert len(everything.held_out_records()) == 2 * (train - 1)


def test_one_training_image_is_not_enough(tmp_path: Path) -> None:
    data = module(fakes.write_mvtec(tmp_path, ("bottle",), train=1))
    with pytest.raises(DataError, match="fewer than two training images of bottle; two are needed"):
        data.train_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"val_fraction": 0}, "val_fraction"),
        ({"val_fraction": 1.0}, "val_fraction"),
        ({"image_size": 0}, "image_size"),
        ({"batch_size": 0}, "batch_size"),
        ({"resize": 16}, r"data\.resize \(16\).*data\.image_size \(32\)"),
        ({"augment": ["shear"]}, r"data\.augment.*'shear'.*horizontal_flip"),
    ],
)
def test_options_out_of_range_are_named(root: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        module(root, **options)


def test_mixed_categories_equal_separate_ones(root: Path) -> None:
    mixed = list(module(root).test_dataloader())
    for number, category in enumerate(("bottle", "grid")):
        alone = list(module(root, category=category).test_dataloader())
        of_mixed = [
            (path, image)
            for batch in mixed
            for path, image, kind in zip(
                batch["path"], batch["image"], batch["category"], strict=True
            )
            if kind == number
        ]
        assert [path for path, _ in of_mixed] == paths(alone)
        assert torch.equal(
            torch.stack([image for _, image in of_mixed]),
            torch.cat([batch["image"] for batch in alone]),
        )


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
@pytest.mark.parametrize("items", [1, 5, 8])
def test_every_item_is_seen_once(items: int, processes: int) -> None:
    dataset = TensorDataset(torch.arange(items))
    samplers = [EveryItemOnce(dataset, rank, processes) for rank in range(processes)]
    assert sorted(item for sampler in samplers for item in sampler) == list(range(items))
    assert all(len(sampler) >= 1 for sampler in samplers)


@pytest.mark.parametrize("items", [1, 2, 3, 7, 8, 50])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 4, 64])
def test_every_process_gets_as_many_whole_batches(
    items: int, processes: int, batch_size: int
) -> None:
    dataset = TensorDataset(torch.arange(items))
    samplers = [ShuffledDraws(dataset, batch_size, r, processes, 0) for r in range(processes)]
    draws = [[draw.item for draw in sampler] for sampler in samplers]
    lengths = {len(items) for items in draws}
    assert lengths == {len(samplers[0])}
    length = lengths.pop()
    assert length >= 1
    assert length % batch_size == 0 or length < batch_size
    together = [item for rank_items in draws for item in rank_items]
    if items >= processes:
        assert len(set(together)) == len(together)
    if items >= processes * batch_size:
        assert items - len(together) < processes * batch_size


def test_fingerprint_changes_with_what_it_describes(root: Path) -> None:
    plain = module(root).fingerprint_fields()
    assert plain == module(root, batch_size=9, seed=5, cache=True).fingerprint_fields()
    for options in (
        {"image_size": 16},
        {"resize": 40},
        {"category": "grid"},
        {"val_fraction": 0.3},
    ):
        assert module(root, **options).fingerprint_fields() != plain


class Recorder(LightningModule):
    """Writes down what each process draws."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.folder = folder

    def note(self, stage: str, seen: list[str]) -> None:
        with (self.folder / f"{stage}-{self.global_rank}").open("a") as file:
            file.writelines(f"{path}\n" for path in seen)

    def training_step(self, batch: dict, index: int) -> torch.Tensor:
        self.note(f"train{self.current_epoch}", batch["path"])
        return self.weight * batch["image"].mean()

    def test_step(self, batch: dict, index: int) -> None:
        self.note("test", batch["path"])

    def on_test_epoch_end(self) -> None:  # a reduction that hangs if a process stays away
        torch.distributed.barrier() if torch.distributed.is_initialized() else None

    def predict_step(self, batch: dict, index: int) -> list[str]:
        self.note("predict", batch["path"])
        return batch["path"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def run_trainer(root: Path, folder: Path, processes: int, **options: Any) -> None:
    """Fit two epochs, test and predict, each process writing down what it sees."""
    folder.mkdir(exist_ok=True)
    leave_group_at_exit()  # as a detector would see to
    trainer = Trainer(
        accelerator="cpu",
        devices=processes,
        strategy="ddp" if processes > 1 else "auto",
        max_epochs=2,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
    )
    data, recorder = module(root, **options), Recorder(folder)
    trainer.fit(recorder, data)
    trainer.test(recorder, data, verbose=False)
    trainer.predict(recorder, data)


def seen(folder: Path, stage: str) -> list[str]:
    return [line for file in sorted(folder.glob(f"{stage}-*")) for line in file.read_text().split()]


def test_lightning_keeps_the_samplers(root: Path, tmp_path: Path) -> None:
    run_trainer(root, tmp_path / "one", processes=1)
    tests = sorted(str(record.image) for record in module(root).records_of("test"))
    for stage in ("test", "predict"):
        assert sorted(seen(tmp_path / "one", stage)) == tests
    assert seen(tmp_path / "one", "train0") != seen(tmp_path / "one", "train1")
    expected = paths(epoch_of(module(root).train_dataloader(), 1))
    assert seen(tmp_path / "one", "train1") == expected


@pytest.mark.whole
def test_two_processes_draw_what_one_does(tmp_path: Path) -> None:
    """Also with a single test image: the second process has none, and must not hang the first."""
    root = fakes.write_mvtec(tmp_path / "tree", ("bottle",), train=11, good=1, bad=0)
    script = tmp_path / "run.py"
    script.write_text(
        "from pathlib import Path\n"
        "from tests.data_modules.test_loaders import run_trainer\n"
        f"run_trainer(Path({str(root)!r}), Path({str(tmp_path / 'two')!r}), 2, batch_size=2)\n"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, str(script)], check=True, env=environment)
    run_trainer(root, tmp_path / "one", processes=1, batch_size=4)
    for stage in ("test", "predict", "train0", "train1"):
        assert sorted(seen(tmp_path / "two", stage)) == sorted(seen(tmp_path / "one", stage))
    assert len(seen(tmp_path / "two", "test")) == 1
