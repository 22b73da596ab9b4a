"""`jig dockerfile`, `jig build`, `jig push`: the steps of an image, each alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

from cyclopts import Parameter

from jig.errors import UsageError
from jig.image.prepare import DOCKERIGNORE, dockerfile_path
from jig.image.work import Wishes, build, built_here, prepare_image, push
from jig.live import Steps
from jig.options import PROJECT_DEFAULTS, ProjectGlobals
from jig.rights import check_may_change
from jig.session import Session
from jig.units import elapsed

PUSHED_TAG = "Push the image that was built with this tag, under it alone. [default: the one that was built last]"
PUSHED_BUILDER = "buildx, docker, podman or buildah. [default: the one that built it]"
TAG = "Tag of the image. [default: one made of its contents, and `latest`]"
BUILDER = "buildx, docker, podman or buildah. [default: the first of them that works here]"
DOCKER_ARGS = "More words for the builder's command line, as one text. [default: $DOCKER_BUILD_EXTRA_ARGS]"
WARMUP = "Run the warm-up inputs once, and bake the compile cache into the image."

Tag = Annotated[str | None, Parameter(help=TAG, show_default=False)]
BuilderName = Annotated[str | None, Parameter(name="--builder", help=BUILDER, show_default=False)]
DockerArgs = Annotated[str | None, Parameter(help=DOCKER_ARGS, show_default=False, allow_leading_hyphen=True)]
Warmup = Annotated[bool, Parameter(negative=(), show_default=False, help=WARMUP)]


def dockerfile(*, options: ProjectGlobals = PROJECT_DEFAULTS) -> None:
    """Write the Dockerfile and the .dockerignore of this project."""
    session = Session(options)
    path = dockerfile_path(session.config)
    prepared = prepare_image(session, Steps(session.output))
    document = {"dockerfile": str(path), "managed": not prepared.is_users, "tag": prepared.tag}
    if prepared.is_users:
        mend = "To have jig make it, remove or rename it."
        session.output.result(document, f"{path} is your own, and is left as it is. {mend}")
    else:
        session.output.result(document, f"Wrote {path} and {DOCKERIGNORE}.")


def build_command(
    *,
    tag: Tag = None,
    builder: BuilderName = None,
    docker_args: DockerArgs = None,
    warmup: Warmup = False,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Build this project's image on this machine."""
    session = Session(options)
    refuse_fixed_image(session)
    steps = Steps(session.output)
    built = build(session, steps, Wishes(tag, builder, docker_args, warmup))
    name = f"{session.config.name}:{tag or 'latest'}"
    document = {"image": name, "tag": built.tag, "builder": built.builder, "warmed": built.is_warmed}
    text = f"{name} is built after {elapsed(steps.total_seconds)}. Push it with `jig push`."
    session.output.result(document | {"seconds": steps.rounded()}, text)


def push_command(
    *,
    tag: Annotated[str | None, Parameter(help=PUSHED_TAG, show_default=False)] = None,
    builder: Annotated[str | None, Parameter(help=PUSHED_BUILDER, show_default=False)] = None,
    options: ProjectGlobals = PROJECT_DEFAULTS,
) -> None:
    """Push the image that was built last to the platform's registry."""
    session = Session(options)
    refuse_fixed_image(session)
    wishes = Wishes(tag, builder)
    wishes.check()
    check_may_change(session.client)
    steps = Steps(session.output)
    built = built_here(session, wishes)
    pushed = push(session, steps, replace(wishes, tag=tag or built.chosen_tag), built)
    session.client.request("POST", "/v1/deployments/prewarm", json={"images": [pushed.image]})
    document = {"image": pushed.image, "digest": pushed.digest, "tags": list(pushed.tags)}
    session.output.result(document | {"seconds": steps.rounded()}, pushed.image)


def refuse_fixed_image(session: Session) -> None:
    """There is nothing to build where the config names an image.

    Raises:
        UsageError: it does.
    """
    config = session.config
    if config.deploy.image:
        message = f"{config.path.name} says deploy.image = {config.deploy.image!r}, so there is nothing to build."
        raise UsageError(message, hint="Deploy it with `jig deploy`, or take the key out.")
