"""The keys that secrets are sealed with: in a file of the server's own, or given in its environment.

Place in the flow: the store says by id which key is in use (`store/secrets.py`); here are the keys themselves, which
never come into the store. The newest one is first. A rotation puts another one in front, and takes the others away once
no secret needs them. Servers that share a storage directory share the file, and read it again for a key that they do
not know yet.
"""

import base64
import binascii
import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from machineshop.errors import MachineshopError, SecretsKeyMissing
from machineshop.services.sealing import KEY_BYTES, SealingKey

VARIABLE = "MACHINESHOP_SECRETS_KEY"
_HEADER = (
    "# The keys of this platform's secrets, the newest first. Without them no secret can be read:\n"
    "# back this file up, apart from the database.\n"
)


class KeysUnusable(MachineshopError):
    """The keys of the secrets cannot be used: {cause} ({where}). {mend}"""


class KeysInUse(MachineshopError):
    """Another rotation of the secrets' key is under way (it holds {path}). Wait for its end."""


class KeyRing:
    """Keys by id.

    Args:
        path: The file. It is not used where keys are given.
        given: The keys in base64, with commas between them, the newest first; None: they are in the file.
    """

    def __init__(self, path: Path, given: str | None = None) -> None:
        self._path = path
        self._is_given = given is not None
        self._keys: list[SealingKey] = [] if given is None else self._parse(given.split(","))

    @property
    def where(self) -> str:
        """Where the keys are, in words."""
        return VARIABLE if self._is_given else str(self._path)

    @property
    def _unfinished(self) -> str:
        """What the names of files begin with that are still written."""
        return f".{self._path.name}-"

    @property
    def is_given(self) -> bool:
        """Whether they come from the environment, so that nothing here may change them."""
        return self._is_given

    def newest(self) -> SealingKey:
        """The first key; a file that is not there is made with one.

        Raises:
            KeysUnusable: The file cannot be read or made.
        """
        if not self._is_given:
            self._read(make=True)
        return self._keys[0]

    def find(self, key_id: str) -> SealingKey:
        """A key by its id.

        Raises:
            SecretsKeyMissing: It is not among them.
            KeysUnusable: The file cannot be read.
        """
        found = self._known(key_id)
        if found is None and not self._is_given:
            self._read()
            found = self._known(key_id)
        if found is None:
            raise SecretsKeyMissing(key_id, self.where)
        return found

    def add(self) -> SealingKey:
        """A new key in front of the others, on disk when this returns.

        Raises:
            KeysUnusable: The file cannot be written.
        """
        self._read()
        key = SealingKey.random()
        self._write([key, *self._keys])
        return key

    def keep_alone(self, key: SealingKey) -> None:
        """Take every other key away.

        Raises:
            KeysUnusable: The file cannot be written.
        """
        self._read()
        if [kept.id for kept in self._keys] != [key.id]:
            self._write([key])

    @contextlib.contextmanager
    def rotating(self) -> Iterator[None]:
        """Keep other rotations away.

        Raises:
            KeysInUse: One is under way.
            KeysUnusable: The directory cannot be written.
        """
        path = self._path.with_name(f"{self._path.name}.lock")
        try:
            file = path.open("wb")
        except OSError as error:
            raise self._unusable(error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise KeysInUse(path=path) from None
            self._clear_away()
            yield

    def _clear_away(self) -> None:
        """Remove what a run left that was killed while it wrote: keys are in it that are to go. Nobody writes now."""
        if self._path.exists():  # else a server may just be making the first one
            for path in self._path.parent.glob(f"{self._unfinished}*"):
                path.unlink(missing_ok=True)

    def _known(self, key_id: str) -> SealingKey | None:
        return next((key for key in self._keys if key.id == key_id), None)

    def _read(self, *, make: bool = False) -> None:
        try:
            if make and not self._path.exists():
                self._make()
            if not self._path.exists():
                self._keys = []
                return
            if self._path.stat().st_mode & 0o077:
                self._path.chmod(0o600)
            lines = self._path.read_text().splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise self._unusable(error) from error
        self._keys = self._parse(line for line in lines if line.strip() and not line.startswith("#"))

    def _make(self) -> None:
        """Whole, or not at all, and the first one stays: another server may be doing the same."""
        made = self._written([SealingKey.random()])
        try:
            os.link(made, self._path)
        except FileExistsError:
            pass
        finally:
            made.unlink()
        self._sync_folder()

    def _write(self, keys: list[SealingKey]) -> None:
        try:
            self._written(keys).replace(self._path)
            self._sync_folder()
        except OSError as error:
            raise self._unusable(error) from error
        self._keys = keys

    def _written(self, keys: list[SealingKey]) -> Path:
        """A file beside the real one, which only its owner can read."""
        handle, path = tempfile.mkstemp(dir=self._path.parent, prefix=self._unfinished)
        with os.fdopen(handle, "w") as file:
            file.write(_HEADER + "".join(f"{base64.b64encode(key.secret).decode()}\n" for key in keys))
            file.flush()
            os.fsync(file.fileno())
        return Path(path)

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def _parse(self, texts: Iterator[str] | list[str]) -> list[SealingKey]:
        """The keys; what is wrong with one is said without quoting it."""
        keys = []
        for number, text in enumerate(texts, 1):
            try:
                secret = base64.b64decode(text.strip(), validate=True)
            except (binascii.Error, ValueError):
                secret = b""
            if len(secret) != KEY_BYTES:
                raise KeysUnusable(
                    cause=f"key {number} is not {KEY_BYTES} bytes in base64",
                    where=self.where,
                    mend="`openssl rand -base64 32` makes one; an old one has to come from a backup.",
                )
            keys.append(SealingKey(secret))
        if not keys:
            raise KeysUnusable(
                cause="there is no key", where=self.where, mend="Bring the old one back from a backup, or remove it."
            )
        return keys

    def _unusable(self, error: Exception) -> KeysUnusable:
        cause = getattr(error, "strerror", None) or str(error)
        return KeysUnusable(cause=cause, where=self.where, mend="Mend its permissions, or bring it back from a backup.")
