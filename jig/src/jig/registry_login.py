"""A registry that others run knows no key of the platform: the login that docker or podman keep for it, and its use."""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Generator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from jig.contexts import is_loopback
from jig.http import httpx

HELPER_SECONDS_MAX = 20.0
FILE_BYTES_MAX = 1024 * 1024
CHALLENGE_PATTERN = re.compile(r'(\w+)="([^"]*)"')
IDENTITY_TOKEN = "<token>"  # noqa: S105  as helpers name what is no password


@dataclass(frozen=True)
class Login:
    """A user of a registry.

    Args:
        user: the name.
        password: or a token that stands for one.
    """

    user: str
    password: str = field(repr=False)

    @property
    def header(self) -> str:
        """As HTTP says it."""
        return "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()


def find_login(host: str, name: str, environment: Mapping[str, str]) -> Login | None:
    """The login for a repository, from the first file of podman or docker that has one; None where none has.

    Args:
        host: of the registry, with its port.
        name: of the repository.
        environment: that says where the files are.
    """
    for path in login_files(environment):
        document = read_file(path)
        login = login_in(document, host, name) or ask_helper(document, host, environment)
        if login is not None:
            return login
    return None


def login_files(environment: Mapping[str, str]) -> Iterator[Path]:
    """Where logins are kept, in the order in which podman looks."""
    home = Path(environment.get("HOME") or "/")
    if given := environment.get("REGISTRY_AUTH_FILE"):
        yield Path(given)
    if runtime := environment.get("XDG_RUNTIME_DIR"):
        yield Path(runtime, "containers/auth.json")
    yield Path(environment.get("XDG_CONFIG_HOME") or home / ".config", "containers/auth.json")
    yield Path(environment.get("DOCKER_CONFIG") or home / ".docker", "config.json")


def read_file(path: Path) -> dict[str, Any]:
    """A file of logins; one that is not there, or holds something else, has none."""
    try:
        if path.stat().st_size > FILE_BYTES_MAX:
            return {}
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def login_in(document: Mapping[str, Any], host: str, name: str) -> Login | None:
    """What a file itself says of a repository: the entry for the longest part of its name wins."""
    entries = document.get("auths")
    parts = [host, *name.split("/")]
    keys = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    for key in [*keys, f"https://{host}", f"http://{host}"]:
        entry = entries.get(key) if isinstance(entries, dict) else None
        encoded = entry.get("auth") if isinstance(entry, dict) else None
        try:
            user, _, password = base64.b64decode(encoded or "").decode().partition(":")
        except (ValueError, TypeError):
            continue
        if user and password:
            return Login(user, password)
    return None


def ask_helper(document: Mapping[str, Any], host: str, environment: Mapping[str, str]) -> Login | None:
    """What the program says that keeps the logins of a file; the host goes over standard input."""
    helpers = document.get("credHelpers")
    helper = (helpers.get(host) if isinstance(helpers, dict) else None) or document.get("credsStore")
    if not isinstance(helper, str) or not re.fullmatch(r"[\w.-]+", helper):
        return None
    try:
        finished = subprocess.run(
            [f"docker-credential-{helper}", "get"],
            env=dict(environment),
            input=host,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=HELPER_SECONDS_MAX,
            check=True,
        )
        answer = json.loads(finished.stdout)
        user, password = answer["Username"], answer["Secret"]
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError):
        return None
    return Login(str(user), str(password)) if user and password and user != IDENTITY_TOKEN else None


class RegistryAuth(httpx.Auth):
    """Logs in where a registry asks for it: with the login itself, or with the token that it gets for it.

    Args:
        url: of the registry: nothing is shown to others.
        name: of the repository, which a token is for.
        login: None: without one, a registry may let anybody in.
    """

    requires_response_body = True

    def __init__(self, url: str, name: str, login: Login | None) -> None:
        self._url, self._name, self._login = urlsplit(url), name, login
        self._header: str | None = None

    def auth_flow(self, request: httpx.Request) -> Generator[httpx.Request, httpx.Response, None]:
        """The request, and again after a login."""
        if urlsplit(str(request.url))[:2] != self._url[:2]:
            yield request
            return
        if self._header:
            request.headers["Authorization"] = self._header
        response = yield request
        if response.status_code != 401 or not is_whole(request):
            return
        self._header = yield from self._log_in(response.headers.get("www-authenticate", ""))
        if self._header:
            request.headers["Authorization"] = self._header
            yield request

    def _log_in(self, challenge: str) -> Generator[httpx.Request, httpx.Response, str | None]:
        basic = self._login.header if self._login else None
        kind, _, rest = challenge.partition(" ")
        if kind.lower() != "bearer":
            return basic
        facts = dict(CHALLENGE_PATTERN.findall(rest))
        realm = urlsplit(facts.get("realm", ""))
        is_safe = realm.scheme == "https" or (realm.scheme == "http" == self._url.scheme) or is_loopback(realm.hostname)
        if realm.scheme not in ("http", "https") or not is_safe:
            return None
        params = {"scope": f"repository:{self._name}:pull,push"}
        if "service" in facts:
            params["service"] = facts["service"]
        answer = yield httpx.Request(
            "GET", realm.geturl(), params=params, headers={"Authorization": basic} if basic else {}
        )
        return f"Bearer {token}" if (token := token_in(answer)) else None


def is_whole(request: httpx.Request) -> bool:
    """True where a request can be sent a second time: its body is here as a whole."""
    try:
        request.content  # noqa: B018  it raises
    except httpx.RequestNotRead:
        return False
    return True


def token_in(answer: httpx.Response) -> str | None:
    """The token that a registry gives."""
    try:
        document = answer.json()
    except ValueError:
        return None
    token = (document.get("token") or document.get("access_token")) if isinstance(document, dict) else None
    return token if answer.is_success and isinstance(token, str) else None
