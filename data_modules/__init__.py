"""Data sets for visual anomaly detection, each read as its publisher ships it."""

from data_modules.base import AnomalyDataModule
from data_modules.folder import Folder
from data_modules.mtd import MTD
from data_modules.mvtec import MVTecAD
from data_modules.problems import DataError, WrongTreeError
from data_modules.records import Batch, Record
from data_modules.synthetic import SyntheticTextures

__all__ = [
    "MTD",
    "AnomalyDataModule",
    "Batch",
    "DataError",
    "Folder",
    "MVTecAD",
    "Record",
    "SyntheticTextures",
    "WrongTreeError",
]
