"""`jig dev`: the project on a throw-away platform of its own, deployed again with every change."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from jig.client import Client
from jig.commands.deploy import SCALED, UNCHANGED, apply, publish
from jig.config.file import find_config
from jig.config.model import NO_GPU, Config, EnvironmentVariable
from jig.contexts import Target
from jig.deployment import revision_of
from jig.dev.files import Snapshot, changes, check_syntax, look
from jig.dev.throwaway import Throwaway, throwaway_platform
from jig.dev.volumes import mounted_here, read_folders
from jig.errors import DevError, JigError, UsageError
from jig.live import Steps
from jig.options import PROJECT_DEFAULTS, ProjectGlobals
from jig.output import Output
from jig.session import Session
from jig.tracking import Tracking, Verdict, goes_on_serving, track
from jig.trial.process import chosen_variables, missing_secrets
from jig.units import count, elapsed
from jig.volumes.publish import Publisher

LOOK_SECONDS = 0.2
LOOK_SHARE = 0.1  # looking at many files takes no more of a core than this
RECONNECT_SECONDS = 0.5
NAMES_SHOWN = 3
BEGINS_ANEW = "The platform of `jig dev` goes, and what has arrived with it: the same command sends all files again."

PORT = "Where the platform listens; 0 for any free port."
VOLUME = "NAME=FOLDER: make this volume there of that folder, for the config to mount; may be said again."


def dev(
    *,
    port: Annotated[int, Parameter(help=PORT)] = 0,
    volume: Annotated[list[str] | None, Parameter(negative=(), help=VOLUME)] = None,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Run this project on a throw-away platform, and deploy it again when a file changes, until Ctrl-C."""
    if not 0 <= port <= 65535:
        raise UsageError(f"--port must be a number from 0 to 65535, not {port}.")
    folders = read_folders(volume or [])
    session = Session(options)
    config, output = session.config, session.output  # without a config there is nothing to start a platform for
    output.note(f"Starting a platform for {config.name}, until Ctrl-C")
    with throwaway_platform(port) as platform:
        target = platform.wait()
        name = platform.enter_context(target)
        output.note(f"  platform      {target.base_url}, the context {name!r} until this ends")
        if os.environ.get("TOGETHER_BASE_URL"):
            output.warn("TOGETHER_BASE_URL is set, and wins over the context: unset it where you submit jobs.")
        try:
            with Client(target) as client:
                for volume_name, folder in folders.items():
                    Publisher(client, output, volume_name, BEGINS_ANEW).create(folder)
                DevLoop(platform, client, output, session.chosen_config).run()
        finally:
            output.note("Stopping: jobs in hand get 10 s, then all of it is removed.")


@dataclass(frozen=True)
class Rollout:
    """A deploy that is under way."""

    config: Config
    reference: str
    tracking: Tracking
    began_at: float


class DevLoop:
    """Deploys, watches the rollout and the files, and deploys again.

    Args:
        platform: the throw-away one.
        client: for it.
        output: where all is said.
        chosen: the file of `--config`.
    """

    def __init__(self, platform: Throwaway, client: Client, output: Output, chosen: Path | None) -> None:
        self._platform = platform
        self._client = client
        self._output = output
        self._chosen = chosen
        self._seen: Snapshot = {}
        self._rollout: Rollout | None = None
        self._good: Rollout | None = None
        self._trouble = ""
        self._followed: set[str] = set()
        self._warned: set[str] = set()

    def run(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Go on until Ctrl-C.

        Raises:
            DevError: the platform has ended.
        """
        while True:
            began = clock()
            self.run_once(clock())
            time.sleep(max(LOOK_SECONDS, (clock() - began) * (1 / LOOK_SHARE - 1) if self._rollout is None else 0.0))

    def run_once(self, now: float) -> None:
        """Look at everything once, and do what follows from it."""
        self._platform.check()
        try:
            self._deploy_changes(now)
            self._watch_rollout(now)
        except JigError as error:
            # The platform may be what fails, and then says so. A project that cannot be deployed waits for its mend.
            self._platform.check()
            self._say_trouble(error)

    def _deploy_changes(self, now: float) -> None:
        config = find_config(self._chosen)
        snapshot = look(config)
        changed = changes(self._seen, snapshot)
        if not changed:
            return
        is_first, self._seen = not self._seen, snapshot
        if not is_first:
            shown = ", ".join(changed[:NAMES_SHOWN])
            more = f" and {count(len(changed) - NAMES_SHOWN, 'more', 'more')}" if len(changed) > NAMES_SHOWN else ""
            self._output.note(f"Changed: {shown}{more}")
        self._trouble = ""
        self._rollout = None
        check_syntax(config, snapshot)
        self._rollout = self._deploy(self._for_here(config), now)

    def _for_here(self, config: Config) -> Config:
        """The config as it can be had on this machine: one replica, the GPUs and volumes of here, secrets from here."""
        for name in missing_secrets(config, os.environ):
            self._warn_once(f"{name} is a secret of the platform; set a variable of that name to give it a value here.")
        values = chosen_variables(config, os.environ)
        deploy = replace(
            config.deploy,
            environment_variables=tuple(EnvironmentVariable(name, value=value) for name, value in values.items()),
            min_replicas=1,
            max_replicas=1,
            autoscaling={},
            image=None,
            volume_mounts=mounted_here(self._client, config.deploy.volume_mounts),
        )
        if config.deploy.image:
            self._warn_once("deploy.image is left aside: what runs here is the project's own code.")
        if deploy.gpu_count and not self._client.get("/v1/runtime").get("gpus"):
            self._warn_once(f"This machine has no {deploy.gpu_type}: the worker runs without a GPU.")
            deploy = replace(deploy, gpu_type=NO_GPU, gpu_count=0)
        return replace(config, deploy=deploy)

    def _deploy(self, config: Config, now: float) -> Rollout | None:
        steps = Steps(self._output)
        reference = publish(self._client, config, self._output, steps, "dev")
        deployment, change = apply(self._client, config, reference, has_command=True)
        self._follow_logs(config.name)
        if change in (UNCHANGED, SCALED):
            self._output.note("  nothing that runs has changed")
            return None
        return Rollout(config, reference, Tracking(revision_of(deployment), now), now)

    def _watch_rollout(self, now: float) -> None:
        if self._rollout is None:
            return
        rollout, config = self._rollout, self._rollout.config
        deployment = self._client.get(f"/v1/deployments/{config.name}")
        tracking = track(rollout.tracking, deployment, now)
        if tracking.verdict is Verdict.WAITING:
            self._rollout = replace(rollout, tracking=tracking)
            return
        self._rollout = None
        if tracking.verdict is Verdict.READY:
            self._good = rollout
            self._say_ready(config, deployment, now - rollout.began_at)
        else:
            self._withdraw(config.name)
            raise DevError(tracking.reason, hint=goes_on_serving(deployment, tracking.revision))

    def _withdraw(self, name: str) -> None:
        """Start the replica that fails no more: its next try would fail as well, and fill the screen."""
        if self._good is None:
            self._client.patch(f"/v1/deployments/{name}", {"min_replicas": 0})
        else:
            apply(self._client, self._good.config, self._good.reference, has_command=True)

    def _say_ready(self, config: Config, deployment: dict[str, Any], seconds: float) -> None:
        if self._output.json:
            base_url = self._client.target.base_url
            self._output.document({"event": "ready", "base_url": base_url, "deployment": deployment})
            return
        self._output.note(f"{config.name} is ready after {elapsed(seconds)}. In another terminal:", "green")
        self._output.note(f"  jig submit {config.name} --payload '{{...}}' --watch")

    def _say_trouble(self, error: JigError) -> None:
        if error.message == self._trouble:
            return
        self._trouble = error.message
        if self._output.json:
            self._output.document({"event": "failed", "error": error.document()})
            return
        self._output.error(error)
        self._output.note("Waiting for the next change of a file.")

    def _warn_once(self, text: str) -> None:
        if text not in self._warned:
            self._warned.add(text)
            self._output.warn(text)

    def _follow_logs(self, name: str) -> None:
        """Have the replicas' lines printed as they come, from now on."""
        if name not in self._followed:
            self._followed.add(name)
            threading.Thread(target=follow, args=(self._client.target, self._output, name), daemon=True).start()


def follow(target: Target, output: Output, name: str) -> None:
    """Print the log lines of a deployment for as long as the process lives; a connection that breaks is made anew."""
    shown = 0
    while True:
        try:
            with Client(target) as client:
                for at, piece in enumerate(client.lines(f"/v1/deployments/{name}/logs", {"follow": "true"})):
                    if at >= shown and piece.strip():
                        shown = at + 1
                        say_lines(output, json.loads(piece))
        except (JigError, ValueError):
            time.sleep(RECONNECT_SECONDS)


def say_lines(output: Output, document: dict[str, Any]) -> None:
    """One piece of a log."""
    if output.json:
        output.document({"event": "logs", **document})
        return
    for line in document.get("lines") or []:
        output.line(line)
