"""Which pixels of a map count: those that show the photograph, of these the parts that matter."""

from torch import Tensor, where

from lightning_ad.detector.processes import Rows

JUDGED = "judged"
"""The key of a batch that marks them (B, 1, H, W); where it lacks, all count."""


def maps_in(rows: Rows) -> dict[str, Tensor]:
    """The maps (B, 1, H, W) among the columns over some images."""
    return {n: v for n, v in rows.items() if n not in ("path", "category", JUDGED)}


def judged_values(maps: Tensor, judged: Tensor | None) -> list[Tensor]:
    """The values (n,) that count in each of the maps (B, 1, H, W)."""
    if judged is None:
        return list(maps.flatten(1))
    return [one[marks.to(one.device)] for one, marks in zip(maps, judged.bool(), strict=True)]


def judged_part(one: Tensor, judged: Tensor) -> Tensor:
    """The smallest rectangle of a map (1, H, W) that holds all that ``judged`` (1, H, W) marks.

    What it does not mark there gets the smallest value that is, so that it is never the anomaly.
    """
    judged = judged.bool().to(one.device)
    return judged_box(where(judged, one, one[judged].min()), judged)


def judged_box(one: Tensor, judged: Tensor) -> Tensor:
    """The same rectangle with all that it holds."""
    rows, columns = (judged[0].any(axis).nonzero()[[0, -1]].flatten().tolist() for axis in (1, 0))
    return one[..., rows[0] : rows[1] + 1, columns[0] : columns[1] + 1]
