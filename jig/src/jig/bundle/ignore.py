"""Which paths stay out of a bundle: a list of patterns in the manner of .gitignore, the last that fits wins. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

IGNORE_FILE = ".jigignore"

DEFAULT_PATTERNS = (
    # version control, environments, caches and build output: large, and made again where the bundle runs
    ".git",
    ".hg",
    ".svn",
    ".venv",
    "venv",
    "__pycache__",
    "*.py[co]",
    ".mypy_cache",
    ".ruff_cache",
    ".pytest_cache",
    ".hypothesis",
    ".ipynb_checkpoints",
    ".tox",
    ".nox",
    ".uv",
    "node_modules",
    "*.egg-info",
    "/dist",
    # what only its owner should have: values for the deployment go into deploy.environment_variables, or secrets
    ".env",
    ".env.*",
    "!.env.example",
    ".netrc",
    "id_rsa*",
    "id_ed25519*",
    # jig's own
    "/jig.toml",
    ".jig.json",
    "/.jig",
    IGNORE_FILE,
    ".DS_Store",
)

# What tells people about the project changes nothing that runs; a project that lists what it needs has the last word.
DOCUMENT_PATTERNS = ("/README", "/README.*", "/*.md")


@dataclass(frozen=True)
class Pattern:
    """One line: `*.log`, `data/`, `/build`, `docs/*.pdf`, `docs/**/*.pdf`, or `!keep.log`.

    Args:
        glob: what the name, or with a slash inside the whole path, must look like.
        is_whole_path: the glob is about the path from the project's folder, not about the name alone.
        is_directory: only folders fit.
        keeps: what fits is taken after all.
    """

    glob: str
    is_whole_path: bool
    is_directory: bool
    keeps: bool

    def fits(self, path: str, *, is_directory: bool) -> bool:
        """True where this pattern speaks about the path, relative and with forward slashes."""
        if self.is_directory and not is_directory:
            return False
        if self.is_whole_path:
            return parts_fit(path.split("/"), self.glob.split("/"))
        return fnmatchcase(path.rpartition("/")[2], self.glob)


def parts_fit(parts: Sequence[str], globs: Sequence[str]) -> bool:
    """True where each part of a path looks like its glob; `**` stands for any number of parts."""
    if not globs:
        return not parts
    if globs[0] == "**":
        return any(parts_fit(parts[at:], globs[1:]) for at in range(len(parts) + 1))
    return bool(parts) and fnmatchcase(parts[0], globs[0]) and parts_fit(parts[1:], globs[1:])


def parse_patterns(lines: Iterable[str]) -> list[Pattern]:
    """The patterns of some lines; empty ones and those that start with # say nothing."""
    stripped = (line.strip() for line in lines)
    return [parse_pattern(line) for line in stripped if line and not line.startswith("#")]


def parse_pattern(line: str) -> Pattern:
    """One pattern."""
    keeps = line.startswith("!")
    glob = line.removeprefix("!")
    is_directory = glob.endswith("/")
    glob = glob.rstrip("/")
    return Pattern(glob.lstrip("/"), "/" in glob, is_directory, keeps)


def is_ignored(path: str, patterns: Iterable[Pattern], *, is_directory: bool) -> bool:
    """True where the last pattern that fits leaves the path out; a path that none fits is taken."""
    ignored = False
    for pattern in patterns:
        if pattern.fits(path, is_directory=is_directory):
            ignored = not pattern.keeps
    return ignored
