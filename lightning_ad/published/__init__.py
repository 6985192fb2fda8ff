"""Methods with the evaluation habits of their authors' code, opt-in by class path.

`experiments/published/` reaches them; nothing else does. They make our numbers comparable with
published tables whose protocols the default evaluation does not share. One thing stays ours: a
tenth of the training images, ``data.val_fraction``, is held out for validation and thresholds,
where the authors train on all of them.
"""

from lightning_ad.published.d3ad import D3ADAsPublished
from lightning_ad.published.ddad import DDADAsPublished
from lightning_ad.published.deco import DeCoDiffAsPublished
from lightning_ad.published.invad import InvADAsPublished
from lightning_ad.published.pro import PublishedPRO, pro_200_thresholds

__all__ = [
    "D3ADAsPublished",
    "DDADAsPublished",
    "DeCoDiffAsPublished",
    "InvADAsPublished",
    "PublishedPRO",
    "pro_200_thresholds",
]
