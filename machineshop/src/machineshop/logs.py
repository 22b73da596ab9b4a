"""How the platform logs: events with ids; coloured lines on a terminal, JSON anywhere else."""

import logging
import sys

import structlog

# Every message is an event and its facts, `queue.expired jobs=3`; nothing here ever holds a key or a payload.
_SHARED = [
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    structlog.processors.format_exc_info,
]


ACCESS_LOGGER = "machineshop.gateway.access"


def configure(*, verbose: bool, access: bool = False) -> None:
    """Send the log to standard error.

    Args:
        verbose: Every event, and not only warnings.
        access: A line for each request through the gateway, also where it is not verbose.
    """
    terminal = sys.stderr.isatty()
    renderer = _for_people() if terminal else structlog.processors.JSONRenderer()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED[:3] if terminal else _SHARED,  # type: ignore[arg-type]
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, handlers=[handler], force=True)
    if access:
        logging.getLogger(ACCESS_LOGGER).setLevel(logging.INFO)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.error").addFilter(_is_news)


def _for_people() -> structlog.dev.ConsoleRenderer:
    # The usual one shows what variables held, and so keys, payloads and secrets.
    return structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether uvicorn says what nobody else does: the gateway has told of an answer that it had to cut."""
    return not record.getMessage().startswith("ASGI callable returned without completing response")
