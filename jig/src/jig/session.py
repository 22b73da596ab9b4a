"""One run of jig: its options, its output, and the config and platform that it may need, each made on first use."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from jig.answers import LOGIN_HINT
from jig.client import Client
from jig.config.file import find_config, find_name
from jig.config.model import Config
from jig.contexts import Target, contexts_path, read_contexts, resolve
from jig.errors import ConfigError, UnauthorizedError, UsageError
from jig.options import Globals, ProjectGlobals
from jig.output import Output


@dataclass(frozen=True)
class Session:
    """What a command works with.

    Args:
        options: the global options of the command line.
    """

    options: Globals

    @cached_property
    def output(self) -> Output:
        """Where answers and notes go."""
        return Output(json=self.options.json)

    @property
    def chosen_config(self) -> Path | None:
        """The file of `--config`."""
        return self.options.config if isinstance(self.options, ProjectGlobals) else None

    @cached_property
    def config(self) -> Config:
        """The config of this folder, or of `--config`; its warnings are said once.

        Raises:
            ConfigError: there is none, or it is wrong.
        """
        config = find_config(self.chosen_config)
        for warning in config.warnings:
            self.output.warn(warning)
        return config

    @cached_property
    def target(self) -> Target:
        """The platform and key in force."""
        return resolve(read_contexts(contexts_path(os.environ)), os.environ)

    @cached_property
    def client(self) -> Client:
        """The platform.

        Raises:
            UnauthorizedError: there is no key for it.
        """
        if not self.target.api_key:
            raise UnauthorizedError(f"There is no API key for {self.target.base_url}.", hint=self._key_hint())
        return Client(self.target)

    def _key_hint(self) -> str:
        if self.target.source == "default":
            return f"Start a platform on this machine with `machineshop serve`: it logs you in.\n{LOGIN_HINT}"
        login = f"Log in with `jig auth login {self.target.base_url}`, or set TOGETHER_API_KEY."
        return f"{login} The key of a context goes to its own platform alone."

    def deployment_name(self, name: str | None) -> str:
        """The name from the command line, else the config's, of which nothing else need be right.

        Raises:
            UsageError: neither says one.
            ConfigError: the config cannot be read, or its name cannot be one.
        """
        if name:
            return name
        try:
            return find_name(self.chosen_config)
        except ConfigError as error:
            if self.chosen_config:
                raise
            if not error.is_absent:
                error.hint = error.hint or "Mend it, or give the deployment's name on the command line."
                raise
            raise UsageError("Which deployment? There is no jig config here.", hint="Give its name.") from error

    def confirm(self, question: str, *, yes: bool) -> None:
        """Go on only if a person says so, or said `--yes`.

        Raises:
            UsageError: nobody can be asked, or the answer was no.
        """
        if yes:
            return
        if self.output.json or not sys.stdin.isatty():
            raise UsageError(f"{question} Nobody can be asked here.", hint="Say --yes.")
        print(f"{question} [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise UsageError("Left as it is.")
