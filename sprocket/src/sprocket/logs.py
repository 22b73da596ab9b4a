"""Log lines that say which job they belong to."""

from __future__ import annotations

import logging
import os
import sys
from typing import TextIO

from .job import current_job

log = logging.getLogger("sprocket")
"""A standard logger for models: `sprocket.log.info("loaded %s", name)`. Its lines carry the job's id."""

FORMAT = "%(asctime)s %(levelname)s [%(job_id)s] %(message)s"


class JobIdFilter(logging.Filter):
    """Adds `job_id` to every record: the current job's, the one given as `extra`, or `-`."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Let every record pass, with a `job_id`."""
        if not hasattr(record, "job_id"):
            job = current_job()
            record.job_id = job.id if job else "-"
        return True


log.addFilter(JobIdFilter())


def configure_logging() -> None:
    """Write log lines to stderr, unless the model's code has set up logging by itself."""
    if not logging.getLogger().handlers:
        handler = logging.StreamHandler(_own_stderr())
        handler.setFormatter(logging.Formatter(FORMAT))
        handler.addFilter(JobIdFilter())
        logging.getLogger().addHandler(handler)
        logging.getLogger().setLevel(logging.INFO)
    # A container's stdout is no terminal: without this, prints of the model would appear minutes late.
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)


def _own_stderr() -> TextIO:
    """Stderr under a number of its own: one that a model closes is the next connection's, which would get the lines."""
    try:
        descriptor = os.dup(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # it is no file, or there is none
        return sys.stderr
    return os.fdopen(descriptor, "w", buffering=1, encoding=sys.stderr.encoding, errors="backslashreplace")
