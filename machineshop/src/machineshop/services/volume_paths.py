"""Which paths can be the files of a version of a volume, together. Pure."""

from collections.abc import Sequence

# A replica's folder is made of them one by one, and a seal looks at each.
MAX_FILES = 200_000
# How many parts a path may have, and in how many folders a version's files may lie: each is made on every machine.
MAX_DEPTH = 32
MAX_FOLDERS = 200_000
# What a file system takes as one name.
MAX_COMPONENT_BYTES = 255


class PathCheck:
    """Looks at the paths of a version, some at a time, in any order; `trouble` says what is wrong with them."""

    def __init__(self) -> None:
        self._trouble = ""
        self._paths: set[str] = set()
        self._folders: set[str] = set()

    @property
    def trouble(self) -> str:
        """Why no folder could be made of what was added so far; empty: one could."""
        return self._trouble or ("" if self._paths else "It has no file.")

    def add(self, paths: Sequence[str]) -> None:
        """Look at some more; what comes after the first trouble changes nothing."""
        for path in paths:
            self._trouble = self._trouble or _trouble_alone(path) or self._trouble_together(path)
        if len(self._paths) > MAX_FILES:
            self._trouble = self._trouble or f"It has more than {MAX_FILES} files: pack some of them together."
        if len(self._folders) > MAX_FOLDERS:
            self._trouble = self._trouble or f"Its files lie in more than {MAX_FOLDERS} folders: put them into fewer."

    def _trouble_together(self, path: str) -> str:
        if path in self._folders:
            return _both(path, next(other for other in self._paths if other.startswith(f"{path}/")))
        self._paths.add(path)
        at = path.rfind("/")
        while at > 0 and (folder := path[:at]) not in self._folders:  # those above a known one are known
            if folder in self._paths:
                return _both(folder, path)
            if trouble := _trouble_alone(folder):
                return trouble
            self._folders.add(folder)
            at = path.rfind("/", 0, at)
        return ""


def trouble_in(paths: Sequence[str]) -> str:
    """Why these paths are none that a folder could be made of; empty: they are."""
    check = PathCheck()
    check.add(paths)
    return check.trouble


def _trouble_alone(path: str) -> str:
    if path.count("/") >= MAX_DEPTH:
        return f"'{path}' has more than {MAX_DEPTH} parts between '/': put it into fewer folders."
    length = len(path) - path.rfind("/") - 1
    if 4 * length > MAX_COMPONENT_BYTES and len(path[-length:].encode()) > MAX_COMPONENT_BYTES:
        return f"A part of '{path}' has more than {MAX_COMPONENT_BYTES} bytes, which no file system takes."
    return ""


def _both(path: str, within: str) -> str:
    return f"'{path}' is a file and the folder of '{within}' at once."
