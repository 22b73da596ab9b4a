"""The two steps of an image's life, with what a person sees of them: it is built, and it is pushed."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from jig.errors import UnauthorizedError, UsageError
from jig.image.builders import BUILDERS, Builder, Buildx
from jig.image.find import find_builder
from jig.image.prepare import Prepared, prepare
from jig.image.progress import shown
from jig.image.ship import LATEST, Pushed, build_image, build_of, local_name, publish_image, push_image
from jig.image.warmup import cache_of, runner_for, warm_up
from jig.live import Steps
from jig.session import Session
from jig.state import BuiltImage, State
from jig.units import count

WARMED = "-warm"
# As the OCI distribution specification has it.
TAG_PATTERN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True)
class Wishes:
    """What the command line says about an image.

    Args:
        tag: to use instead of one made of the contents, and `latest`.
        builder: to use instead of the best that works here.
        docker_args: what else the builder is told.
        warmup: bake the compile cache in.
    """

    tag: str | None = None
    builder: str | None = None
    docker_args: str | None = None
    warmup: bool = False

    def tags(self, content_tag: str) -> tuple[str, ...]:
        """The tags to push under."""
        return (self.tag,) if self.tag else (content_tag, LATEST)

    def check(self) -> None:
        """Find out early what cannot be done.

        Raises:
            UsageError: the tag is none, a builder is unknown, or cannot do what is wanted.
        """
        if self.tag is not None and not TAG_PATTERN.fullmatch(self.tag):
            hint = "Use up to 128 letters, digits, `_`, `.` and `-`, and neither `.` nor `-` first."
            raise UsageError(f"--tag {self.tag[:200]}: that is no tag.", hint=hint)
        if self.builder and self.builder not in BUILDERS:
            raise UsageError(f"--builder {self.builder}: there is none. Known: {', '.join(BUILDERS)}.")
        if self.warmup:
            cache_of(os.environ)


def prepare_image(session: Session, steps: Steps) -> Prepared:
    """Write the Dockerfile and what it needs, where it is jig's; the platform is asked for sprocket if it is there."""
    try:
        client = session.client
    except UnauthorizedError:
        client = None
    prepared = prepare(session.config, client)
    for note in prepared.notes:
        session.output.warn(note)
    steps.done("dockerfile", described(session, prepared))
    return prepared


def described(session: Session, prepared: Prepared) -> str:
    """Whose Dockerfile it is, and what is pinned."""
    path = prepared.dockerfile.relative_to(session.config.directory).as_posix()
    if prepared.requirements is None:
        return f"{path}, your own"
    number = prepared.requirements.count
    return f"{path}, {count(number, 'package')} pinned" if number else f"{path}, no packages but sprocket's"


def build(session: Session, steps: Steps, wishes: Wishes) -> BuiltImage:
    """Build the project's image on this machine, and warm it up where that is wanted."""
    wishes.check()
    builder = find_builder(wishes.builder)
    prepared = prepare_image(session, steps)
    return build_prepared(session, steps, wishes, builder, prepared)


def build_prepared(session: Session, steps: Steps, wishes: Wishes, builder: Builder, prepared: Prepared) -> BuiltImage:
    """Build what is prepared."""
    builder = runner_for(builder) if wishes.warmup else builder
    name = local_name(session.config, wishes.tag)
    target = session.target.base_url
    with shown(session.output, f"{builder.name} builds {name}") as on_line:
        wanted = build_of(session.config, prepared, (name,), target, wishes.docker_args)
        build_image(builder, wanted, on_line)
    steps.done("build", f"{name}, by {builder.name}")
    tag = prepared.tag
    if wishes.warmup:
        with shown(session.output, f"{name} warms up") as on_line:
            warm_up(session.config, builder, name, on_line)
        tag += WARMED
        steps.done("warm-up", "its compile cache is in the image")
    built = BuiltImage(tag, builder.name, is_warmed=wishes.warmup, chosen_tag=wishes.tag)
    State(session.config.directory, session.config.name).keep_built_image(built)
    return built


def push(session: Session, steps: Steps, wishes: Wishes, built: BuiltImage) -> Pushed:
    """Push the image that was built."""
    builder = BUILDERS.get(wishes.builder or built.builder) or find_builder(None)
    name = local_name(session.config, wishes.tag)
    with shown(session.output, f"{builder.name} pushes {name}") as on_line:
        pushed = push_image(session, builder, name, wishes.tags(built.tag), on_line)
    steps.done("push", f"{', '.join(pushed.tags)}: {pushed.digest[:19]}")
    return pushed


def build_and_push(session: Session, steps: Steps, wishes: Wishes) -> Pushed:
    """From the project to an image in the registry; BuildKit does both at once."""
    wishes.check()
    builder = find_builder(wishes.builder)
    prepared = prepare_image(session, steps)
    if not isinstance(builder, Buildx) or wishes.warmup:
        return push(session, steps, wishes, build_prepared(session, steps, wishes, builder, prepared))
    wanted = build_of(session.config, prepared, (), session.target.base_url, wishes.docker_args)
    tags = wishes.tags(prepared.tag)
    with shown(session.output, f"buildx builds and pushes {session.config.name}:{tags[0]}") as on_line:
        pushed = publish_image(session, builder, wanted, tags, on_line)
    steps.done("push", f"{', '.join(pushed.tags)}: {pushed.digest[:19]}")
    return pushed


def built_here(session: Session, wishes: Wishes) -> BuiltImage:
    """The image that `jig push` pushes: the one that was built last, or that the tag names."""
    built = State(session.config.directory, session.config.name).built_image()
    return built or BuiltImage(LATEST, find_builder(wishes.builder).name, is_warmed=False)
