"""Which photographs of MTD show the same tile, and a split that keeps a tile on one side.

A tile was photographed up to six times in a row, at rising exposures: `exp<1-6>_num_<number>.jpg`.
The published list splits photographs, so nearly all of its good test images show a tile that was
trained on, and hardly a defective one does: numbers under it measure recognition of tiles.

The rule was checked against the pixels, by the likeness of `data_modules.doctor.likeness`: of the
photographs that it sets apart, one of them good, no two are over 0.48; the nearest photograph of
the same tile has a median of 0.88. Where it errs, it takes two tiles for one.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Mapping
from itertools import pairwise

from data_modules.catalogue import names_hash

TEST_SHARE = 191 / 952  # good images that the published list leaves to the test
NAME = re.compile(r"exp(\d+)_num_(\d+)")
NEAR = 210  # largest step in number between photographs of a tile ...
RISING = 550  # ... and where the exposure rises from one to the next
AGAIN = {10181: 8676, 13526: 5874, 65001: 53011}  # first numbers of tiles photographed again later


def tiles_of(stems: Collection[str]) -> dict[str, str]:
    """The tile of each photograph, named like its first one; of a foreign name, the name itself."""
    tiles = {stem: stem for stem in stems}
    named = [(found, stem) for stem in stems if (found := NAME.match(stem))]
    photographs = sorted((int(found[2]), int(found[1]), stem) for found, stem in named)
    first: dict[int, str] = {}
    for previous, photograph in pairwise([(-RISING - 1, 0, ""), *photographs]):
        number, exposure, stem = photograph
        rises = exposure > previous[1]
        if number - previous[0] > (RISING if rises else NEAR):
            tile = first.setdefault(AGAIN.get(number, number), stem)
        tiles[stem] = tile
    return tiles


def tiles_to_test(good: Mapping[str, str], defective: Iterable[str]) -> frozenset[str]:
    """Tiles whose good photographs test, as many as in the published split where that is possible.

    Tiles with a defective photograph, which can only test, are taken, then others in the order of
    a hash of their names. `good` holds the tile of each good photograph, `defective` those of
    defective ones.
    """
    photographs = Counter(good.values())
    start = frozenset(defective)
    chosen = {sum(photographs[tile] for tile in start): start}  # by number of photographs
    for tile in sorted(set(photographs) - start, key=lambda tile: names_hash([tile])):
        for taken, tiles in list(chosen.items()):
            chosen.setdefault(taken + photographs[tile], tiles | {tile})
    wanted = len(good) * TEST_SHARE
    return chosen[min(chosen, key=lambda taken: abs(taken - wanted))]
