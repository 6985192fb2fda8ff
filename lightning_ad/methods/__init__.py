"""The methods: a file, an import and a line in `HOMES` each; the CLI then knows the short name.

Each is imported when it is first named, as some bring large libraries with them.
"""

from typing import TYPE_CHECKING

from lightning_ad.speed.lazy import imported_when_named

if TYPE_CHECKING:
    from lightning_ad.methods.d3ad import D3AD as D3AD
    from lightning_ad.methods.ddad import DDAD as DDAD
    from lightning_ad.methods.deco import DeCoDiff as DeCoDiff
    from lightning_ad.methods.draem import DRAEM as DRAEM
    from lightning_ad.methods.feature_diffusion import FeatureDiffusion as FeatureDiffusion
    from lightning_ad.methods.invad import InvAD as InvAD
    from lightning_ad.methods.padim import PaDiM as PaDiM
    from lightning_ad.methods.patchcore import PatchCore as PatchCore
    from lightning_ad.methods.simplenet import SimpleNet as SimpleNet
    from lightning_ad.methods.texture import TextureDDM as TextureDDM

HOMES = {
    "D3AD": "d3ad",
    "DDAD": "ddad",
    "DRAEM": "draem",
    "DeCoDiff": "deco",
    "FeatureDiffusion": "feature_diffusion",
    "InvAD": "invad",
    "PaDiM": "padim",
    "PatchCore": "patchcore",
    "SimpleNet": "simplenet",
    "TextureDDM": "texture",
}
"""The file of each method."""

__all__ = list(HOMES)

__getattr__ = imported_when_named(__name__, HOMES)
