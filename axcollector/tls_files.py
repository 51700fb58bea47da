"""Certificates, keys and authorities of clients: from PEM files to what TLS needs, with one line on what is wrong.

The files are read here, whole, and given to OpenSSL as objects, because OpenSSL itself would ask the terminal for a
passphrase, and has one text for most of what can be wrong. What is refused here would fail each handshake; what clients
may or may not mind, such as the date, is only warned of.
"""

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from OpenSSL import SSL
from OpenSSL.crypto import X509, Error, X509StoreFlags

from axcollector.core.errors import ConfigError
from axcollector.regular import regular

CIPHERS: Final = b"ECDHE+AESGCM:ECDHE+CHACHA20"
"""For TLS 1.2: forward secrecy and authenticated encryption only. Those of TLS 1.3 are all of that kind."""
_LONGEST_FILE_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The paths of the files that an endpoint needs.

    Attributes:
        certificate: The server's certificate, and behind it those that lead to the authority's.
        key: Its private key.
        client_ca: The authorities of clients' certificates; None: clients need none.
    """

    certificate: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class Credentials:
    """What was made of the files.

    Attributes:
        context: What connections are made with.
        digest: Of what the files held; equal where nothing has changed.
        facts: Whose certificate it is, and until when, in a few words.
        warnings: What somebody should look at, a sentence each.
    """

    context: SSL.Context
    digest: bytes
    facts: str
    warnings: tuple[str, ...]


def load_credentials(files: TlsFiles, now: float) -> Credentials:
    """Read the files. Blocking.

    Args:
        files: Their paths.
        now: Seconds since the epoch.

    Raises:
        ConfigError: They cannot be used; the message says which file, and what to do.
    """
    texts = [_read("certificate", files.certificate), _read("key", files.key)]
    chain = _certificates("certificate", files.certificate, texts[0])
    key = _key(files, texts[1], chain)
    context = SSL.Context(SSL.TLS_SERVER_METHOD)
    context.set_min_proto_version(SSL.TLS1_2_VERSION)
    context.set_cipher_list(CIPHERS)
    context.set_options(SSL.OP_NO_COMPRESSION | SSL.OP_NO_RENEGOTIATION | SSL.OP_CIPHER_SERVER_PREFERENCE)
    context.set_session_cache_mode(SSL.SESS_CACHE_OFF)
    try:
        context.use_certificate(chain[0])
        context.use_privatekey(key)
        for certificate in chain[1:]:
            context.add_extra_chain_cert(certificate)
    except (SSL.Error, TypeError, ValueError) as exc:
        raise _unusable("certificate", files.certificate, f"OpenSSL does not take it ({_said(exc)})") from exc
    warnings = [*_about_date("certificate", files.certificate, chain[0], now), *_about_mode(files.key)]
    if files.client_ca is not None:
        texts.append(_read("client_ca", files.client_ca))
        authorities = _certificates("client_ca", files.client_ca, texts[2])
        _ask_clients(context, files.client_ca, authorities)
        for each in authorities:
            warnings += _about_date("client_ca", files.client_ca, each, now)
    digest = hashlib.sha256(b"".join(hashlib.sha256(text).digest() for text in texts)).digest()
    return Credentials(context, digest, _facts(chain[0]), tuple(warnings))


def _ask_clients(context: SSL.Context, path: str, authorities: Sequence[x509.Certificate]) -> None:
    """Refuse clients without a certificate of these authorities, in the handshake; their order is of no account."""
    store: Any = context.get_cert_store()
    try:
        for each in authorities:
            store.add_cert(X509.from_cryptography(each))
            context.add_client_ca(each)
    except (SSL.Error, Error, ValueError) as exc:
        raise _unusable("client_ca", path, f"OpenSSL does not take it ({_said(exc)})") from exc
    # An authority that another one vouches for is believed by itself, without that one: it is the one that was named.
    store.set_flags(X509StoreFlags.PARTIAL_CHAIN)
    context.set_verify(SSL.VERIFY_PEER | SSL.VERIFY_FAIL_IF_NO_PEER_CERT)
    # A session that is taken up again would not be looked at again.
    context.set_options(SSL.OP_NO_TICKET)


def _read(name: str, path: str) -> bytes:
    try:
        with open(path, "rb", opener=regular) as file:
            text = file.read(_LONGEST_FILE_BYTES + 1)
    except OSError as exc:
        hint = "is the path right, and may this process's user read it?"
        raise ConfigError(f"{name}={path} cannot be read: {exc.strerror}; {hint}") from exc
    if len(text) > _LONGEST_FILE_BYTES:
        raise _unusable(name, path, "it is larger than 1 MiB")
    return text


def _certificates(name: str, path: str, text: bytes) -> Sequence[x509.Certificate]:
    try:
        found = x509.load_pem_x509_certificates(text)
    except ValueError as exc:
        problem = "it holds no certificate in PEM form, the lines from -----BEGIN CERTIFICATE----- on"
        raise _unusable(name, path, problem) from exc
    return found


def _key(files: TlsFiles, text: bytes, chain: Sequence[x509.Certificate]):  # type: ignore[no-untyped-def]  # noqa: ANN202 - of many kinds
    """The private key, which has to be that of the first certificate."""
    try:
        key = load_pem_private_key(text, None)
        owned = _bytes_of(key.public_key())
    except TypeError:
        hint = f"write it without one, for this process's user alone: openssl pkey -in {files.key} -out NEW"
        raise _unusable("key", files.key, f"it is protected by a passphrase; {hint}") from None
    except (ValueError, UnsupportedAlgorithm):
        # The cause is left out: its text may quote the file.
        problem = "it holds no private key in PEM form, the lines from -----BEGIN PRIVATE KEY----- on"
        raise _unusable("key", files.key, problem) from None
    keys = [_bytes_of(certificate.public_key()) for certificate in chain]
    if owned == keys[0]:
        return key
    hint = "give the key that the certificate was asked for with"
    if owned in keys:
        hint = f"it is that of certificate {keys.index(owned) + 1} in the file, which has to be the first"
    raise _unusable("key", files.key, f"it does not belong to certificate={files.certificate}; {hint}")


def _bytes_of(key: PublicKeyTypes) -> bytes:
    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _about_date(name: str, path: str, certificate: x509.Certificate, now: float) -> list[str]:
    moment = datetime.fromtimestamp(now, UTC)
    if moment > certificate.not_valid_after_utc:
        what = f"expired at {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"
    elif moment < certificate.not_valid_before_utc:
        what = f"is not valid before {certificate.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
    else:
        return []
    return [f"{name}={path} {what}: most clients refuse it; put a new one there and send SIGHUP"]


def _about_mode(path: str) -> list[str]:
    try:
        mode = stat.S_IMODE(os.stat(path).st_mode)
    except OSError:  # it was there a moment ago, and has been read
        return []
    return [f"key={path} can be read by everybody (mode {mode:04o}): chmod o= {path}"] if mode & 0o007 else []


def _facts(certificate: x509.Certificate) -> str:
    subject = certificate.subject.rfc4514_string() or "a certificate without subject"
    return f"{subject}, valid until {certificate.not_valid_after_utc:%Y-%m-%d %H:%M} UTC"


def _unusable(name: str, path: str, problem: str) -> ConfigError:
    return ConfigError(f"{name}={path} cannot be used: {problem}")


def _said(problem: Exception) -> str:
    """What OpenSSL said last, or the exception's own text."""
    if isinstance(problem, SSL.Error) and problem.args and problem.args[0]:
        return str(problem.args[0][-1][-1])
    return str(problem) or type(problem).__name__
