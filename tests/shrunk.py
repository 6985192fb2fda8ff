"""Experiments shrunk until a whole one takes seconds."""

from pathlib import Path
from typing import Any

import yaml

from lightning_ad.cli import main
from tests.fakes import write_mtd

REPOSITORY = Path(__file__).parent.parent

QUIET = ["--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"]

SMALL = [
    "--data.num_workers=0",
    "--trainer.enable_model_summary=false",
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.logger=false",
    *QUIET,
]

SMALL_NETWORKS = {
    "DiffusionUNet": {
        "base": 8,
        "multipliers": "[1,2]",
        "attention_at": "[8]",
        "blocks_per_level": 1,
        "heads": 2,
    },
    "ContextUNet": {"base": 8, "heads": 1},
    "PatchDenoiser": {"width": 8, "components": 4},
    "FeatureDiT": {"width": 8, "depth": 1, "heads": 2, "side": 4},
}


def fit_ddad(root: Path, run_dir: Path, cache: Path, *more: str) -> list[str]:
    """Arguments of a DDAD experiment on magnetic tiles at 16 px with the smallest networks."""
    return [
        "fit",
        f"--config={REPOSITORY / 'experiments/ddad_s_mtd.yaml'}",
        f"--run_dir={run_dir}",
        f"--data.root={root}",
        f"--data.cache_dir={cache}",
        "--data.image_size=16",
        "--data.batch_size=4",
        *_network("denoiser", "DiffusionUNet"),
        *FEATURES,
        FEW_STEPS,
        "--model.adaptation_epochs=2",
        "--trainer.max_epochs=3",
        *SMALL,
        *more,
    ]


FEATURES = [
    "--model.features.backbone=test_resnet",
    "--model.features.weights=random",
    "--model.features.stride_in_conv1=false",
]


EXPERIMENTS = {
    "DDAD": "ddad_s_mtd",
    "D3AD": "d3ad_mtd",
    "DeCoDiff": "deco_mtd",
    "TextureDDM": "texture_mtd",
    "FeatureDiffusion": "feature_mtd",
    "PaDiM": "padim_mtd",
    "PatchCore": "patchcore_mtd",
    "SimpleNet": "simplenet_mtd",
    "DRAEM": "draem_mtd",
    "InvAD": "invad_mtd",
}
"""The experiment of each method on magnetic tiles."""

WIDER, SMALLER = "--data.image_size=32", "--data.image_size=16"
FEW_STEPS = "--model.steps=2"

OF_METHOD = {
    "DDAD": [FEW_STEPS, SMALLER],
    "D3AD": [FEW_STEPS, SMALLER, "--model.neighbours=2"],
    "DeCoDiff": [FEW_STEPS, SMALLER],
    "TextureDDM": [FEW_STEPS, SMALLER],
    "FeatureDiffusion": ["--model.components=4", WIDER],
    "PaDiM": ["--model.components=4", WIDER],
    "PatchCore": ["--model.components=4", WIDER],
    "SimpleNet": ["--model.dimensions=16", "--model.hidden=8", WIDER],
    "DRAEM": [
        "--model.reconstruction.width=4",
        "--model.segmentation.width=4",
        "--model.textures=null",
        WIDER,
    ],
    "InvAD": ["--model.features.layers=[1,2]", "--model.denoiser.channels=80", WIDER],
}
"""What makes a method small beside its networks."""


def fit_method(method: str, folder: Path, run: Path, autoencoder: Path, *more: str) -> list[str]:
    """Arguments of a method's experiment on the tiles in ``folder``/mtd, shrunk."""
    file = REPOSITORY / f"experiments/{EXPERIMENTS[method]}.yaml"
    overrides = shrink(yaml.safe_load(file.read_text()), autoencoder)
    data = [f"--data.root={folder / 'mtd'}", f"--data.cache_dir={folder / 'cache'}"]
    start = ["fit", f"--config={file}", f"--run_dir={run}", *data]
    return [*start, *overrides, "--data.batch_size=2", *more]


def checkpoint_of(method: str, folder: Path, autoencoder: Path) -> Path:
    """The final checkpoint of a method that is trained, shrunk, on made-up tiles in ``folder``."""
    write_mtd(folder / "mtd")
    main(fit_method(method, folder, folder / "run", autoencoder))
    return folder / "run/final.ckpt"


def _network(key: str, name: str) -> list[str]:
    return [f"--model.{key}.{option}={value}" for option, value in SMALL_NETWORKS[name].items()]


def shrink(config: dict[str, Any], autoencoder: Path) -> list[str]:
    """Overrides that make any experiment a matter of seconds, its method and data set kept."""
    model = config["model"]["init_args"]
    overrides = ["--data.batch_size=4", "--trainer.max_epochs=1", *SMALL]
    if "denoiser" in model:
        overrides += _network("denoiser", model["denoiser"]["class_path"].split(".")[-1])
    method = config["model"]["class_path"].split(".")[-1].removesuffix("AsPublished")
    own = OF_METHOD.get(method, [SMALLER])
    if config["model"]["class_path"].endswith("DeCoDiffAsPublished"):  # its steps are fixed
        own = [SMALLER]
    overrides += own
    if "features" in model:
        overrides += FEATURES
    if "training_epochs" in model:
        overrides = [option for option in overrides if "max_epochs" not in option]
        overrides.append("--model.training_epochs=1")
    if "adaptation_epochs" in model:
        overrides.append("--model.adaptation_epochs=1")
    if "autoencoder" in model:
        overrides += ["--data.image_size=32", "--model.autoencoder=KLAutoencoder"]
        overrides += [f"--model.autoencoder.weights={autoencoder}", "--model.denoiser.channels=4"]
        if model["denoiser"]["class_path"].endswith("DiffusionUNet"):
            overrides.append("--model.denoiser.image_size=16")
    return overrides
