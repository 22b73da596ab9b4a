"""HTTPS: the platform's own authority, certificates that people bring, and what of either replicas and jig need.

`authority.py` makes certificates, `names.py` says for whom, `bundle.py` what replicas trust; `keeper.py` keeps all of
it in files and renews it.
"""

from machineshop.tls.keeper import TlsKeeper, open_tls

__all__ = ["TlsKeeper", "open_tls"]
