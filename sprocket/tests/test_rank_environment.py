from __future__ import annotations

import socket
from pathlib import Path

from sprocket.rank_environment import STACKS_FILE, rank_environment, reserve_port, take_rank


def test_a_rank_finds_what_torchrun_would_have_given_it() -> None:
    environ = rank_environment(
        {"WORLD_SIZE": "8", "CUDA_VISIBLE_DEVICES": "4,5", "HOME": "/root"}, 1, 2, 4711, Path("/tmp/stacks")
    )

    assert environ == {
        "RANK": "1",
        "LOCAL_RANK": "1",
        "GROUP_RANK": "0",
        "ROLE_RANK": "1",
        "WORLD_SIZE": "2",
        "LOCAL_WORLD_SIZE": "2",
        "GROUP_WORLD_SIZE": "1",
        "ROLE_WORLD_SIZE": "2",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "4711",
        "OMP_NUM_THREADS": "1",
        "TORCH_NCCL_ASYNC_ERROR_HANDLING": "1",
        "CUDA_VISIBLE_DEVICES": "4,5",
        "HOME": "/root",
        STACKS_FILE: "/tmp/stacks",
    }


def test_what_the_author_has_set_stays() -> None:
    environ = rank_environment({"OMP_NUM_THREADS": "4", "TORCH_NCCL_ASYNC_ERROR_HANDLING": "0"}, 0, 2, 1, Path("s"))
    assert (environ["OMP_NUM_THREADS"], environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"]) == ("4", "0")


def test_a_single_rank_may_use_all_cores() -> None:
    assert "OMP_NUM_THREADS" not in rank_environment({}, 0, 1, 1, Path("s"))


def test_a_reserved_port_lets_a_server_in() -> None:
    with reserve_port() as reserved, socket.create_server(reserved.getsockname()) as server:
        socket.create_connection(server.getsockname(), 10).close()


def test_a_process_knows_once_which_rank_it_is() -> None:
    environ = rank_environment({}, 1, 2, 1, Path("/tmp/stacks"))

    rank = take_rank(environ)

    assert rank is not None
    assert (rank.number, rank.stacks) == (1, Path("/tmp/stacks"))
    assert take_rank(environ) is None, "what the rank starts is no rank"
