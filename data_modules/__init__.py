"""Data sets for visual anomaly detection, each read as its publisher ships it."""

from data_modules.base import AnomalyDataModule
from data_modules.btad import BTAD
from data_modules.dtd_synthetic import DTDSynthetic
from data_modules.folder import Folder
from data_modules.mpdd import MPDD
from data_modules.mtd import MTD
from data_modules.mvtec import MVTecAD
from data_modules.mvtec_loco import MVTecLOCO
from data_modules.problems import DataError, WrongTreeError
from data_modules.real_iad import RealIAD
from data_modules.records import Batch, Record
from data_modules.synthetic import SyntheticTextures
from data_modules.visa import VisA

__all__ = [
    "BTAD",
    "MPDD",
    "MTD",
    "AnomalyDataModule",
    "Batch",
    "DTDSynthetic",
    "DataError",
    "Folder",
    "MVTecAD",
    "MVTecLOCO",
    "RealIAD",
    "Record",
    "SyntheticTextures",
    "VisA",
    "WrongTreeError",
]
