"""Webhooks, and what they are signed with."""

import msgspec

from machineshop.api.described.queue import MODEL, REQUEST, WebhookShown
from machineshop.api.described.shapes import Listed, Time
from machineshop.api.operation import Operation


class WebhookSecret(msgspec.Struct):
    """What a project's webhooks are signed with."""

    secret: str
    previous_signs_until: Time | None


OF_JOB = Operation(about="What became of a job's webhook.", answer=Listed[WebhookShown], query=(MODEL, REQUEST))
SECRET = Operation(about="What the project's webhooks are signed with.", answer=WebhookSecret)
ROTATE = Operation(about="Sign with a new secret; the one before it signs along for 24 hours.", answer=WebhookSecret)
