"""Some photographs are broken: the others are scored, whatever batch and worker they fall to."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import LightningModule, Trainer

from data_modules import Folder
from tests.fakes import texture, write


class Listed(LightningModule):
    """Notes which images it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    def predict_step(self, batch: Any, batch_idx: int) -> None:
        assert len(batch["image"]) == len(batch["path"]) > 0
        self.seen += [Path(path).name for path in batch["path"]]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-40])


def corrupt(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55  # complete to its end, but not decodable
    path.write_bytes(data)


def remove(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("broken", [[1], [0, 1], [2, 3, 6], [0, 1, 2, 3, 4, 5, 6]])
@pytest.mark.parametrize("damage", [truncate, corrupt, remove])
def test_the_others_are_scored(tmp_path: Path, workers: int, broken: list[int], damage) -> None:  # type: ignore[no-untyped-def]
    names = [f"{index}.png" for index in range(7)]
    for index, name in enumerate(names):
        write(tmp_path / name, texture(index, 20, 30))
        if index in broken:
            damage(tmp_path / name)
    data = Folder(root=str(tmp_path), image_size=16, batch_size=2, num_workers=workers)
    detector = Listed()
    Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path / "run",
    ).predict(detector, data, return_predictions=False)  # fmt: skip
    assert detector.seen == [name for index, name in enumerate(names) if index not in broken]
    assert [p.path.name for p in data.unreadable] == [names[index] for index in broken]
