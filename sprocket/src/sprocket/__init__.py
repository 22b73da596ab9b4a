"""The worker SDK of Machineshop: `setup()` once, `predict()` per request; the rest is done for you.

import sprocket

class Hello(sprocket.Sprocket):
def setup(self):
self.greeting = "Hello"

def predict(self, args):
return {"text": f"{self.greeting}, {args['name']}!"}

sprocket.run(Hello(), "hello")
"""

from __future__ import annotations

from .errors import (
    ConfigError,
    GpuError,
    InfoError,
    InputError,
    InvalidInputError,
    LoadError,
    OutputError,
    PlatformError,
    SprocketError,
    TimeLimitError,
)
from .job import cancelled, emit_info, on_cancel
from .logs import log
from .outputs import FileOutput
from .processor import InputOutputProcessor
from .response import FileResponse
from .runner import run
from .version import __version__
from .worker import AsyncSprocket, Request, Sprocket, SprocketWorker

__all__ = [
    "AsyncSprocket",
    "ConfigError",
    "FileOutput",
    "FileResponse",
    "GpuError",
    "InfoError",
    "InputError",
    "InputOutputProcessor",
    "InvalidInputError",
    "LoadError",
    "OutputError",
    "PlatformError",
    "Request",
    "Sprocket",
    "SprocketError",
    "SprocketWorker",
    "TimeLimitError",
    "__version__",
    "cancelled",
    "emit_info",
    "log",
    "on_cancel",
    "run",
]
