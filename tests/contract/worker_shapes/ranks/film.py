"""The torchrun shape: ranks that meet in collectives, and rank 0 that saves a file and returns it."""

from typing import Optional

import sprocket
import torch
import torch.distributed as dist


class Film(sprocket.Sprocket):
    def setup(self) -> None:
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        self.weights = torch.full((4,), float(dist.get_rank() + 1))

    def predict(self, args: dict) -> Optional[dict]:
        frames = self.weights * float(args.get("brightness", 1))
        dist.all_reduce(frames)
        if dist.get_rank() == 0:
            sprocket.emit_info({"ranks": dist.get_world_size()})
            with open("film.txt", "w") as film:
                film.write(" ".join(f"{frame:g}" for frame in frames.tolist()))
            return {"output": sprocket.FileOutput("film.txt")}

    def shutdown(self) -> None:
        dist.destroy_process_group()


if __name__ == "__main__":
    sprocket.run(Film(), "shape-ranks", use_torchrun=True)
