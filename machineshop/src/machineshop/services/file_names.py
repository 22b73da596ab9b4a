"""Files' names: which can be one, and which job a name belongs to. Pure."""

import unicodedata

from machineshop.errors import InvalidRequest, NotPermitted
from machineshop.ids import is_id
from machineshop.models import Scope
from machineshop.services.volume_paths import MAX_DEPTH

MAX_NAME_LENGTH = 512
# `<volume>/<version>/`, and the path within it.
MAX_PARTS = 2 + MAX_DEPTH
# `/v1/storage/volumes/...` are volumes, and no files.
RESERVED_FOLDER = "volumes"
# These below `/v1/storage/` are calls of the API: such a file could not be read, nor removed.
RESERVED_NAMES = frozenset({"upload-request", "multipart/init", "multipart/complete", "multipart/abort"})
# Control characters, separators of lines and paragraphs, and what is no character.
_UNSAFE_CATEGORIES = frozenset({"Cc", "Zl", "Zp", "Cs"})
_ID_LENGTH = 36


class NotAJobsFile(NotPermitted):
    """This key uploads files of its replica's jobs alone, named '<request_id>-<name>': '{name}' belongs to none."""

    param = "filename"


def check_file_name(name: str) -> None:
    """Refuse what cannot be a file's name.

    Raises:
        InvalidRequest: It is empty, too long or too deep, or clients and proxies would read another path from it.
    """
    if not 1 <= len(name) <= MAX_NAME_LENGTH:
        raise InvalidRequest(f"A file's name has 1 to {MAX_NAME_LENGTH} characters, not {len(name)}.", param="filename")
    if any(unicodedata.category(character) in _UNSAFE_CATEGORIES for character in name):
        raise InvalidRequest("A file's name holds no control characters or line breaks.", param="filename")
    if any(part in ("", ".", "..") for part in name.split("/")):
        raise InvalidRequest(
            "A file's name neither begins nor ends with '/', and no part of it is empty, '.' or '..'.", param="filename"
        )
    if name.count("/") >= MAX_PARTS:
        raise InvalidRequest(
            f"A file's name has {MAX_PARTS} parts between '/' at most, the volume and the version of a volume's file "
            "among them: put it into fewer folders.",
            param="filename",
        )
    if name.split("/", 1)[0] == RESERVED_FOLDER:
        raise InvalidRequest(
            f"A file's name does not begin with the folder '{RESERVED_FOLDER}': a part of the API is called that.",
            param="filename",
        )
    if name in RESERVED_NAMES:
        raise InvalidRequest(f"A file cannot be called '{name}': a call of the API is called that.", param="filename")


def job_of_upload(scope: Scope, name: str, request_id: str | None) -> str | None:
    """The id of the job whose output a file will be; None: it is nobody's output.

    A user's key may write any file. A worker's may write none but its jobs', or it could replace what others have
    stored: their names begin with the job's id, which is also how workers name them that do not send it along.

    Raises:
        NotAJobsFile: A worker's key, and the name is no job's.
    """
    if scope is not Scope.WORKER:
        return request_id
    job_id = name[:_ID_LENGTH] if request_id is None else request_id
    if not is_id(job_id) or not name.startswith(f"{job_id}-"):
        raise NotAJobsFile(name=name)
    return job_id
