"""The methods: one file and one import line each; the import makes the name known in YAML."""

from lightning_ad.methods.d3ad import D3AD
from lightning_ad.methods.ddad import DDAD
from lightning_ad.methods.deco import DeCoDiff
from lightning_ad.methods.texture import TextureDDM

__all__ = ["D3AD", "DDAD", "DeCoDiff", "TextureDDM"]
