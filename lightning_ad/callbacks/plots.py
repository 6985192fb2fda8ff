"""The report's curves, histogram and table of images as plots of W&B, offline as online."""

from collections.abc import Iterable
from typing import Any

from lightning.pytorch.loggers import WandbLogger

from lightning_ad.reports.page import categories_of, thumbnail_of
from lightning_ad.reports.results import Results, Values

CURVES = {
    "image_roc": ("image ROC", "false-positive rate", "true-positive rate"),
    "image_pr": ("image precision-recall", "recall", "precision"),
    "pixel_roc": ("pixel ROC", "false-positive rate", "true-positive rate"),
    "pixel_pr": ("pixel precision-recall", "recall", "precision"),
    "pro": ("per-region overlap", "false-positive rate", "overlap"),
}
"""Title and axes of each curve."""
COLUMNS = (
    *("image", "name", "category", "label", "kind"),
    *("score", "threshold", "p_value", "verdict", "regions"),
)
PICTURES = 500
"""Images of the table that have pictures: those of the highest scores."""


def log_plots(logger: WandbLogger, results: Results) -> None:
    """Log curves and a histogram of each category, and a table of all images."""
    for category in categories_of(results):
        name = category["name"]
        plots = dict(_curves(name, category["curves"]))
        scores = [[i["score"], _label(i)] for i in results.images if i["category"] == name]
        plots[f"scores/{name}"] = _histogram(scores, f"scores of {name}")
        logger.experiment.log(plots)
    logger.experiment.log({"images": _table(results)})


def _curves(category: str, curves: Values) -> Iterable[tuple[str, Any]]:
    import wandb  # slow, and needed by runs that log there only

    for key, points in curves.items():
        title, x, y = CURVES[key]
        table = wandb.Table(columns=[x, y], data=points)
        yield f"curves/{category}/{key}", wandb.plot.line(table, x, y, title=f"{title}, {category}")


def _histogram(scores: list[list[Any]], title: str) -> Any:
    import wandb

    return wandb.plot.histogram(
        wandb.Table(columns=["score", "label"], data=scores), "score", title
    )


def _label(image: Values) -> str:
    label = image.get("label")
    return "not labelled" if label is None else ("good", "defective")[label]


def _table(results: Results) -> Any:
    import wandb

    rows = sorted(results.images, key=lambda image: -image["score"])
    return wandb.Table(
        columns=list(COLUMNS),
        data=[_row(image, results, number < PICTURES) for number, image in enumerate(rows)],
    )


def _row(image: Values, results: Results, has_picture: bool) -> list[Any]:
    import wandb

    file = thumbnail_of(image, results.folder)
    picture = wandb.Image(str(file)) if has_picture and file.is_file() else None
    known = [image.get(name) for name in ("kind", "score", "threshold", "p_value", "verdict")]
    name = image["path"].encode(errors="replace").decode()
    return [
        picture,
        name,
        image["category"],
        _label(image),
        *known,
        len(image.get("regions") or []),
    ]
