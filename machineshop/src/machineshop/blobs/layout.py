"""Where bytes lie. Keys name whole blobs in any store.

On a disk:

<data directory>/
├── blobs/                                    whole and verified; never written in place
│   ├── registry/<hash>/<2 hex>/<hex>-<id>     one push of a layer or a configuration, named by its digest
│   └── files/<2 hex>/<id>                    one upload of a file; the next upload of it gets another id
└── uploads/                                  unfinished; removed when given up, or when nobody went on with them
    ├── registry/<repository id>/<id>
    ├── files/<project id>/<id>
    └── multipart/<project id>/
        ├── <id>.facts                        what one upload in parts is to become
        └── <id>.<part number>.<64 hex>       a part of it, named by its SHA-256 as well

In a bucket, where bytes are given their key before their digest is known:

<prefix>
├── registry/<2 hex>/<id>                    a push of a layer or a configuration
├── files/<2 hex>/<id>                       an upload of a file
├── uploads/registry/<repository id>/<id>    how far an upload is, and its last bytes where they are too few for a part
├── uploads/multipart/<project id>/<id>      what an upload in parts is to become
├── ended/multipart/<project id>/<id>        what one has become
└── storage-id                               which database all of this belongs to
"""

import re

from machineshop.ids import new_id, new_ids

REGISTRY = "registry"
FILES = "files"
MULTIPART = "multipart"

DEFAULT_ALGORITHM = "sha256"

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


def is_digest(text: str) -> bool:
    """Whether this is a digest of a kind that is kept: `sha256:` and 64 hex digits, or `sha512:` and 128."""
    return _DIGEST.fullmatch(text) is not None


def algorithm_of(digest: str) -> str:
    """The hash that a digest was taken with, by its name in `hashlib`."""
    return digest.partition(":")[0]


def new_registry_key(digest: str) -> str:
    """A key for one push of the blob with this digest."""
    if not is_digest(digest):
        raise ValueError(f"'{digest}' is not a digest")
    algorithm, _, hexadecimal = digest.partition(":")
    return f"{REGISTRY}/{algorithm}/{hexadecimal[:2]}/{hexadecimal}-{new_id()}"


def new_object_key() -> str:
    """A key for one push of a blob whose digest is not known yet."""
    name = new_id()
    return f"{REGISTRY}/{name[-2:]}/{name}"


def upload_path(group: str, name: str) -> str:
    """Where a bucket keeps how far an upload is; without a name, what those of the group begin with."""
    return f"uploads/{group}/{name}"


def ended_path(group: str, name: str) -> str:
    """The same of an upload that has ended."""
    return f"ended/{group}/{name}"


def new_file_key() -> str:
    """A key for one upload of a file."""
    (key,) = new_file_keys(1)
    return key


def new_file_keys(count: int) -> list[str]:
    """Keys for files that come together: all in one folder, so that putting it on disk is done once."""
    names = new_ids(count)
    return [f"{FILES}/{names[0][-2:]}/{name}" for name in names]
