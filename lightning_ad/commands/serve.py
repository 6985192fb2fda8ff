"""``lightning serve``: a final checkpoint behind an address, with a page to drop photographs on."""

import argparse
import os
import signal
import sys
from collections.abc import Sequence

from lightning_ad.commands.paths import path
from lightning_ad.deployment.formats import require_packages
from lightning_ad.deployment.scorer import load_detector
from lightning_ad.detector.region import BY_IMAGE
from lightning_ad.speed.allocation import keep_freed_memory

TOKEN = "LIGHTNING_AD_TOKEN"


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="lightning serve",
        description="POST /predict scores photographs and answers as predictions.json does, GET / "
        "is a page to drop them on, GET /health says that the server is up.",
    )
    parser.add_argument("--ckpt_path", required=True, type=path, metavar="FINAL.CKPT")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--device", default="cpu", help="cpu, or cuda for a GPU")
    parser.add_argument("--batch_size", type=_positive, default=8, help="most scored together")
    parser.add_argument("--queue", type=_positive, default=256, help="most that wait; then 503")
    parser.add_argument("--megabytes", type=_positive, default=64, help="most of a request")
    parser.add_argument("--rate", type=float, help="most requests a second of one caller")
    parser.add_argument(
        "--token",
        default=os.environ.get(TOKEN),
        help=f"that requests must bear; better given as {TOKEN}, as other users see arguments",
    )
    parser.add_argument("--trust", action="append", default=[], metavar="PACKAGE")
    options = parser.parse_args(arguments)
    if options.rate is not None and not options.rate > 0:
        parser.error(f"--rate must be above 0, not {options.rate:g}")
    return options


def main(arguments: Sequence[str]) -> None:
    """Serve until a signal; what is in flight is answered first."""
    options = _options(arguments)
    signal.signal(signal.SIGTERM, _end)
    keep_freed_memory()  # as predict does
    require_packages(("fastapi", "uvicorn", "python_multipart"), "serve")
    import uvicorn

    from lightning_ad.deployment.server.app import Options, application

    detector = load_detector(options.ckpt_path, options.trust).to(options.device)
    if BY_IMAGE in detector.calibration:
        raise ValueError(
            f"{options.ckpt_path} judges in a region of interest of each image, which photographs "
            "that are sent do not bring: serve a run with one region for all, or none"
        )
    limits = Options(
        1 if detector.takes_whole else options.batch_size,  # of photographs of any size, no batch
        options.queue,
        options.megabytes * 1_000_000,
        options.token,
        options.rate,
    )
    app = application(detector, limits)
    uvicorn.run(app, host=options.host, port=options.port, log_level="warning", server_header=False)


def _end(number: int, frame: object) -> None:
    """End as one that was asked to, and not as one that was killed.

    uvicorn answers what is in flight when SIGTERM comes, and then raises it once more for whoever
    handled it before.
    """
    sys.exit(0)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, not {number}")
    return number
