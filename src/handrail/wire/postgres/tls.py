"""TLS on both sides of a guard: what libpq would ask of a server, and a certificate of our own.

Rules:
- A server is verified as libpq does it: with a root certificate its chain, in every mode that
  encrypts; with `verify-full` its name too.
- What cannot be loaded refuses; nothing falls back to less.
- The guard's own certificate is made for one run; its key is in memory, and for a moment in a
  private file, because that is how keys are loaded.
"""

from __future__ import annotations

import datetime as dt
import ipaddress
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from handrail.errors import StoreError

_NAMES = ("localhost", "127.0.0.1", "::1")
_VALID_DAYS = 30
_VERSIONS = {
    "tlsv1": ssl.TLSVersion.TLSv1,
    "tlsv1.1": ssl.TLSVersion.TLSv1_1,
    "tlsv1.2": ssl.TLSVersion.TLSv1_2,
    "tlsv1.3": ssl.TLSVersion.TLSv1_3,
}
PROTOCOL = "postgresql"


def context_for(given: Mapping[str, str], home: Path) -> ssl.SSLContext:
    """Return how TLS with a server begins, from libpq's parameters; `home` has its default files.

    Raises:
        StoreError: a file of it cannot be read, or a needed one is missing.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        _set_versions(context, given)
        context.set_alpn_protocols([PROTOCOL])
        _set_roots(context, given, home)
        if given.get("sslcertmode") != "disable":
            _set_certificate(context, given, home)
    except (OSError, ValueError, KeyError) as error:
        raise StoreError(
            "store.url",
            f"the settings for TLS cannot be used: {error}",
            hint="check sslrootcert, sslcert, sslkey and sslcrl of the store's address",
        ) from error
    return context


def _set_versions(context: ssl.SSLContext, given: Mapping[str, str]) -> None:
    context.minimum_version = _VERSIONS[given.get("ssl_min_protocol_version", "TLSv1.2").lower()]
    if highest := given.get("ssl_max_protocol_version"):
        context.maximum_version = _VERSIONS[highest.lower()]


def _set_roots(context: ssl.SSLContext, given: Mapping[str, str], home: Path) -> None:
    """Verify the server where there is something to verify it with."""
    mode = given.get("sslmode", "prefer")
    root = given.get("sslrootcert") or str(home / "root.crt")
    if root == "system":
        if mode != "verify-full":
            raise ValueError("sslrootcert=system needs sslmode=verify-full")
        context.load_default_certs()
    elif Path(root).is_file():
        context.load_verify_locations(root)
        _set_revoked(context, given, home)
    elif mode.startswith("verify-"):
        raise ValueError(f"the root certificate {root} does not exist")
    else:
        return
    context.verify_mode = ssl.CERT_REQUIRED
    context.check_hostname = mode == "verify-full"


def _set_revoked(context: ssl.SSLContext, given: Mapping[str, str], home: Path) -> None:
    revoked = given.get("sslcrl")
    folder = given.get("sslcrldir")
    if not revoked and not folder and (home / "root.crl").is_file():
        revoked = str(home / "root.crl")
    if revoked or folder:
        context.load_verify_locations(cafile=revoked or None, capath=folder or None)
        context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_CHAIN


def _set_certificate(context: ssl.SSLContext, given: Mapping[str, str], home: Path) -> None:
    certificate = given.get("sslcert") or str(home / "postgresql.crt")
    if "sslcert" not in given and not Path(certificate).is_file():
        return
    key = given.get("sslkey") or str(home / "postgresql.key")
    # An empty password, so that nobody is asked at the terminal.
    context.load_cert_chain(certificate, key, given.get("sslpassword", ""))


def end_point(certificate: bytes) -> bytes | None:
    """Return what binds to a server's certificate (`tls-server-end-point`); None where none can.

    Source: RFC 5929, 4.1.
    """
    try:
        found = x509.load_der_x509_certificate(certificate).signature_hash_algorithm
    except (UnsupportedAlgorithm, ValueError):
        return None
    if found is None:
        return None
    weak = isinstance(found, hashes.MD5 | hashes.SHA1)
    digest = hashes.Hash(hashes.SHA256() if weak else found)
    digest.update(certificate)
    return digest.finalize()


def certificate() -> tuple[ssl.SSLContext, str]:
    """Return a context with a new certificate of our own for this machine, and the certificate."""
    key = ec.generate_private_key(ec.SECP256R1())
    pem = _sign(key).public_bytes(Encoding.PEM)
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    with tempfile.NamedTemporaryFile(prefix="handrail-") as file:  # 0600
        file.write(pem + secret)
        file.flush()
        context.load_cert_chain(file.name)
    return context, pem.decode()


def _sign(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "handrail guard")])
    now = dt.datetime.now(dt.UTC)
    names = [_general(word) for word in _NAMES]
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=_VALID_DAYS))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )


def _general(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
