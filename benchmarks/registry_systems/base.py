"""A registry as its clients see it."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Access:
    """Where a registry is, and how to get in.

    Args:
        host: host and port.
        namespace: what repositories' names begin with, with a slash behind it, or nothing.
        key: the password of any user; None where none is asked for.
    """

    host: str
    namespace: str
    key: str | None

    def url(self, rest: str) -> str:
        """The URL of something in the repository `bench`."""
        return f"http://{self.host}/v2/{self.namespace}bench/{rest}"

    def image(self, tag: str) -> str:
        """How skopeo names a tag there."""
        return f"docker://{self.host}/{self.namespace}bench:{tag}"


class Registry(Protocol):
    """One of those that are measured."""

    name: str

    @property
    def access(self) -> Access:
        """Where it is."""
        ...

    @property
    def process(self) -> int:
        """Its process."""
        ...

    def bring_up(self) -> None:
        """Start it, with nothing in it."""

    def take_down(self) -> None:
        """End it."""

    def empty(self) -> None:
        """Remove all that was pushed, so that the next push sends it again."""
