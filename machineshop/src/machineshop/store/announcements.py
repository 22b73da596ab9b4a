"""What a transaction has to tell, in its own process and to the other servers, once it is committed.

A store function announces a topic; `Database.on_announced` says who is called for it. It is a hint to look at once:
what matters lies in the store, and is found without it.
"""

from sqlalchemy import Connection

_KEY = "announced"
# Sets topics apart from deployments' ids, which are sent the same way when somebody has written in their queues.
_MARK = "!"


def announce(conn: Connection, topic: str) -> None:
    """Tell those who listen for this topic, once the transaction is committed. One that fails may tell them too."""
    conn.info.setdefault(_KEY, set()).add(topic)


def taken(conn: Connection) -> set[str]:
    """The topics that were announced since the last call."""
    topics: set[str] = conn.info.pop(_KEY, set())
    return topics


def to_others(topic: str) -> str:
    """A topic as it is sent to the other servers."""
    return _MARK + topic


def from_others(news: str) -> str | None:
    """The topic that another server has announced; None where it has written in a queue."""
    return news.removeprefix(_MARK) if news.startswith(_MARK) else None
