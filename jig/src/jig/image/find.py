"""Which builder to use."""

from __future__ import annotations

from collections.abc import Iterator

from jig.errors import ImageError, UsageError
from jig.image.builders import BUILDERS, Builder
from jig.image.tool import look


def find_builder(chosen: str | None) -> Builder:
    """The builder of `--builder`, else the first that works here.

    Raises:
        UsageError: there is no builder of this name.
        ImageError: it does not work here, or none does.
    """
    if chosen is None:
        return next(working_builders(), None) or no_builder()
    if chosen not in BUILDERS:
        raise UsageError(f"--builder {chosen}: there is none. Known: {', '.join(BUILDERS)}.")
    builder = BUILDERS[chosen]
    if version_of(builder) is None:
        asked = " ".join(builder.look())
        raise ImageError(f"{chosen} does not work here: `{asked}` fails.", hint="`jig doctor` shows which builders do.")
    return builder


def working_builders() -> Iterator[Builder]:
    """Those that work here, best first."""
    return (builder for builder in BUILDERS.values() if version_of(builder) is not None)


def version_of(builder: Builder) -> str | None:
    """What a builder says of itself; None where it does not work."""
    if builder.name == "buildx" and look(BUILDERS["docker"].look()) is None:
        return None
    return look(builder.look())


def no_builder() -> Builder:
    """There is none.

    Raises:
        ImageError: always.
    """
    hint = "Install docker, podman or buildah, or build the image elsewhere and deploy it with --image."
    raise ImageError(f"Nothing here can build images: {', '.join(BUILDERS)} do not work.", hint=hint)
