"""How strict the client is about the server's certificate, and what it says when it refuses one."""

from __future__ import annotations

import ssl
from pathlib import Path

from appliance.client.failures import CertificateError

# Verification results of OpenSSL (x509_vfy.h) on which a person can act.
_EXPIRED = 10
_NOT_YET_VALID = 9
_UNKNOWN_ISSUER = frozenset({2, 18, 19, 20, 21, 27})
_OTHER_NAME = frozenset({62, 64})


def tls_context(ca: Path | None, *, verify: bool) -> ssl.SSLContext:
    """TLS 1.2 or later; the certificate checked against `ca`, or the system's authorities, and for its name.

    :raises CertificateError: `ca` cannot be used
    """
    try:
        context = ssl.create_default_context(cafile=None if ca is None else str(ca))
    except ssl.SSLError as exc:
        raise CertificateError(f"cannot use --ca {ca}: it holds no PEM certificate") from exc
    except OSError as exc:
        raise CertificateError(f"cannot use --ca {ca}: {exc.strerror}") from exc
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def untrusted(host: str, exc: ssl.SSLCertVerificationError) -> CertificateError:
    """Why the certificate of `host` was refused, and what to do."""
    code = exc.verify_code
    if code in _OTHER_NAME:
        reason, remedy = f"it is not for {host}", "use the name or address the certificate is for"
    elif code == _EXPIRED:
        reason, remedy = "it has expired", "the administrator must renew it"
    elif code == _NOT_YET_VALID:
        reason, remedy = "it is not valid yet", "compare the clocks of both machines"
    elif code in _UNKNOWN_ISSUER:
        reason = "it is not signed by an authority known here"
        remedy = "get the server's certificate from its administrator and give it with --ca"
    else:
        reason, remedy = exc.verify_message, "tell the administrator"
    return CertificateError(
        f"the certificate of {host} is not trusted: {reason}", hint=f"{remedy}; -n connects unchecked"
    )
