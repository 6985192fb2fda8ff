"""The server: photographs in, what predictions.json would say out, and a page to drop them on."""

import asyncio
import io
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, File, HTTPException, Query, Request, UploadFile
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse
from pydantic import BaseModel

from data_modules.reading.formats import header_of
from data_modules.reading.images import Pixels, as_rgb, decoded, in_rgb_order
from lightning_ad.deployment.server.answers import Predictions, Reason, image_of
from lightning_ad.deployment.server.batches import Answer, Batches, BusyError
from lightning_ad.deployment.server.limits import Limits
from lightning_ad.detector.detector import AnomalyDetector
from lightning_ad.reports.page import shell
from lightning_ad.reports.predictions_file import FORMAT

MOST_PIXELS = 2**27
"""Of a photograph: 134 million, which take 400 MB when decoded."""

POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data: blob:; connect-src 'self'; base-uri 'none'; frame-ancestors 'none'"
)
"""The page loads nothing from anywhere."""

REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": Reason, "description": description}
    for status, description in {
        400: "A file that is no image, or a category that the model does not know",
        401: "A token is needed",
        413: "Too large, in bytes or in pixels",
        429: "Too many requests of one caller",
        503: "Too many photographs wait",
    }.items()
}


@dataclass(frozen=True)
class Options:
    """How much the server takes.

    Args:
        batch_size: photographs scored together, where so many wait.
        queue: photographs that may wait.
        largest: bytes of a request.
        token: that requests must bear; None for none.
        rate: requests a second of one caller; None for any.
    """

    batch_size: int = 8
    queue: int = 256
    largest: int = 64_000_000
    token: str | None = None
    rate: float | None = None


class Health(BaseModel):
    """That the server is up, and with what."""

    status: str
    method: str
    categories: list[str]


def application(detector: AnomalyDetector, options: Options) -> FastAPI:
    """The server's application; the model is ready while it runs, and ends with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.batches = Batches(detector, options.batch_size, options.queue)
        yield
        await run_in_threadpool(app.state.batches.close)

    app = FastAPI(title="lightning-ad", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.add_middleware(Limits, largest=options.largest, token=options.token, rate=options.rate)
    app.include_router(routes)
    app.state.detector = detector
    content = {
        "method": type(detector).__name__,
        "categories": detector.categories,
        "needsToken": options.token is not None,
    }
    app.state.page = "".join(shell("Drop photographs", ("dom.js", "drop.js"), content))
    return app


routes = APIRouter()


@routes.get("/", response_class=HTMLResponse)
async def drop(request: Request) -> HTMLResponse:
    """A page that shows heat, regions and verdict of what is dropped on it."""
    return HTMLResponse(request.app.state.page, headers={"content-security-policy": POLICY})


@routes.get("/health")
async def health(request: Request) -> Health:
    """Whether the server is up."""
    detector = request.app.state.detector
    return Health(status="ok", method=type(detector).__name__, categories=detector.categories)


@routes.post("/predict", responses=REFUSALS, response_model_exclude_unset=True)
async def predict(
    request: Request,
    files: Annotated[list[UploadFile], File(description="photographs, one or several")],
    category: Annotated[str | None, Query(description="theirs, if it is known")] = None,
    picture: Annotated[bool, Query(description="also draw heat and regions")] = False,
) -> Predictions:
    """Score photographs."""
    detector = request.app.state.detector
    images = await _images(request.app.state.batches, detector, files, category, picture)
    about = {"format": FORMAT, "method": type(detector).__name__, "fingerprint": None}
    return Predictions.model_validate(
        {**about, "root": None, **detector.decision.source(), "images": images}
    )


async def _images(
    batches: Batches,
    detector: AnomalyDetector,
    files: list[UploadFile],
    category: str | None,
    drawn: bool,
) -> list[dict[str, Any]]:
    white_level = detector.known_framing.white_level
    names = [file.filename or f"file {number}" for number, file in enumerate(files, 1)]
    try:
        detector.number_of(category)  # refuses what is none
        contents = [await file.read() for file in files]
        photographs = [
            await run_in_threadpool(pixels_in, content, name, white_level)
            for content, name in zip(contents, names, strict=True)
        ]
        asked = batches.submit(photographs, category)
    except BusyError as error:
        raise HTTPException(503, f"busy: {error}", {"retry-after": "1"}) from error
    except ValueError as error:
        raise HTTPException(400, str(error)) from error
    answers: list[Answer] = await asyncio.gather(*map(asyncio.wrap_future, asked))
    return [
        await run_in_threadpool(image_of, name, category, pixels, answer, drawn)
        for name, pixels, answer in zip(names, photographs, answers, strict=True)
    ]


def pixels_in(content: bytes, name: str, white_level: int) -> Pixels:
    """The pixels (H, W, 3) of a file, as the data modules read it.

    Raises:
        HTTPException: if there are too many of them.
        ValueError: that names the file, if it is no image.
    """
    try:
        header = header_of(io.BytesIO(content))
        too_many = header.height * header.width > MOST_PIXELS
        values = None if too_many else decoded(content)
    except Exception as error:
        raise ValueError(f"{name} is not a complete and plain image: {error}") from error
    if values is None:
        raise HTTPException(413, f"{name} has more than {MOST_PIXELS:,} pixels: cut it into tiles")
    return as_rgb(in_rgb_order(values), Path(name), white_level)
