"""`sprocket.run`: from arguments, flags and environment to a running worker, and to the process's exit code."""

from __future__ import annotations

import argparse
import asyncio
import gc
import os
import sys
import threading
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from .child import take_channel
from .config import DEFAULT_PREDICT_PATH, Config, Flags, read_config
from .errors import ConfigError, SprocketError
from .gpu_check import check_gpus
from .host import host
from .logs import configure_logging
from .model import Model
from .rank_environment import take_rank
from .stacks import ignore_asking, tell_stacks
from .worker import Worker

EXIT_USAGE = 2
Made = TypeVar("Made")

TRIAL = "SPROCKET_TRIAL"
"""Names the folder of a trial; see `trial`."""
UNDER_TORCHRUN = (
    "this worker was started by torchrun (LOCAL_RANK is set): start it with python alone; "
    "with use_torchrun it starts a process per GPU by itself"
)


def run(
    sprocket: Worker | type[Worker],
    name: str | None = None,
    use_torchrun: bool | None = None,
    *,
    predict_path: str = DEFAULT_PREDICT_PATH,
    port: int | None = None,
    queue: bool | None = None,
) -> None:
    """Serve a model until the process is asked to stop (SIGTERM, SIGINT).

    Flags on the command line (`--queue`, `--port N`, `--name NAME`) win over the environment
    (`TOGETHER_DEPLOYMENT_NAME`, `PORT`), and the environment over the arguments given here.

    Args:
        sprocket: the worker: an instance of `Sprocket`, `AsyncSprocket` or `SprocketWorker`, or such a class.
        name: the deployment whose queue to work on.
        use_torchrun: run the model in a process per GPU, with the environment that torchrun gives; None: as its class
            says.
        predict_path: the path at which predict is served over HTTP.
        port: where to listen for /health, /metrics and predict; 0: any free port; 8000 where nothing says otherwise.
        queue: take jobs from the queue; without it only HTTP is served.

    Raises:
        SystemExit: with the exit code, where it is not 0: 1 when setup or shutdown failed, 2 when a setting is missing
            or wrong, else the code that predict asked for.
    """
    flags = _flags_of_script(sys.argv[1:])
    serve(sprocket, flags, name=name, use_torchrun=use_torchrun, predict_path=predict_path, port=port, queue=queue)


def serve(
    worker: Worker | type[Worker],
    flags: Flags,
    *,
    name: str | None = None,
    use_torchrun: bool | None = None,
    predict_path: str = DEFAULT_PREDICT_PATH,
    port: int | None = None,
    queue: bool | None = None,
) -> None:
    """Do what `run` does, with the flags already read."""
    configure_logging()
    try:
        if threading.current_thread() is not threading.main_thread():
            raise ConfigError("run() must be called in the main thread: signals are delivered nowhere else")
        if trial := os.environ.get(TRIAL):
            model = Model(worker, use_torchrun=use_torchrun)
            _be_hosted_or_prepare(model)
            sys.exit(_try(Path(trial), model))
        config = read_config(os.environ, flags, name=name, predict_path=predict_path, port=port, queue=queue)
        rounds = config.warmup_rounds_and_exit
        model = Model(worker, warmup_rounds=rounds or 1, warmup_required=rounds > 0, use_torchrun=use_torchrun)
        _be_hosted_or_prepare(model)
        if config.gpu_check:
            check_gpus(os.environ)
        code = _live(config, model)
    except SprocketError as error:
        exit_with(error)
    if code:
        sys.exit(code)


def _be_hosted_or_prepare(model: Model) -> None:
    """Where this is a process of a worker's model: be that, until it ends. Else see to what such processes need."""
    channel, rank = take_channel(os.environ), take_rank(os.environ)
    if rank is not None:
        tell_stacks(rank.stacks)
    if channel is not None:
        host(channel, model, rank.number if rank else None)
    if model.use_torchrun and "LOCAL_RANK" in os.environ:
        raise ConfigError(UNDER_TORCHRUN)
    if model.use_torchrun:
        ignore_asking()


def exit_with(error: SprocketError) -> NoReturn:
    """End the process with one line that says what is wrong."""
    sys.stderr.write(f"sprocket: {error}\n")
    sys.exit(EXIT_USAGE)


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Declare the flags that every worker understands."""
    parser.add_argument("--queue", action="store_true", help="take jobs from the deployment's queue")
    parser.add_argument("--port", type=int, help="where to listen (default: $PORT, else 8000; 0: any free port)")
    parser.add_argument("--name", help="the deployment (default: $TOGETHER_DEPLOYMENT_NAME)")


def flags_of(parsed: argparse.Namespace) -> Flags:
    """Take the flags from what argparse has read.

    Raises:
        ConfigError: the port is none.
    """
    if parsed.port is not None and not 0 <= parsed.port <= 65535:
        raise ConfigError(f"--port must be a number from 0 to 65535, not {parsed.port}")
    return Flags(queue=parsed.queue, port=parsed.port, name=parsed.name)


def _flags_of_script(arguments: Sequence[str]) -> Flags:
    # A script may have arguments of its own: those are not ours to judge.
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    add_flags(parser)
    try:
        return flags_of(parser.parse_known_args(arguments)[0])
    except ConfigError as error:
        exit_with(error)


def _try(folder: Path, model: Model) -> int:
    from .trial import run_trial  # noqa: PLC0415 - for the same reason as below

    return run_trial(folder, model)


def _live(config: Config, model: Model) -> int:
    # Here, because it takes a third of a second: importing sprocket must not.
    from .app import App, Ending, Stop  # noqa: PLC0415

    # What has been imported stays: looking through all of it again and again for garbage would make jobs late. What
    # setup will make is not among it, so a model that is replaced later on is let go.
    gc.freeze()

    async def main() -> Ending:
        stop = Stop()
        with stop.listening():
            ending = await App(config, model, stop).run()
        if ending.abrupt:
            # The model's thread is still inside setup or predict, and nothing can stop it from the outside.
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(ending.exit_code)
        return ending

    return _run(main()).exit_code


def _run(main: Coroutine[Any, Any, Made]) -> Made:
    """Run it on an event loop that is ours alone: a model with coroutines has one of its own, which is asyncio's."""
    try:
        import uvloop  # noqa: PLC0415 - not there on every machine
    except ImportError:
        return asyncio.run(main)
    return uvloop.run(main)
