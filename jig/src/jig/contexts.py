"""Which platform, and with which key: the contexts file and the environment.

The file is JSON, readable by its owner alone: `{"current": NAME, "contexts": {NAME: {"base_url", "api_key", "ca"?}}}`.
The platform writes the context `local` when it starts; `jig auth login` writes the others.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import ip_address
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any
from urllib.parse import urlsplit

from jig.errors import ContextError

DEFAULT_BASE_URL = "http://127.0.0.1:8799"
FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
DEFAULT_PORTS = {"http": 80, "https": 443}
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")  # one platform of this machine has all three


@dataclass(frozen=True)
class Context:
    """A platform and a key for it. The key never shows in a repr.

    Args:
        base_url: without a path.
        api_key: a key of it.
        ca: the authority that signed its certificate, in PEM form, where that is one of its own.
    """

    base_url: str
    api_key: str = field(repr=False)
    ca: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Target:
    """Where this run of jig talks to.

    Args:
        base_url: without a path, e.g. `http://127.0.0.1:8799`.
        api_key: None when there is none for this platform.
        source: where the base URL came from, in words: `context local`, `TOGETHER_BASE_URL`, `default`.
        ca: the authority that signed its certificate, in PEM form, where that is one of its own.
        key_source: where the key came from: `context local`, `TOGETHER_API_KEY`; None where there is none.
    """

    base_url: str
    api_key: str | None = field(repr=False)
    source: str
    ca: str | None = field(default=None, repr=False)
    key_source: str | None = None


@dataclass(frozen=True)
class Contexts:
    """The contents of the contexts file."""

    current: str | None = None
    contexts: Mapping[str, Context] = field(default_factory=dict)

    def with_context(self, name: str, context: Context) -> Contexts:
        """The same with this context added or replaced, and current."""
        return Contexts(current=name, contexts={**self.contexts, name: context})

    def without(self, name: str) -> Contexts:
        """The same without this context; the first of the others gets current if it was."""
        rest = {key: value for key, value in self.contexts.items() if key != name}
        return Contexts(current=next(iter(rest), None) if self.current == name else self.current, contexts=rest)

    def using(self, name: str) -> Contexts:
        """The same with another current context.

        Raises:
            ContextError: there is none of this name.
        """
        if name not in self.contexts:
            raise ContextError(f"There is no context {name!r}. Known: {', '.join(self.contexts) or 'none'}.")
        return replace(self, current=name)


def contexts_path(environment: Mapping[str, str]) -> Path:
    """$JIG_CONTEXTS, else $XDG_CONFIG_HOME/jig/contexts.json, else ~/.config/jig/contexts.json."""
    if chosen := environment.get("JIG_CONTEXTS"):
        return Path(chosen)
    home = Path(environment.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    return home / "jig" / "contexts.json"


def read_contexts(path: Path) -> Contexts:
    """The contexts of a file; none where there is no file. One that others could read is closed to them.

    Raises:
        ContextError: the file is not readable, or not what jig writes.
    """
    close_to_others(path)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        contexts = {
            name: Context(normal_base_url(entry["base_url"]), text_of(entry, "api_key"), text_of(entry, "ca", None))
            for name, entry in document["contexts"].items()
        }
        return Contexts(current=text_of(document, "current", None), contexts=contexts)
    except FileNotFoundError:
        return Contexts()
    except OSError as error:
        raise ContextError(f"Cannot read {path}: {error.strerror}.") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ContextError(f"{path} is not a contexts file.", hint="Remove it and run `jig auth login`.") from error


def close_to_others(path: Path) -> None:
    """Keys are in the file, and a copy or an editor may have opened it; whose file it is not cannot."""
    with suppress(OSError):
        if path.stat().st_mode & 0o077:
            path.chmod(FILE_MODE)


def text_of(document: Mapping[str, Any], name: str, *absent: None) -> Any:
    """A text of the file, or what stands for one that is absent.

    Raises:
        KeyError, TypeError: there is none, or it is something else.
    """
    value = document.get(name, *absent) if absent else document[name]
    if value is not None and not isinstance(value, str):
        raise TypeError(name)
    if value is None and not absent:
        raise KeyError(name)
    return value


def write_contexts(path: Path, contexts: Contexts) -> None:
    """Replace the file in one step, readable by its owner alone from its first byte.

    Raises:
        ContextError: the file cannot be written.
    """
    document = {
        "current": contexts.current,
        "contexts": {
            name: {
                "base_url": context.base_url,
                "api_key": context.api_key,
                **({"ca": context.ca} if context.ca else {}),
            }
            for name, context in contexts.contexts.items()
        },
    }
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=DIRECTORY_MODE)
        with NamedTemporaryFile("w", dir=path.parent, prefix=f".{path.name}-", delete=False, encoding="utf-8") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            json.dump(document, file, indent=2)
        Path(file.name).replace(path)
    except OSError as error:
        raise ContextError(f"Cannot write {path}: {error.strerror}.") from error


def resolve(contexts: Contexts, environment: Mapping[str, str]) -> Target:
    """The platform and key to use: each from the environment where set, else from the current context.

    A context's key is not carried to another platform: with TOGETHER_BASE_URL set and TOGETHER_API_KEY not, only
    a context of that platform lends its key.
    """
    current = contexts.contexts.get(contexts.current or "")
    url, key = environment.get("TOGETHER_BASE_URL"), (environment.get("TOGETHER_API_KEY") or "").strip() or None
    key_source = "TOGETHER_API_KEY" if key else None
    if url:
        base_url = normal_base_url(url)
        if key is None and (lender := lender_for(contexts, base_url)):
            key, key_source = contexts.contexts[lender].api_key, f"context {lender}"
        return Target(base_url, key, "TOGETHER_BASE_URL", known_authority(contexts, base_url), key_source)
    if current is None:
        return Target(DEFAULT_BASE_URL, key, "default", key_source=key_source)
    source = f"context {contexts.current}"
    return Target(current.base_url, key or current.api_key, source, current.ca, key_source or source)


def lender_for(contexts: Contexts, base_url: str) -> str | None:
    """The name of the context whose key is for this platform: of several this very URL's, then the current one."""
    names = [name for name, known in contexts.contexts.items() if is_same_platform(known.base_url, base_url)]
    names.sort(key=lambda name: (contexts.contexts[name].base_url != base_url, name != contexts.current))
    return next(iter(names), None)


def known_authority(contexts: Contexts, base_url: str) -> str | None:
    """The authority of the platform at this URL, as a context of it says; one on this machine has several names."""
    known = [context for context in contexts.contexts.values() if context.ca]
    netloc, port = urlsplit(base_url).netloc, urlsplit(base_url).port
    exact = [context.ca for context in known if urlsplit(context.base_url).netloc == netloc]
    here = [
        context.ca
        for context in known
        if is_same_host(context.base_url, base_url) and urlsplit(context.base_url).port == port
    ]
    return next(iter([*exact, *here]), None)


def is_same_platform(one: str, other: str) -> bool:
    """True for the same scheme, host and port; what listens at another port of a machine may be somebody else's."""
    return origin(one) == origin(other)


def origin(base_url: str) -> tuple[str, str, int | None]:
    """The scheme, host and port of a URL; the names of this machine for itself are one host."""
    parts = urlsplit(base_url)
    host = parts.hostname or ""
    return parts.scheme, "localhost" if host in LOOPBACK_NAMES else host, parts.port or DEFAULT_PORTS.get(parts.scheme)


def is_same_host(one: str, other: str) -> bool:
    """True for the same host and port, or where both are on this machine."""
    first, second = urlsplit(one), urlsplit(other)
    return first.netloc == second.netloc or (is_loopback(first.hostname) and is_loopback(second.hostname))


def is_loopback(host: str | None) -> bool:
    """True for a name or address of this machine itself."""
    if not host or host == "localhost":
        return bool(host)
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def normal_base_url(url: str) -> str:
    """A base URL without `/v1`, trailing slashes and spaces; https where the scheme is missing, http on loopback.

    Raises:
        ContextError: it is no URL of a server.
    """
    bare = url.strip()
    if "://" not in bare:
        host = urlsplit(f"//{bare}").hostname
        bare = f"{'http' if is_loopback(host) else 'https'}://{bare}"
    try:
        parts = urlsplit(bare)
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = None
    if not usable:
        raise ContextError(f"{url!r} is not a base URL. Expected something like {DEFAULT_BASE_URL}.")
    return bare.rstrip("/").removesuffix("/v1").rstrip("/")


def context_name(base_url: str) -> str:
    """The name under which a platform is remembered: `local` on this machine, else its host."""
    host = urlsplit(base_url).hostname or "platform"
    return "local" if is_loopback(host) else host
