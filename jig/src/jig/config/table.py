"""A TOML table that is read key by key, and complains with the file and the key's full name."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

from jig.errors import ConfigError

Number = TypeVar("Number", int, float)

TYPE_NAMES = {bool: "true or false", int: "a whole number", float: "a number", str: "a string", list: "a list"}
SLIP_CUTOFF = 0.75  # two or three letters of ten


class Table:
    """One table of the config.

    Args:
        values: its keys and values.
        file: the file's name, for errors.
        prefix: the table's full name, `tool.jig.deploy` say; empty for the top of a file.

    `known` are the keys that have been asked for.
    """

    def __init__(self, values: Mapping[str, object], file: str, prefix: str = "") -> None:
        self._values = values
        self._file = file
        self._prefix = prefix
        self.known: set[str] = set()
        self._below: list[Table] = []

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str, default: str) -> str:
        """A string."""
        value: str = self._read(key, default, lambda value: isinstance(value, str), "a string")
        return value

    def text_or_none(self, key: str) -> str | None:
        """A string, or None where the key is absent."""
        value = self.text(key, "")
        return value if key in self._values else None

    def whole(self, key: str, default: int, *, at_least: int = 0, at_most: int | None = None) -> int:
        """A whole number within its bounds."""
        value: int = self._read(key, default, lambda value: type(value) is int, "a whole number")
        return self._bounded(key, value, at_least, at_most)

    def number(self, key: str, default: float, *, at_least: float = 0, at_most: float | None = None) -> float:
        """A number within its bounds, whole or not."""
        value: float = self._read(key, default, lambda value: type(value) in (int, float), "a number")
        return self._bounded(key, value, at_least, at_most)

    def flag(self, key: str, *, default: bool) -> bool:
        """True or false."""
        value: bool = self._read(key, default, lambda value: isinstance(value, bool), "true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty where the key is absent."""
        value = self._read(key, [], is_list_of(str), 'a list of strings, like ["a", "b"]')
        return tuple(value)

    def mapping(self, key: str) -> Mapping[str, object]:
        """A table, unread; empty where the key is absent."""
        value: Mapping[str, object] = self._read(key, {}, lambda value: isinstance(value, dict), "a table")
        return value

    def table(self, key: str) -> Table:
        """A table below this one; empty where the key is absent."""
        below = Table(self.mapping(key), self._file, self.full_name(key))
        self._below.append(below)
        return below

    def tables(self, key: str) -> tuple[Table, ...]:
        """A list of tables; empty where the key is absent."""
        values = self._read(key, [], is_list_of(dict), "a list of tables")
        return tuple(Table(value, self._file, f"{self.full_name(key)}[{at}]") for at, value in enumerate(values))

    def required(self, key: str) -> str:
        """A string that must be there.

        Raises:
            ConfigError: it is not.
        """
        if key not in self._values:
            for near in difflib.get_close_matches(key, self._values.keys() - self.known, n=1):
                raise ConfigError(
                    f"{self._file}: there is no key {self.full_name(near)}.", hint=f"Did you mean `{key}`?"
                )
            raise ConfigError(f"{self._file}: {self.full_name(key)} is missing.")
        return self.text(key, "")

    def done(self) -> None:
        """Say that every key has been asked for.

        Raises:
            ConfigError: there is one that nobody asked for.
        """
        for key in self._values:
            if key not in self.known:
                names = self._names()
                near = difflib.get_close_matches(key, sorted(names), n=1)
                hint = f"Did you mean `{names[near[0]]}`?" if near else f"Known keys: {', '.join(sorted(self.known))}."
                raise ConfigError(f"{self._file}: there is no key {self.full_name(key)}.", hint=hint)

    def no_slips(self, known: Collection[str]) -> None:
        """Refuse keys that are all but one of the known ones; others are let be, as the platform does.

        Raises:
            ConfigError: there is one.
        """
        for key in (each for each in self._values if each not in known):
            for near in difflib.get_close_matches(key, known, n=1, cutoff=SLIP_CUTOFF):
                raise ConfigError(
                    f"{self._file}: there is no key {self.full_name(key)}.", hint=f"Did you mean `{near}`?"
                )

    def _names(self) -> dict[str, str]:
        """The known keys as they are to be written here: this table's own, and those of the tables right below."""
        names = {key: below.full_name(key) for below in self._below for key in below.known}
        return names | {key: key for key in self.known}

    def wrong(self, key: str, expected: str, hint: str | None = None) -> ConfigError:
        """The error for a key whose value is not what was expected; a string is seen to be one."""
        value = self._values.get(key)
        found = quoted(value) if isinstance(value, str) else describe(value)
        return ConfigError(f"{self._file}: {self.full_name(key)} must be {expected}, not {found}.", hint=hint)

    def missing(self, key: str, because: str, hint: str | None = None) -> ConfigError:
        """The error for a key without which there is no going on."""
        return ConfigError(f"{self._file}: {self.full_name(key)} is missing, and {because}", hint=hint)

    def full_name(self, key: str) -> str:
        """The key with its table: `tool.jig.deploy.port`."""
        return f"{self._prefix}.{key}" if self._prefix else key

    def _read(self, key: str, default: object, fits: Callable[[object], bool], expected: str) -> Any:
        self.known.add(key)
        if key not in self._values:
            return default
        value = self._values[key]
        if not fits(value):
            raise ConfigError(f"{self._file}: {self.full_name(key)} must be {expected}, not {describe(value)}.")
        return value

    def _bounded(self, key: str, value: Number, at_least: float, at_most: float | None) -> Number:
        if value < at_least:
            raise self.wrong(key, f"at least {at_least}")
        if at_most is not None and value > at_most:
            raise self.wrong(key, f"at most {at_most}")
        return value


def is_list_of(kind: type) -> Callable[[object], bool]:
    """A check for lists whose items are all of a kind."""
    return lambda value: isinstance(value, list) and all(isinstance(item, kind) for item in value)


def describe(value: object) -> str:
    """A value with its type, as an error shows it: `"8000" (a string)`."""
    kind = "a table" if isinstance(value, dict) else TYPE_NAMES.get(type(value), type(value).__name__)
    return f"{quoted(value)} ({kind})"


def quoted(value: object) -> str:
    """A value as the file has it, or the beginning of one that is long."""
    shown = f'"{value}"' if isinstance(value, str) else repr(value)
    return shown if len(shown) <= 60 else shown[:57] + "..."
