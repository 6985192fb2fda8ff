"""The parser of ``lightning fit | validate | test | predict``, with short help and errors."""

from typing import Any, NoReturn

from jsonargparse import DefaultHelpFormatter
from lightning.pytorch.cli import LightningArgumentParser

from lightning_ad.reports.reasons import in_a_line

DECIDING = ("test", "predict")
"""The subcommands that give verdicts."""


class Help(DefaultHelpFormatter):
    """Help that spares the reader thousands of torch's modules where any module would do."""

    def _get_help_string(self, action: Any) -> str:
        text, known, names = super()._get_help_string(action).partition(", known subclasses: ")
        if not names.startswith("torch.nn.Module,"):
            return text + known + names
        ours = [n for n in names.rstrip(")").split(", ") if n.startswith("lightning_ad.networks.")]
        return f"{text}{known}{', '.join(ours)})"


class Parser(LightningArgumentParser):
    """Lightning's parser, with short errors and short help, also of the classes in options."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{"formatter_class": Help, **kwargs})

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """End with what is wrong in a line."""
        super().error(in_a_line(message), ex)


def add_own_options(word: str, parser: LightningArgumentParser) -> None:
    """Add the options that only one or two commands have."""
    if word == "fit":
        parser.add_argument(
            "--time",
            type=str | None,
            default=None,
            help="how long the whole run may take, such as 90s, 20m or 1h30m; phases share it in "
            "the proportions of their epochs",
        )
    if word == "predict":
        parser.add_argument(
            "--watch",
            action="store_true",
            help="go on with the images that arrive in data.root, until Ctrl-C",
        )
    if word in DECIDING:
        _add_decision(parser)


def _add_decision(parser: LightningArgumentParser) -> None:
    """Options that move verdicts and regions of a calibrated checkpoint."""
    parser.add_argument(
        "--false_alarm_rate",
        type=float | None,
        default=None,
        help="another share of normal images to let through (short for --model.false_alarm_rate)",
    )
    parser.add_argument(
        "--threshold",
        type=float | None,
        default=None,
        help="a score above which images are flagged, instead of the calibrated one",
    )
    parser.add_argument(
        "--smallest_region",
        type=int,
        default=1,
        help="area in pixels of a photograph below which no region is reported",
    )


def print_nothing(file: Any = None) -> None:
    """Stands for the usage."""
