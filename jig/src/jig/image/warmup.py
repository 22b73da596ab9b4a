"""Warm-up: the image runs its warm-up inputs on this machine, and the compile cache that they leave is baked in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from jig.config.model import Config
from jig.errors import ImageError, UsageError
from jig.image.builders import BUILDERS, Build, Builder
from jig.image.dockerfile import NAME_PATTERN, WORKDIR
from jig.image.tool import look, work

DESTINATION_VARIABLE, DESTINATION = "WARMUP_DEST", "torch_cache"
NAME_VARIABLE, NAME = "WARMUP_ENV_NAME", "TORCHINDUCTOR_CACHE_DIR"
ROUNDS_VARIABLE = "RUN_AND_EXIT"
LABEL = "jig.warmed"
NVIDIA_DEVICE = Path("/dev/nvidiactl")


@dataclass(frozen=True)
class Cache:
    """Where an image keeps its compile cache.

    Args:
        folder: relative to the working directory of the image.
        variable: that tells the compiler.
    """

    folder: str
    variable: str

    @property
    def place(self) -> str:
        """The whole path."""
        return f"{WORKDIR}/{self.folder}"


def cache_of(environment: Mapping[str, str]) -> Cache:
    """The cache that the environment names.

    Raises:
        UsageError: a name is none.
    """
    folder = environment.get(DESTINATION_VARIABLE) or DESTINATION
    path = PurePosixPath(folder)
    if path.is_absolute() or ".." in path.parts or not path.parts or not folder.isprintable() or '"' in folder:
        raise UsageError(
            f"{DESTINATION_VARIABLE} is {folder!r}; it must be a path below {WORKDIR}, like {DESTINATION}."
        )
    variable = environment.get(NAME_VARIABLE) or NAME
    if not NAME_PATTERN.fullmatch(variable):
        raise UsageError(f"{NAME_VARIABLE} is {variable!r}, which is no variable's name.")
    return Cache(path.as_posix(), variable)


def runner_for(builder: Builder) -> Builder:
    """What runs and rebuilds the image: BuildKit sees no image of the engine's, so Docker itself takes its place.

    Raises:
        UsageError: the builder runs no images.
    """
    if not builder.can_run:
        raise UsageError(f"{builder.name} runs no images, so it cannot warm one up. Take docker or podman: --builder.")
    return BUILDERS["docker"] if builder.program == "docker" else builder


def warm_up(config: Config, builder: Builder, name: str, on_line: Callable[[str], None]) -> None:
    """Run an image's warm-up, and put the cache into it, under the same name.

    Raises:
        ImageError: the warm-up failed, or left no cache.
    """
    cache = cache_of(os.environ)
    with TemporaryDirectory(prefix="jig-") as folder:
        collected = Path(folder) / "cache"
        variables_file = Path(folder) / "variables"
        variables_file.write_text(variables_text(config, cache), encoding="utf-8")
        run_warm_up(builder, name, cache, variables_file, collected, on_line)
        if not any(path.is_file() for path in collected.rglob("*")):
            hint = f"What it compiles must go to the folder of ${cache.variable}; warmup_inputs must make it compile."
            raise ImageError(f"The warm-up of {name} left nothing in {cache.place}.", hint=hint)
        text = warmed_dockerfile(name, cache, look(builder.user_of(name)) or "")
        (Path(folder) / "Dockerfile").write_text(text, encoding="utf-8")
        build = Build(Path(folder) / "Dockerfile", Path(folder), (name,))
        work(builder.build(build), builder.variables, on_line, failure=f"{builder.name} could not bake the cache in")


def run_warm_up(
    builder: Builder,
    name: str,
    cache: Cache,
    variables_file: Path,
    collected: Path,
    on_line: Callable[[str], None],
) -> None:
    """Run the image to its end, and copy its cache out."""
    failure = f"The warm-up of {name} failed"
    create = builder.create(name, variables_file, with_gpus=NVIDIA_DEVICE.exists())
    container = work(create, builder.variables, on_line, failure=failure)[-1].strip()
    try:
        work(builder.start(container), builder.variables, on_line, failure=failure)
        with suppress(ImageError):  # nothing was put there, which is said where nothing is found
            work(builder.copy_out(container, cache.place, collected), builder.variables, on_line, failure=failure)
    finally:
        look(builder.remove(container))


def variables_text(config: Config, cache: Cache) -> str:
    """The variables of the deployment that have values of their own, and those of a warm-up; a line for each."""
    values = {each.name: each.value for each in config.deploy.environment_variables if each.value is not None}
    values |= {ROUNDS_VARIABLE: "1", cache.variable: cache.place}
    return "".join(f"{name}={value}\n" for name, value in values.items() if "\n" not in value)


def warmed_dockerfile(name: str, cache: Cache, user: str) -> str:
    """The image with its cache, which belongs to whom it runs as: what is not in it yet is added as it runs."""
    owner = f"--chown={user} " if user else ""
    lines = [
        f"FROM {name}",
        f'COPY {owner}["cache/", "{cache.place}/"]',
        f'ENV {cache.variable}="{cache.place}"',
        f"LABEL {LABEL}=true",
    ]
    return "\n".join(lines) + "\n"
