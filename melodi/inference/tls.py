"""Whose certificates are believed, and what to do about one that is not."""

import ssl
from functools import cache

from melodi.errors import ConfigError
from melodi.inference.request import Backend


def trust(backend: Backend) -> ssl.SSLContext:
    """What checks a backend's certificate: its own authority, or those of this machine.

    Raises ConfigError where the file of its authority cannot be used.
    """
    if backend.ca is None:
        return _machine()
    try:
        return ssl.create_default_context(cafile=backend.ca)
    except ssl.SSLError:
        reason = "holds no certificates; write them in PEM"
    except OSError as error:
        reason = f"cannot be read ({error.strerror}); make it readable"
    raise ConfigError(f"backend {backend.name}: its ca {backend.ca} {reason}, or mend the path")


def distrust(backend: Backend, error: BaseException | None) -> str | None:
    """What to tell a person whose backend failed to prove itself; None: it was not that."""
    found: ssl.SSLError | None = None
    while error is not None:
        # The innermost one is OpenSSL's own, and says why.
        found = error if isinstance(error, ssl.SSLError) else found
        error = error.__cause__ or error.__context__
    if found is None:
        return None
    reason = getattr(found, "verify_message", None) or found.reason or "TLS failed"
    start = f"backend {backend.name} at {backend.url} cannot be trusted ({reason}): "
    if "mismatch" in reason:
        return start + "put a name that its certificate holds into its url"
    if not isinstance(found, ssl.SSLCertVerificationError):
        return start + "check that it speaks TLS, or write its url with http://"
    return start + "name a file with the certificates that vouch for it as ca in its table"


@cache
def _machine() -> ssl.SSLContext:
    return ssl.create_default_context()
