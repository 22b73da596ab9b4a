"""What an upload into a bucket has come to, in a small object beside it: for the next request, at whichever server.

It holds what the platform wants to know of the upload, and its last bytes, where they are too few to be a part.
"""

import msgspec

from machineshop.blobs.bucket import Bucket, ObjectMissing
from machineshop.ids import new_id


class UploadState(msgspec.Struct):
    """Where an upload stands.

    Arguments:
        key: The key that it is to be published under.
        upload: The storage's id of the upload in parts; none where it is still too small for parts.
        offset: How many bytes lie in parts before `body`.
        body: The last bytes, or the facts.
        version: Of this state: another one with each change.
    """

    key: str
    upload: str = ""
    offset: int = 0
    body: bytes = b""
    version: str = ""

    def save(self, bucket: Bucket, path: str) -> None:
        """Store it, with a version of its own."""
        self.version = new_id()
        words = {"key": self.key, "upload": self.upload, "offset": str(self.offset), "version": self.version}
        bucket.put(path, self.body, words)


def load(bucket: Bucket, path: str) -> UploadState | None:
    """The state that is stored; None: there is no such upload."""
    try:
        found = bucket.get(path)
    except ObjectMissing:
        return None
    words = found.metadata
    return UploadState(
        words.get("key", ""), words.get("upload", ""), int(words.get("offset", "0")), found.body, words["version"]
    )


def version_of(bucket: Bucket, path: str) -> str | None:
    """The version of the state that is stored; None: there is no such upload."""
    try:
        return bucket.head(path).metadata.get("version", "")
    except ObjectMissing:
        return None


def drop(bucket: Bucket, path: str) -> None:
    """Give up the upload whose state is stored here, if there is one."""
    state = load(bucket, path)
    if state is not None:
        if state.upload:
            bucket.abort(state.key, state.upload)
        bucket.delete(path)
