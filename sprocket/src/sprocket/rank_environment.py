"""What a rank finds in its environment: what torchrun would have put there for a single machine."""

from __future__ import annotations

import socket
from collections.abc import Mapping, MutableMapping
from pathlib import Path
from typing import NamedTuple

MASTER_ADDRESS = "127.0.0.1"

STACKS_FILE = "_SPROCKET_STACKS"
"""Names the file that a rank's stacks go to; set by the worker for its ranks alone."""


class ThisRank(NamedTuple):
    """What a process knows of itself that is a rank."""

    number: int
    stacks: Path


def take_rank(environ: MutableMapping[str, str]) -> ThisRank | None:
    """Give which rank this process is; None where it is none of a worker's."""
    path = environ.pop(STACKS_FILE, "")
    return ThisRank(int(environ["RANK"]), Path(path)) if path else None


def rank_environment(environ: Mapping[str, str], rank: int, ranks: int, port: int, stacks: Path) -> dict[str, str]:
    """Give the environment of one rank.

    The GPUs stay visible to all ranks, each of which chooses the one with the number `LOCAL_RANK`.

    Args:
        environ: the worker's own environment.
        rank: the rank's number, from 0.
        ranks: how many there are.
        port: where rank 0 is to listen for the others.
        stacks: the file for its stacks.
    """
    numbers = {"RANK": rank, "LOCAL_RANK": rank, "ROLE_RANK": rank, "GROUP_RANK": 0}
    sizes = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "ROLE_WORLD_SIZE": ranks, "GROUP_WORLD_SIZE": 1}
    # One thread each, as with torchrun: ranks that all compute on all cores are slower than one alone.
    defaults = {"TORCH_NCCL_ASYNC_ERROR_HANDLING": "1", **({"OMP_NUM_THREADS": "1"} if ranks > 1 else {})}
    given = {**numbers, **sizes, "MASTER_ADDR": MASTER_ADDRESS, "MASTER_PORT": port, STACKS_FILE: stacks}
    return {**defaults, **environ, **{name: str(value) for name, value in given.items()}}


def reserve_port() -> socket.socket:
    """Keep a port for rank 0, which takes it when it has loaded its libraries, maybe a minute later.

    A socket that is bound and does not listen keeps others away, and lets in whoever binds as servers do: with
    SO_REUSEADDR.
    """
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind((MASTER_ADDRESS, 0))
    return reserved
