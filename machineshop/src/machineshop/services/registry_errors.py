"""What can go wrong in the registry's own terms; `registry.errors` gives each its code and status.

    RegistryError
    ├── NameInvalid
    ├── NameUnknown
    ├── DigestInvalid
    ├── BlobUnknown
    ├── UploadUnknown
    ├── UploadBusy
    ├── ChunkOutOfOrder
    ├── SizeInvalid
    ├── TagInvalid
    ├── ManifestUnknown
    ├── ManifestInvalid
    ├── ManifestBlobUnknown
    ├── PageInvalid
    ├── ScopeInsufficient
    ├── GrantUnsupported
    └── Unsupported

A docstring is the message, filled in with the facts that the exception was raised with.
"""

from machineshop.errors import MachineshopError


class RegistryError(MachineshopError):
    """The registry could not do that."""


class NameInvalid(RegistryError):
    """'{name}' is not a repository's name: lowercase letters and digits, with . _ - between them, in parts cut by /."""


class NameUnknown(RegistryError):
    """There is no repository '{name}' in your organization; your namespace is '{namespace}/'."""


class DigestInvalid(RegistryError):
    """{message}"""


class BlobUnknown(RegistryError):
    """The repository '{name}' has no blob {digest}."""


class UploadUnknown(RegistryError):
    """There is no such upload in '{name}': it was finished, cancelled or given up. Begin it again with POST."""


class UploadBusy(RegistryError):
    """Another request is writing to this upload: wait for it, or begin an upload of your own with POST."""


class ChunkOutOfOrder(RegistryError):
    """This chunk does not go on where the upload stands, at byte {size}. Ask for its state with GET and go on there."""


class SizeInvalid(RegistryError):
    """{message}"""


class TagInvalid(RegistryError):
    """'{tag}' is not a tag: up to 128 letters, digits, and . _ - (the last two not at its start)."""


class ManifestUnknown(RegistryError):
    """The repository '{name}' has no manifest '{reference}'."""


class ManifestInvalid(RegistryError):
    """This manifest cannot be taken: {why}."""


class ManifestBlobUnknown(RegistryError):
    """The manifest refers to {digest}, which the repository '{name}' does not have: push that first."""


class PageInvalid(RegistryError):
    """The query parameter 'n' must be a whole number, 0 or more."""


class ScopeInsufficient(RegistryError):
    """This token does not let you {action} in '{name}': ask for one with the scope that WWW-Authenticate names."""


class GrantUnsupported(RegistryError):
    """The grant type '{kind}' is not known here: send 'password' with the API key as the password."""


class Unsupported(RegistryError):
    """{method} is not supported here."""
