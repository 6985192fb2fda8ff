"""MPDD: six kinds of painted metal parts (Jezek, Jonak, Burget, Dvorak, Skotak, ICUMT 2021)."""

from typing import ClassVar

from data_modules.mvtec import MVTecAD
from data_modules.records import Counts


class MPDD(MVTecAD):
    """MPDD; `root` holds bracket_black/, ..., each in MVTec AD's tree."""

    published: ClassVar[dict[str, Counts]] = {
        "bracket_black": Counts(289, 32, 47),
        "bracket_brown": Counts(185, 26, 51),
        "bracket_white": Counts(110, 30, 30),
        "connector": Counts(128, 30, 14),
        "metal_plate": Counts(54, 26, 71),
        "tubes": Counts(122, 32, 69),
    }
