"""Walks through folders of images that other people keep.

What systems and programs leave there is nobody's image; a link that leads to where the walk comes
from is not followed; a tree may be as deep as its file system allows.
"""

import os
from collections.abc import Iterator
from pathlib import Path

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"})
OWN_PICTURES = frozenset({"masks", "panels", "thumbnails"})
"""Folders of a run that hold pictures of images."""
UNREAD_SUFFIXES = frozenset(
    [
        ".avif",
        ".cr2",
        ".dcm",
        ".dng",
        ".exr",
        ".gif",
        ".heic",
        ".heif",
        ".jfif",
        ".jp2",
        ".jxl",
        ".nef",
        ".npy",
        ".pgm",
        ".pnm",
        ".ppm",
        ".raw",
        ".tga",
    ]
)
"""Of images that nothing here reads, so that they can be said to be left out."""

SYSTEM_FOLDERS = frozenset(
    {
        "#recycle", "#snapshot", "$recycle.bin", "@eadir", "@recently-snapshot", "@recycle",
        "@sharebin", "@tmp", "__macosx", "__pycache__", "found.000", "lost+found", "recycler",
        "system volume information", "~snapshot",
    }
)  # fmt: skip
"""What file servers, archives and systems leave beside images: thumbnails, trash, snapshots."""


def is_image(name: str) -> bool:
    """Whether a file name is an image's, in upper or lower case."""
    return _suffix(name) in IMAGE_SUFFIXES and not name.startswith(".")


def images_in(folder: Path) -> list[Path]:
    """Images directly in a folder, sorted; none when the folder does not exist."""
    return [
        folder / name for name, is_folder in _entries(folder) if not is_folder and is_image(name)
    ]


def folders_in(folder: Path) -> list[Path]:
    """Folders directly in a folder, sorted, without hidden ones and those of systems."""
    return [folder / name for name, is_folder in _entries(folder) if is_folder and _is_own(name)]


def folders_below(folder: Path) -> Iterator[Path]:
    """A folder and all those below it, each before those inside it, sorted.

    A link is followed unless it leads to a folder that is walked through anyway, or that holds it.
    """
    walked = [Path(os.path.realpath(folder))]
    waiting = [folder]
    while waiting:
        current = waiting.pop()
        yield current
        inside = []
        for inner in folders_in(current):
            if _is_written_by_us(inner):
                continue
            if inner.is_symlink():
                real = Path(os.path.realpath(inner))
                if walked[0].is_relative_to(real) or any(_reaches(top, real) for top in walked):
                    continue
                walked.append(real)
            inside.append(inner)
        waiting += reversed(inside)


def images_below(folder: Path) -> Iterator[Path]:
    """Images in a folder and in all folders below it, sorted within each."""
    for inner in folders_below(folder):
        yield from images_in(inner)


def unread_images_in(folder: Path) -> list[Path]:
    """Images directly in a folder that are of no format that is read."""
    return [
        folder / name
        for name, is_folder in _entries(folder)
        if not is_folder and _suffix(name) in UNREAD_SUFFIXES and not name.startswith(".")
    ]


def inner_folder(folder: Path, name: str) -> Path:
    """The folder `name` in another, in upper or lower case; where it would be if there is none."""
    exact = folder / name
    if exact.is_dir():
        return exact
    alike = (inner for inner in folders_in(folder) if inner.name.casefold() == name.casefold())
    return next(alike, exact)


def _entries(folder: Path) -> list[tuple[str, bool]]:
    """Sorted names in a folder, each with whether it is a folder; none if it does not exist."""
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return sorted((entry.name, entry.is_dir()) for entry in entries)


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].casefold()  # noqa: PTH122  for speed


def _is_own(name: str) -> bool:
    return not name.startswith(".") and name.casefold() not in SYSTEM_FOLDERS


def _is_written_by_us(folder: Path) -> bool:
    """Whether a folder holds the pictures of a run, which show images but are none."""
    if folder.name.startswith("predictions"):
        return any(folder.glob("predictions*.csv"))
    return folder.name in OWN_PICTURES and (folder.parent / "metrics.json").exists()


def _reaches(top: Path, folder: Path) -> bool:
    """Whether a walk from `top` comes to a folder without following links."""
    return folder.is_relative_to(top) and all(map(_is_own, folder.relative_to(top).parts))
