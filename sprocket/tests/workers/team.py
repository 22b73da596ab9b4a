"""Models that run in several ranks; the payload says which rank is to behave how."""

from __future__ import annotations

import ctypes
import os
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import sprocket

RANK = int(os.environ.get("RANK", "-1"))
RANKS = int(os.environ.get("WORLD_SIZE", "0"))


class Team(sprocket.Sprocket):
    """`{"rank": 1, "do": "raise_"}`: rank 1 raises; the others wait for it in vain, as in a collective."""

    use_torchrun = True

    def setup(self) -> None:
        print(f"rank {RANK} of {RANKS} is process {os.getpid()}", flush=True)
        if os.environ.get("BREAK_SETUP_OF") == str(RANK):
            raise RuntimeError(f"no weights for rank {RANK}")
        if os.environ.get("KILL_IN_SETUP") == str(RANK):
            os._exit(9)
        if "BREAK_SETUP_OF" in os.environ or "KILL_IN_SETUP" in os.environ:
            time.sleep(60)

    def predict(self, args: dict[str, Any]) -> Any:
        do = args.get("do", "echo")
        if "rank" not in args or args["rank"] == RANK:
            return getattr(self, do)(args)
        return getattr(self, args.get("others", "echo"))(args)

    def shutdown(self) -> None:
        print(f"rank {RANK} is shut down", flush=True)

    def echo(self, args: dict[str, Any]) -> Any:
        return {"rank": RANK, "args": args} if RANK == 0 else None

    def environment(self, args: dict[str, Any]) -> Any:
        names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "CUDA_VISIBLE_DEVICES")
        Path(args["folder"], f"{RANK}").write_text("\n".join(f"{name}={os.environ.get(name)}" for name in names))
        return {"port": os.environ["MASTER_PORT"]}

    def meet(self, args: dict[str, Any]) -> Any:
        """Add up a number of each rank's, by a socket at the master's address."""
        address = (os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]))
        if RANK == 0:
            with socket.create_server(address) as server:
                total = args["numbers"][0]
                for _ in range(RANKS - 1):
                    connection, _ = server.accept()
                    with connection:
                        total += int(connection.recv(100))
            return {"total": total}
        for _ in range(1000):
            try:
                with socket.create_connection(address, 10) as connection:
                    connection.sendall(str(args["numbers"][RANK]).encode())
                return None
            except ConnectionRefusedError:  # noqa: PERF203 - tries again
                time.sleep(0.01)
        raise TimeoutError("rank 0 does not listen")

    def unserializable(self, args: dict[str, Any]) -> Any:
        return object()

    def news(self, args: dict[str, Any]) -> Any:
        sprocket.emit_info({"told_by": RANK})
        return {}

    def read(self, args: dict[str, Any]) -> Any:
        Path(args["folder"], f"{RANK}").write_text(f"{args['file']}\n{Path(args['file']).read_text()}")
        return {}

    def write(self, args: dict[str, Any]) -> Any:
        path = Path(args["folder"], f"out-{RANK}.txt")
        path.write_text(f"of rank {RANK}")
        return {"file": sprocket.FileOutput(path)}

    def raise_(self, args: dict[str, Any]) -> Any:
        raise ValueError(f"rank {RANK} takes no such thing")

    def exit(self, args: dict[str, Any]) -> Any:
        sys.exit(5)

    def vanish(self, args: dict[str, Any]) -> Any:
        os._exit(3)

    def crash(self, args: dict[str, Any]) -> Any:
        while not Path(args["folder"], "hangs-0").exists():
            time.sleep(0.01)
        ctypes.string_at(0)

    def hang(self, args: dict[str, Any]) -> Any:
        Path(args["folder"], f"hangs-{RANK}").touch()
        time.sleep(600)

    def linger(self, args: dict[str, Any]) -> Any:
        time.sleep(args["seconds"])
        return {"lingered": args["seconds"]}

    def wait(self, args: dict[str, Any]) -> Any:
        """Wait for something that only a cancel ends."""
        ended = threading.Event()
        sprocket.on_cancel(ended.set)
        sprocket.emit_info({"under_way": True})
        ended.wait(60)
        if sprocket.cancelled():
            Path(args["folder"], f"left-{RANK}").touch()
        return {}

    def until_cancelled(self, args: dict[str, Any]) -> Any:
        """Go on step by step, at a pace of one's own."""
        steps = 0
        while not sprocket.cancelled():
            steps += 1
            if steps == 3:
                sprocket.emit_info({"under_way": True})
            time.sleep(0.005 * (1 + RANK))
        Path(args["folder"], f"left-{RANK}").write_text(str(steps))
        return {}


class WarmTeam(Team):
    warmup_inputs = ({"do": "warm_up"},)

    def warm_up(self, args: dict[str, Any]) -> Any:
        print(f"rank {RANK} warms up", flush=True)


class HurriedTeam(Team):
    time_limit_seconds = 0.5


class Crowded(Team):
    concurrency = 2


class Awaiting(sprocket.AsyncSprocket):
    use_torchrun = True

    async def predict(self, args: dict[str, Any]) -> dict[str, Any]:
        return args


class Vague(Team):
    use_torchrun = 2  # type: ignore[assignment]


if __name__ == "__main__":
    Team.use_torchrun = False
    sprocket.run(Team(), "team", True)
