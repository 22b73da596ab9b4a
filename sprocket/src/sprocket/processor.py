"""What an author derives from to have a say about files on their way in, and about outputs on their way out."""

from __future__ import annotations

from collections.abc import Awaitable
from pathlib import Path
from typing import Any

from .response import FileResponse


class InputOutputProcessor:
    """Changes input files before predict sees them, and outputs before they are sent.

    The worker names the class, and sprocket makes one instance of it, without arguments:

        class Unpacking(sprocket.InputOutputProcessor):
            def process_input_file(self, resp, dst):
                dst.write_bytes(gzip.decompress(resp.content))

        class Model(sprocket.Sprocket):
            processor = Unpacking

    The methods run in the processor's own thread, one after the other, where `async` ones may wait at the same time on
    one event loop. The model and the worker go on meanwhile. What they raise fails the job.
    """

    def process_input_file(self, resp: FileResponse, dst: Path) -> Awaitable[None] | None:
        """Make an input file of what was downloaded; may be `def` or `async def`. As it comes, it saves the file.

        Args:
            resp: what came, in the manner of `httpx.Response`. It is complete, and lies on disk.
            dst: where predict will look for the file. It does not exist yet; its directory holds nothing else.
        """
        resp.save(dst)
        return None

    async def finalize(
        self,
        request_id: str,  # noqa: ARG002 - for those who override this
        inputs: dict[str, Any],  # noqa: ARG002
        outputs: dict[str, Any],
    ) -> dict[str, Any]:
        """Give the outputs that are to be sent. Called after predict, before files are uploaded.

        Args:
            request_id: the job.
            inputs: its payload, with local paths in place of addresses.
            outputs: what predict returned, with each `FileOutput` in its place. May be changed.

        Returns:
            The outputs; a `FileOutput` among them is uploaded.
        """
        return outputs
