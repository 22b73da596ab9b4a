"""`jig deploy`: the project becomes an artifact, the artifact a deployment, and the deployment gets ready."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from cyclopts import Parameter

from jig.bundle.pack import Bundle, bundle_warnings, pack
from jig.bundle.requirements import Requirements, lock
from jig.client import Client
from jig.code import check_code
from jig.commands.image import BuilderName, DockerArgs, Tag, Warmup
from jig.config.model import Config
from jig.deployment import Artifact, check_gpus, create_body, revision_of, update_body, wants_image
from jig.errors import DeployError, NotFoundError, PlatformError, UsageError
from jig.image.prepare import dockerfile_path, has_own_dockerfile
from jig.image.work import Wishes, build_and_push
from jig.live import Steps, transfer_bar
from jig.options import PROJECT_DEFAULTS, Detach, ProjectGlobals, ReadyTimeout
from jig.output import Output
from jig.registry import Pushed, find_repository, push, reaching
from jig.rights import check_may_change
from jig.rollout import wait_until_ready
from jig.secrets import adopted, expiry_warnings, late_warnings, with_secrets
from jig.session import Session
from jig.state import State
from jig.tracking import NO_REPLICA, NONE_MAY_RUN, READY_TIMEOUT_SECONDS, Tracking
from jig.units import count, elapsed, size
from jig.volumes.mounts import find_mounts, pin_hint
from jig.waiting import to_let_one_run

UNCHANGED, SCALED = "unchanged", "scaling updated"
SCALING_KEYS = ("min_replicas", "max_replicas", "autoscaling")  # which make no new revision
ROLLBACK = "Go back to the last revision that worked, if this one does not get ready."


def deploy(
    *,
    image: Annotated[str | None, Parameter(help="Run this image instead of one of the project.")] = None,
    tag: Tag = None,
    builder: BuilderName = None,
    docker_args: DockerArgs = None,
    warmup: Warmup = False,
    build_only: Annotated[bool, Parameter(negative=(), show_default=False, help="Push, and deploy nothing.")] = False,
    detach: Detach = False,
    rollback_on_failure: Annotated[bool, Parameter(negative=(), show_default=False, help=ROLLBACK)] = False,
    timeout: ReadyTimeout = READY_TIMEOUT_SECONDS,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Deploy this project and wait until it is ready."""
    session = Session(options)
    config, client, output = session.config, session.client, session.output
    if rollback_on_failure:
        config = replace(config, deploy=replace(config.deploy, rollback_on_failure=True))
    output.note(f"Deploying {config.name} to {client.target.base_url}")
    steps = Steps(output)
    wishes = Wishes(tag, builder, docker_args, warmup)
    wishes.check()
    check_may_change(client)
    if config.deploy.volume_mounts and not build_only:
        check_volumes(session, steps)
    artifact = make_artifact(session, steps, image, wishes, build_only=build_only)
    if build_only:
        document = {"image": artifact.reference, "seconds": steps.rounded()}
        output.result(document, f"{artifact.reference} is pushed, and not deployed.")
        return
    state = State(config.directory, config.name)
    deployment, change = apply(client, config, artifact.reference, has_command=artifact.has_command, state=state)
    steps.done("deployment", change)
    late = late_warnings(client, deployment) if change in (UNCHANGED, SCALED) else []
    for warning in (*expiry_warnings(deployment, datetime.now(UTC)), *late):
        output.warn(warning)
    if detach:
        output.result(outcome(deployment, artifact.reference, steps), f"{config.name}: {deployment['status']}")
        return
    tracked, deployment = wait_until_ready(session, deployment, timeout)
    steps.done("ready", tracked.reason)
    output.result(outcome(deployment, artifact.reference, steps), next_steps(config, steps, tracked))


def check_volumes(session: Session, steps: Steps) -> None:
    """Say which version of each volume will be mounted, before time goes into an image.

    Raises:
        VolumeError: one cannot be mounted.
    """
    mounts = find_mounts(session.client, session.config)
    steps.done("volumes", ", ".join(each.text() for each in mounts))
    if hint := pin_hint(mounts):
        session.output.note(hint)


def make_artifact(session: Session, steps: Steps, image: str | None, wishes: Wishes, *, build_only: bool) -> Artifact:
    """What will run: the image that was named, a bundle, or an image of the project, as the platform's runtime takes.

    Raises:
        UsageError: options about building an image, where none is built.
        DeployError: the platform runs nothing that the options ask for, or has no GPU; or the code cannot start.
    """
    config, client = session.config, session.client
    if reference := image or config.deploy.image:
        if build_only or wishes != Wishes():
            raise UsageError(
                "An image is named, so there is nothing to build.", hint="Leave --image or the others out."
            )
        client.request("POST", "/v1/deployments/prewarm", json={"images": [reference]})
        return Artifact(reference, has_command=False)
    check_code(config)
    runtime = ask_runtime(client)
    check_gpus(config, runtime)
    is_asked_for = build_only and wishes != Wishes(tag=wishes.tag)
    if is_asked_for or wants_image(runtime, is_image_project=is_image_project(config, wishes)):
        pushed = build_and_push(session, steps, wishes)
        client.request("POST", "/v1/deployments/prewarm", json={"images": [pushed.image]})
        return Artifact(pushed.image, has_command=not has_own_dockerfile(config))
    if wishes != Wishes(tag=wishes.tag):
        kind = runtime.get("runtime", "unknown")
        message = f"This platform's runtime ({kind}) runs bundles, so no image is built."
        raise DeployError(message, hint="Leave --builder, --docker-args and --warmup out, or use `jig build`.")
    return Artifact(publish(client, config, session.output, steps, wishes.tag or "latest"), has_command=True)


def is_image_project(config: Config, wishes: Wishes) -> bool:
    """True where the project has a Dockerfile, whoever keeps it, or something is asked for that only an image has."""
    image = config.image
    is_asked_for = wishes != Wishes(tag=wishes.tag)
    return bool(image.system_packages or image.run or is_asked_for or dockerfile_path(config).exists())


def ask_runtime(client: Client) -> dict[str, Any]:
    """What the platform's runtime is and takes; empty where the platform has no such route."""
    try:
        runtime: dict[str, Any] = client.get("/v1/runtime")
    except NotFoundError:
        return {}
    return runtime


def publish(client: Client, config: Config, output: Output, steps: Steps, tag: str) -> str:
    """Lock, pack and push the project as a bundle; return the reference of what was pushed."""
    for warning in bundle_warnings(config):
        output.warn(warning)
    requirements = lock(config.directory, config.image, State(config.directory, config.name))
    steps.done("requirements", described(requirements))
    bundle = pack(config, requirements.text)
    with bundle.source_file:
        steps.done("bundle", f"{count(bundle.file_count, 'file')}, {size(bundle.source.size_bytes)}")
        pushed = push_bundle(client, output, config, bundle, tag)
    steps.done("push", f"{size(pushed.sent_bytes)} sent" if pushed.sent_bytes else "nothing new to send")
    return pushed.image


def push_bundle(client: Client, output: Output, config: Config, bundle: Bundle, tag: str) -> Pushed:
    """Push under a progress bar."""
    repository = find_repository(client, config.name)
    with reaching(client, repository) as registry:
        return push(registry, repository, bundle, tag, partial(transfer_bar, output, "push"))


def apply(
    client: Client, config: Config, reference: str, *, has_command: bool, state: State | None = None
) -> tuple[dict[str, Any], str]:
    """Make the deployment what the config says; return it, and in a word or two what that changed.

    Args:
        client: the platform.
        config: the project's config.
        reference: what should run.
        has_command: whether that carries its own command.
        state: where the project's secrets are remembered; without it there are only those of the config.
    """
    path = f"/v1/deployments/{config.name}"
    try:
        before = client.get(path)
    except NotFoundError:
        before = None
    if state is not None:
        config = with_kept_secrets(config, state, before)
    if before is None:
        return create(client, config, reference, has_command=has_command), "created"
    after = client.patch(path, update_body(config, reference, has_command=has_command))
    return after, change_between(before, after)


def change_between(before: dict[str, Any], after: dict[str, Any]) -> str:
    """What differs: what runs, or only between how many replicas, or neither."""
    if revision_of(before) != revision_of(after):
        return "updated"
    is_scaled = any(before.get(key) != after.get(key) for key in SCALING_KEYS)
    return SCALED if is_scaled else UNCHANGED


def with_kept_secrets(config: Config, state: State, before: dict[str, Any] | None) -> Config:
    """The config with the project's secrets; a folder that remembers none yet takes over those of the deployment."""
    kept = state.secrets()
    if kept is None:
        kept = adopted(config.name, before)
        # A folder that cannot be written is still deployed: it takes them over the next time too.
        with contextlib.suppress(OSError):
            state.keep_secrets(kept)
    return with_secrets(config, kept)


def create(client: Client, config: Config, reference: str, *, has_command: bool) -> dict[str, Any]:
    """A new deployment.

    Raises:
        DeployError: the name belongs to somebody else.
    """
    try:
        answer: dict[str, Any] = client.post("/v1/deployments", create_body(config, reference, has_command=has_command))
    except PlatformError as error:
        if "already exists" in error.message:
            hint = f"Choose another name in {config.path.name}."
            raise DeployError(f"The name {config.name} is taken.", hint=hint) from error
        raise
    return answer


def outcome(deployment: dict[str, Any], reference: str, steps: Steps) -> dict[str, object]:
    """What `--json` prints."""
    return {"deployment": deployment, "image": reference, "seconds": steps.rounded()}


def described(requirements: Requirements) -> str:
    """How many packages there are, and who asked for them."""
    if not requirements.count:
        return "none but sprocket"
    return f"{count(requirements.count, 'package')} from {requirements.source}"


def next_steps(config: Config, steps: Steps, tracked: Tracking) -> str:
    """What a person does now."""
    if tracked.reason == NO_REPLICA:
        return f"{config.name} is deployed, and sleeps. A job wakes it:\n  jig submit --payload '{{...}}' --watch"
    if tracked.reason == NONE_MAY_RUN:
        return f"{config.name} is deployed. {to_let_one_run(config.name)}"
    lines = [f"{config.name} is ready after {elapsed(steps.total_seconds)}. Give it a job:"]
    return "\n".join([*lines, "  jig submit --payload '{...}' --watch"])
