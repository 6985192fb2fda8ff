"""A setting that is one number for all images, or one number per category by name.

Published settings such as DDAD's guidance weight differ from category to category, while a batch
may mix them: the numbers are looked up by each image's category index.
"""

from collections.abc import Mapping


def per_category(
    value: float | Mapping[str, float], categories: list[str], name: str
) -> list[float]:
    """The setting ``name`` of each category, and last the mean for images of no known category.

    Raises:
        ValueError: if ``value`` has no entry for a category.
    """
    if not isinstance(value, Mapping):
        return [value] * (len(categories) + 1)
    missing = [category for category in categories if category not in value]
    if missing:
        raise ValueError(f"model.{name} has no entry for {missing}: it names {sorted(value)}")
    values = [value[category] for category in categories]
    return [*values, sum(values) / len(values)]
