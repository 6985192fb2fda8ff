"""Settings of methods: one number per category by name, and what numbers make sense.

Published settings such as DDAD's guidance weight differ from category to category, while a batch
may mix them: the numbers are looked up by each image's category index.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

UNKNOWN_CATEGORY = -1
"""Index of the category of an image that shows none of those trained on, or does not say which.

What is kept for each category has one more row, of all together: as Python's index, -1 is it.
"""


def per_category(
    value: float | Mapping[str, float], categories: list[str], name: str
) -> list[float]:
    """The setting ``name`` of each category, and last their mean, for `UNKNOWN_CATEGORY`.

    Raises:
        ValueError: if ``value`` has no entry for a category, or is negative.
    """
    negative = [v for v in (value.values() if isinstance(value, Mapping) else [value]) if v < 0]
    if negative:
        raise ValueError(f"model.{name} must not be negative, got {negative[0]}")
    if not isinstance(value, Mapping):
        return [value] * (len(categories) + 1)
    missing = [category for category in categories if category not in value]
    if missing:
        raise ValueError(f"model.{name} has no entry for {missing}: it names {sorted(value)}")
    values = [value[category] for category in categories]
    return [*values, sum(values) / len(values)]


def members(category: Tensor, count: int) -> list[Tensor]:
    """Which images (N,) are of each of ``count`` categories, given theirs (N,); last, all are."""
    return [*(category == i for i in range(count)), torch.ones_like(category, dtype=torch.bool)]


def require_at_least(least: float, **settings: float) -> None:
    """Raise a ValueError that names the setting of a model that is less."""
    for name, value in settings.items():
        if value < least:
            raise ValueError(f"model.{name} must be at least {least}, not {value}")
