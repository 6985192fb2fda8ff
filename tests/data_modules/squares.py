"""Digests of what square, squashed runs are made of, as a program that prints them.

They were recorded before there were other shapes (`tests/golden/squares.json`), and stay.
"""

import hashlib
import json
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import torch

from data_modules import MVTecAD
from data_modules.reading.cache import Shelf
from data_modules.reading.images import Decoding
from data_modules.reading.samplers import Draw
from data_modules.records import Record
from lightning_ad.detector.normals import Moments
from lightning_ad.detector.photograph import framing_of, map_of_photograph, seen
from lightning_ad.networks import DiffusionUNet, PatchDenoiser
from tests.fakes import texture, write_mvtec

TREATED = {
    "plain": {"image_size": 32},
    "crop": {"image_size": 32, "resize": 40},
    "translation": {"image_size": 32, "augment": ["translation"]},
    "turns": {"image_size": 32, "augment": ["quarter_turns", "half_turns", "vertical_flip"]},
    "bicubic": {"image_size": 64, "interpolation": "bicubic"},
}
SIZES = [(48, 48), (30, 70), (100, 64), (20, 20)]


def digest(*parts) -> str:
    content = hashlib.sha256()
    for part in parts:
        content.update(part.tobytes() if hasattr(part, "tobytes") else repr(part).encode())
    return content.hexdigest()[:16]


def items(root: Path, name: str) -> str:
    data = MVTecAD(str(root), "bottle", cache=False, num_workers=0, **TREATED[name])
    datasets = [data.train_dataloader().dataset, data.test_dataloader().dataset]
    draws = [(datasets[0], Draw(item, epoch)) for epoch in (0, 1) for item in range(3)]
    found = [dataset[draw] for dataset, draw in [*draws, (datasets[1], 0), (datasets[1], 4)]]
    return digest(*(part.numpy() for item in found for part in (item["image"], item["mask"])))


def maps(options: dict) -> str:
    framing = framing_of({"data": {"init_args": options}})
    generator = torch.Generator().manual_seed(0)
    anomaly_map = torch.rand(
        1, 1, options["image_size"], options["image_size"], generator=generator
    )
    found = [map_of_photograph(anomaly_map, framing, size) for size in SIZES]
    shown = [seen(texture(1, *size), framing).numpy() for size in SIZES]
    return digest(*found, *shown)


def cached_at(decoding: Decoding) -> str:
    record = Record(Path("a.png"), None, 0, "train", "c", "good")
    with patch("data_modules.reading.cache.file_stamp", lambda path: (str(path), 1, 2)):
        return Shelf(Path("cache"), "set", [record], decoding).folder.name


def normals() -> str:
    generator = torch.Generator().manual_seed(0)
    maps_of_all = torch.rand(6, 1, 32, 32, generator=generator)
    category = torch.tensor([0, 0, 0, 1, 1, 1])
    moments = Moments(maps_of_all, category, 2)
    return digest(
        *(part.numpy() for part in (*moments.without(maps_of_all, category), *moments.all()))
    )


def recorded() -> dict[str, str]:
    with tempfile.TemporaryDirectory() as folder:
        root = write_mvtec(Path(folder) / "mvtec", size=50)
        found = {f"items, {name}": items(root, name) for name in TREATED}
        data = MVTecAD(str(root), "bottle", image_size=32, num_workers=0, resize=40)
        found["fingerprint"] = json.dumps(data.fingerprint_fields())
        found["framing"] = repr(data.framing)
    found["maps"] = maps({"image_size": 32})
    found["maps of a crop"] = maps({"image_size": 32, "resize": 41})
    found["cache"] = cached_at(Decoding(64))
    found["cache, bicubic"] = cached_at(Decoding(64, "nonzero", "bicubic", 4095))
    found["normals"] = normals()
    torch.manual_seed(0)
    unet = DiffusionUNet(32, base=8, multipliers=(1, 2), heads=2)
    with torch.no_grad():
        noise = unet(torch.ones(1, 3, 32, 32), torch.tensor([3]))
    found["unet"] = f"{len(unet.state_dict())} {float(noise.mean()):.4f}"
    denoiser = PatchDenoiser(100, 4, 8)
    found["places"] = str(tuple(denoiser.place.weight.shape))
    return found


if __name__ == "__main__":
    json.dump(recorded(), sys.stdout, indent=1)
