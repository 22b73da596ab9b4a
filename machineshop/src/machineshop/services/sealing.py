"""Sealing secrets: AES-256-GCM with a nonce of its own for each value, bound to the project and name. Pure."""

import hashlib
import os

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from machineshop.errors import MachineshopError
from machineshop.models import SealedValue

KEY_BYTES = 32
# What GCM is made for; random ones of this length are safe for some billions of values under one key.
NONCE_BYTES = 12
_ID_LENGTH = 16


class SecretUnreadable(MachineshopError):
    """The value of the secret '{name}' is damaged, or was put in the place of another's: set it again."""


class SealingKey:
    """A key, with the id by which rows name it: a part of its hash, so it needs no list of names."""

    __slots__ = ("_cipher", "id", "secret")

    def __init__(self, secret: bytes) -> None:
        self.secret = secret
        self.id = hashlib.sha256(b"machineshop sealing key\0" + secret).hexdigest()[:_ID_LENGTH]
        self._cipher = AESGCM(secret)

    def __repr__(self) -> str:
        return f"SealingKey({self.id})"

    @classmethod
    def random(cls) -> "SealingKey":
        """A new one."""
        return cls(AESGCM.generate_key(KEY_BYTES * 8))

    def seal(self, project_id: str, name: str, value: str) -> SealedValue:
        """Encrypt the value of a secret."""
        nonce = os.urandom(NONCE_BYTES)
        ciphertext = self._cipher.encrypt(nonce, value.encode(), _bound_to(project_id, name))
        return SealedValue(key_id=self.id, nonce=nonce, ciphertext=ciphertext)

    def open(self, project_id: str, name: str, sealed: SealedValue) -> str:
        """Decrypt the value of a secret.

        Raises:
            SecretUnreadable: It is not what was sealed for this project and name.
        """
        try:
            return self._cipher.decrypt(sealed.nonce, sealed.ciphertext, _bound_to(project_id, name)).decode()
        except InvalidTag:
            raise SecretUnreadable(name=name) from None


def _bound_to(project_id: str, name: str) -> bytes:
    return f"machineshop secret\0{project_id}\0{name}".encode()
