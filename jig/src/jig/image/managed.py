"""Files in a project that are jig's while their first line says so; without that line they are the user's."""

from __future__ import annotations

from pathlib import Path

from jig.errors import ImageError

MARKER = "# MANAGED BY JIG: made anew by each build. Take this line out, and the file is yours."
# Another jig's marker goes on differently, and means the same.
MARKER_START = "# MANAGED BY JIG"


def is_users(path: Path) -> bool:
    """True where there is a file, and its first line does not say that it is jig's.

    Raises:
        ImageError: it cannot be read.
    """
    try:
        return not path.read_text(encoding="utf-8", errors="replace").startswith(MARKER_START)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise ImageError(f"Cannot read {path}: {error.strerror}.") from error


def write(path: Path, text: str) -> bool:
    """Make a managed file what it should be; False where it is the user's, who keeps it.

    Raises:
        ImageError: it cannot be written, or is a link.
    """
    if is_users(path):
        return False
    refuse_link(path)
    whole = f"{MARKER}\n{text}"
    try:
        if not path.exists() or path.read_text(encoding="utf-8") != whole:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(whole, encoding="utf-8")
    except OSError as error:
        raise ImageError(f"Cannot write {path}: {error.strerror}.") from error
    return True


def refuse_link(path: Path) -> None:
    """Refuse to write where a link is: what it leads to may be another's.

    Raises:
        ImageError: the path is a link, which it names.
    """
    if path.is_symlink():
        hint = f"Remove the link, or put what it leads to in its place: {path} is jig's to write."
        raise ImageError(f"{path} is a link, and jig writes through none.", hint=hint)
