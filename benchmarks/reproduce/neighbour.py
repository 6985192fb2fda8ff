"""What a trivial nearest neighbour scores, which a method has to beat to mean anything."""

from benchmarks.reproduce.cells import Part
from data_modules import MTD, MVTecAD
from data_modules.neighbour import neighbour_auroc


def trivial_neighbour(part: Part, root: str) -> float | None:
    """Its image AUROC on a part of a data set, None where that cannot be known."""
    if part.data == "mvtec":
        return neighbour_auroc(MVTecAD(root, category=part.name))[part.name]
    return neighbour_auroc(MTD(root, split=part.name))["mtd"]
