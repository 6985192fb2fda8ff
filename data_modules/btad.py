"""BTAD: three products of beanTech (Mishra, Verk, Fornasier, Piciarelli, Foresti, ISIE 2021).

Normal images are called `ok`, defective ones `ko`, with the same stems in both. 01 and 03 come as
.bmp and 02 as .png, the masks of 01 and 02 as .png and those of 03 as .bmp.
"""

from typing import ClassVar

from data_modules.mvtec import MVTecAD
from data_modules.records import Counts


class BTAD(MVTecAD):
    """BTAD; `root` is BTech_Dataset_transformed/ with 01/, 02/ and 03/ in it."""

    tree = "01/train/ok, 01/test/ok, 01/test/ko, 01/ground_truth/ko, 02/..., 03/..."
    published: ClassVar[dict[str, Counts]] = {
        "01": Counts(400, 21, 49),
        "02": Counts(399, 30, 200),
        "03": Counts(1000, 400, 41),
    }
