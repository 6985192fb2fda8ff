"""Methods with the evaluation habits of their authors' code, opt-in by class path.

`experiments/published/` reaches them; nothing else does. They make our numbers comparable with
published tables whose protocols the default evaluation does not share.
"""

from lightning_ad.published.ddad import DDADAsPublished

__all__ = ["DDADAsPublished"]
