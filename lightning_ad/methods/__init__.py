"""The methods: one file and one import line each; the import makes the name known in YAML."""

from lightning_ad.methods.ddad import DDAD
from lightning_ad.methods.texture import TextureDDM

__all__ = ["DDAD", "TextureDDM"]
