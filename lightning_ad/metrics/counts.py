"""Counts of scores in bins that adapt to the data, merge exactly and stay bounded.

Metrics that depend only on the ranking of scores need no scores, only how many normal and how many
defective pixels lie at each of them. A float32 read as an integer orders like the number it stands
for, so dropping its lowest `shift` bits gives bins of constant relative width. A table lists the
occupied bins only, and `shift` is the smallest that leaves at most `max_bins` of them: scores that
crowd into [0.5000, 0.5001] keep every bit, scores spread over twenty octaves about twelve.

Coarsening never undoes itself and everything counted is an integer. The final table is therefore a
function of the multiset of pixels alone: batches, their order and the processes they came from
leave no trace in it. Without a bound (`max_bins=None`) nothing is ever coarsened: the exact form.
"""

import warnings
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

KEY, NORMAL, DEFECTIVE, OVERLAP = range(4)  # columns of a table

# 2^17 bins, 4 MB a category, held AUROC and AUPRO within 1e-6 and AP and F1max within 3e-5 of the
# sorted values on the distributions of maps that were tried, saturated and twenty octaves wide
# included. Scores spread over a hundred octaves that differ in a narrow band only need `exact`.
MAX_BINS = 2**17
TRIED_SHIFT = 11  # 2^12 bins an octave
TOLERATED = 1e-4  # error of AUROC that goes without a word


def require_finite(values: Tensor, names: Sequence[str]) -> None:
    """Raise a ValueError with the names of the images whose `values` (B, ...) are not finite."""
    values = values.flatten(1)
    if not torch.isfinite(torch.stack(values.aminmax())).all():
        bad = (~values.isfinite().all(1)).nonzero().flatten().tolist()
        shown = ", ".join(names[index] for index in bad[:5])
        raise ValueError(
            f"NaN or infinite anomaly scores in {len(bad)} image(s): {shown}. A ranking of them "
            "means nothing; look for a diverged model or an overflow in half precision."
        )


def ordered_keys(scores: Tensor) -> Tensor:
    """Return int64 keys that order like the finite float32 `scores` of any shape."""
    scores = scores.float() + 0.0  # negative zero becomes zero
    bits = scores.view(torch.int32)
    keys = (bits >> 31).bitwise_and_(0x7FFFFFFF).bitwise_xor_(bits)
    # Probabilities and similarities crowd below 1 as distances crowd above 0: between 1/2 and 1 the
    # distance to 1, which is exact there, adds its own relative resolution.
    return keys.long().sub_((1 - scores).clamp_(0, 0.5).view(torch.int32))


def fitting_shift(sorted_keys: Tensor, shift: int, max_bins: int | None) -> int:
    """Return how many bits to drop for at most `max_bins` bins, and never fewer than `shift`."""
    if max_bins is None:
        return shift
    differing = sorted_keys[1:] ^ sorted_keys[:-1]

    def fits(shift: int) -> bool:
        return int(torch.count_nonzero(differing >> shift)) < max_bins

    return shift if fits(shift) else bisect_left(range(64), True, lo=shift + 1, key=fits)


def _sort(scores: Tensor) -> Tensor:
    """Sort; on a CPU by NumPy, several times as fast as PyTorch, which sorts positions as well."""
    on_cpu = scores.device.type == "cpu"
    return torch.from_numpy(np.sort(scores.detach().numpy())) if on_cpu else scores.sort().values


def count(scores: Tensor, shift: int, max_bins: int | None) -> tuple[Tensor, int]:
    """Count `scores` (n,) as normal pixels; return a table (bins, 4) and its shift."""
    keys = ordered_keys(_sort(scores))
    shift = fitting_shift(keys, shift, max_bins)
    bins, counts = torch.unique_consecutive(keys >> shift, return_counts=True)
    table = counts.new_zeros(len(bins), 4)
    table[:, KEY] = bins << shift
    table[:, NORMAL] = counts
    return table, shift


def merge(table: Tensor, shift: int, max_bins: int | None) -> tuple[Tensor, int]:
    """Add up the rows (n, 4) that share a bin; return the table sorted by key, and its shift."""
    table = table[table[:, KEY].argsort()]
    shift = fitting_shift(table[:, KEY], shift, max_bins)
    bins, row = torch.unique_consecutive(table[:, KEY] >> shift, return_inverse=True)
    merged = table.new_zeros(len(bins), 4).index_add_(0, row, table)
    merged[:, KEY] = bins << shift
    return merged, shift


def unresolved(table: Tensor, shift: int) -> float:
    """Return by how much AUROC may be off because normal and defective scores share bins.

    0 for bins as narrow as scores over twenty octaves leave them, for which this was tried.
    """
    counted = table[table[:, KEY] != 0].double()  # a score of 0 is one value, however many have it
    pairs = table[:, NORMAL].sum().double() * table[:, DEFECTIVE].sum().double()
    if shift <= TRIED_SHIFT or pairs == 0:
        return 0.0
    return float((counted[:, NORMAL] * counted[:, DEFECTIVE]).sum() / pairs / 2)


class RankingMetric(Metric):
    """State of every metric that depends on the ranking of scores only: one table of counts.

    The table waits in pieces until there are twice `max_bins` rows, so that many small updates
    cost little; `max_bins=None` keeps every distinct score, and grows with the data.
    """

    full_state_update = False
    higher_is_better = True
    shift: Tensor
    tables: list[Tensor]
    counted: Tensor
    """What `compute` was last computed of, of all processes, for `points`."""

    def __init__(self, max_bins: int | None) -> None:
        super().__init__()
        self.max_bins = max_bins
        self.add_state("shift", torch.tensor(0), dist_reduce_fx="max")
        self.add_state("tables", [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all counts."""
        super().reset()
        # Never an empty list: a process without images must still gather a table of this shape.
        self.tables = [torch.zeros(0, 4, dtype=torch.long, device=self.device)]

    def add(self, scores: Tensor, defective: Tensor, overlap: Tensor) -> None:
        """Count scores (n,), of which those where the boolean `defective` (n,) holds are defects.

        `overlap` (number of defective pixels,) is the integer weight of each defective pixel.
        """
        table, shift = count(scores, int(self.shift), self.max_bins)
        # Counting all as normal and taking the few defective ones back is cheaper than two counts.
        rows = table.new_zeros(len(overlap), 4)
        rows[:, KEY] = ordered_keys(scores[defective])
        rows[:, NORMAL], rows[:, DEFECTIVE], rows[:, OVERLAP] = -1, 1, overlap
        self.shift.fill_(shift)
        self.tables += [table, rows]
        if self.max_bins is not None and sum(map(len, self.tables)) > 2 * self.max_bins:
            self.tables = [self.merged()]

    def final(self) -> Tensor:
        """Return the counts as `merged` does; warn if the bins are too few for such scores."""
        table = self.merged()
        error = unresolved(table, int(self.shift))
        if error > TOLERATED:
            warnings.warn(
                "normal and defective scores differ by less than the bins can tell apart that are "
                f"left for so many octaves (AUROC may be off by {error:.2g}): rank them exactly "
                "(exact=True; on the command line --evaluation.exact=true)",
                stacklevel=2,
            )
        return table

    def merged(self) -> Tensor:
        """Return the counts so far as one table (bins, 4), sorted by key."""
        table, shift = merge(dim_zero_cat(self.tables), int(self.shift), self.max_bins)
        self.shift.fill_(shift)
        return table
