"""A model that computes in collectives of PyTorch, on CPUs."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

import sprocket


class Collective(sprocket.Sprocket):
    def setup(self) -> None:
        dist.init_process_group("gloo")
        self.rank = dist.get_rank()
        print(f"rank {self.rank} of {dist.get_world_size()} is process {os.getpid()}", flush=True)

    def predict(self, args: dict[str, Any]) -> dict[str, Any] | None:
        if args.get("absent") == self.rank:
            Path(args["folder"], "absent").touch()
            time.sleep(600)
        self.folder = args.get("folder")
        total = self.sum_of(args["numbers"][self.rank])
        for step in range(args.get("steps", 0)):
            if sprocket.cancelled():
                Path(args["folder"], f"left-{self.rank}").write_text(str(step))
                break
            self.sum_of(step)
            if step == 3:
                sprocket.emit_info({"under_way": True})
        return {"total": total} if self.rank == 0 else None

    def sum_of(self, number: float) -> float:
        if self.folder is not None:
            Path(self.folder, f"met-{self.rank}").touch()
        tensor = torch.tensor([float(number)])
        try:
            dist.all_reduce(tensor)
        except RuntimeError:  # Gloo notices that a rank is gone; NCCL, as a rule, waits on.
            time.sleep(600)
        return float(tensor.item())

    def shutdown(self) -> None:
        dist.destroy_process_group()


if __name__ == "__main__":
    sprocket.run(Collective(), "collective", use_torchrun=True)
