"""The hub of pretrained weights: asked once, within seconds, before its client is let loose.

Left alone, the client repeats a question to a hub that is out of reach for most of a minute and
prints each attempt. Weights that it has in its cache need no hub at all.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.utils import get_session

SECONDS = 5


@contextmanager
def hub_or_cache() -> Iterator[None]:
    """In here the hub's client only looks into its cache, unless the hub answers.

    Raises:
        FileNotFoundError: if neither has what is asked for.
    """
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or not _answers()
    try:
        yield
    except OSError as error:
        if constants.HF_HUB_OFFLINE:
            raise FileNotFoundError(f"no answer from {constants.ENDPOINT}") from error
        raise
    finally:
        constants.HF_HUB_OFFLINE = before


def _answers() -> bool:
    try:
        get_session().head(constants.ENDPOINT, timeout=SECONDS)
    except Exception:  # of httpx or of requests, by the client's version
        return False
    return True
