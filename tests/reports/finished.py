"""Folders of results as `test` and `predict` leave them behind, without a detector."""

import json
import os
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from lightning_ad.reports.pictures import picture_name, write_picture

ODD = (
    "</script><script>window.hurt = 1</script>.png",
    "<img src=x onerror=alert(1)>.png",
    "\u2028 \"quoted\" 'names' & more.png",
    "日本語.png",
    os.fsdecode(b"K\xe4fer.png"),
)
"""Names of files that an HTML page could trip over."""


def write_results(
    folder: Path, count: int = 40, labelled: bool = True, pictures: bool = True, seed: int = 0
) -> list[dict[str, Any]]:
    """Write predictions.json, report.json, metrics.json and thumbnails; return the images."""
    rng = np.random.default_rng(seed)
    names = [*ODD, *(f"{number:05d}.png" for number in range(count))][:count]
    images = [_image(f"nut/{name}", number, labelled, rng) for number, name in enumerate(names)]
    normal = sorted(rng.normal(1, 0.3, 39).tolist())
    threshold = normal[37]  # ceil(40 * 0.95) = 38
    for image in images:
        verdict = "anomalous" if image["score"] > threshold else "normal"
        image |= {"threshold": threshold, "verdict": verdict}
        if pictures:
            name = picture_name(PurePath(image["path"]), ".jpg")
            write_picture(folder / "thumbnails" / name, np.full((24, 72, 3), 90, np.uint8))
    about = {"format": 1, "method": "PaDiM", "fingerprint": "0123456789ab", "root": "/data"}
    decided = {"false_alarm_rate": 0.05, "threshold_from": "calibration"}
    _write(folder / "predictions.json", {**about, **decided, "images": images})
    curve = [[0, 0], [0, 0.5], [0.5, 1], [1, 1]]
    curves = {"image_roc": curve, "image_pr": [[0.5, 1], [1, 0.7]], "pro": [[0, 0], [0.3, 0.9]]}
    category = {"normal_scores": normal[::-1], "curves": curves if labelled else {}}
    evidence = {
        **{"format": 1, "data_set": "Folder", "root": "/data", "categories": {"nut": category}},
        "trained_with": {"version": "0.1.0", "settings": {"model": {"class_path": "PaDiM"}}},
    }
    _write(folder / "report.json", evidence)
    if labelled:
        metrics = {f"test/{c}/image_auroc": 0.875 for c in ("nut", "mean")}
        _write(folder / "metrics.json", {**metrics, "data.test": "abc", "protocol": "default"})
    return images


def _image(path: str, number: int, labelled: bool, rng: np.random.Generator) -> dict[str, Any]:
    label = number % 2
    score = float(rng.normal(1 + 0.6 * label, 0.5))
    region = {
        **{"box": [1, 2, 3, 4], "area": 12, "share": 0.02, "centroid": [2.0, 3.5]},
        "peak": {"at": [2, 3], "value": 2.5},
    }
    known = {"label": label, "kind": "scratch" if label else "good"}
    return {
        **{"path": path, "category": "nut", "size": [24, 36], "score": score, "p_value": 0.1},
        **(known if labelled else {"label": None, "kind": None}),
        **{"pixel_threshold": 2.0, "seconds": 0.01, "regions": [region] * label},
    }


def _write(file: Path, content: dict[str, Any]) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content))
