"""A certification authority that nobody else trusts, for tests of TLS."""

import datetime as dt
import ipaddress
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.ssl import Certificate, ContextFactory, trustRootFromCertificates
from twisted.web.client import BrowserLikePolicyForHTTPS

_BEGIN = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_PEM = serialization.Encoding.PEM
_PLAIN = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
_END = dt.datetime(2120, 1, 1, tzinfo=dt.UTC)


class Authority:
    """Issues certificates.

    Attributes:
        server_key: Makes the keys of those that it issues them to.
    """

    def __init__(self, name: str = "authority of a test") -> None:
        self.server_key: Callable[[], Any] = lambda: ec.generate_private_key(ec.SECP256R1())
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        certificate = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self.certificate = certificate.sign(self._key, hashes.SHA256())

    def _builder(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, end: dt.datetime = _END
    ) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        return builder.serial_number(x509.random_serial_number()).not_valid_before(_BEGIN).not_valid_after(end)

    def issue(self, host: str) -> "ServerContext":
        """What a server for this host's name or address needs."""
        return ServerContext(*self._issue(host))

    def write(
        self, host: str, directory: Path, *, name: str = "a server of a test", end: dt.datetime = _END, **files: str
    ) -> tuple[str, str]:
        """The same as files, for a server that is a program of its own: the certificate's, and the key's."""
        key, certificate = self._issue(host, name, end)
        paths = directory / files.get("certificate", "certificate.pem"), directory / files.get("key", "key.pem")
        paths[0].write_bytes(certificate.public_bytes(_PEM))
        paths[1].touch(0o600)
        paths[1].write_bytes(key.private_bytes(_PEM, *_PLAIN))
        return str(paths[0]), str(paths[1])

    def write_own(self, directory: Path) -> str:
        """Its own certificate as a file, for whoever is to trust it."""
        path = directory / "authority.pem"
        path.write_bytes(self.certificate.public_bytes(_PEM))
        return str(path)

    def below(self) -> "Authority":
        """An authority that this one vouches for."""
        other = Authority("another authority of a test")
        builder = self._builder(other._name, other._key).add_extension(x509.BasicConstraints(True, None), True)
        other.certificate = builder.sign(self._key, hashes.SHA256())
        return other

    def _issue(
        self, host: str, common_name: str = "a server of a test", end: dt.datetime = _END
    ) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = self.server_key()
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        builder = self._builder(subject, key, end).add_extension(x509.SubjectAlternativeName([name]), False)
        return key, builder.sign(self._key, hashes.SHA256())

    def policy(self) -> BrowserLikePolicyForHTTPS:
        """Trusts this authority, and nobody else."""
        pem = self.certificate.public_bytes(serialization.Encoding.PEM)
        return BrowserLikePolicyForHTTPS(trustRootFromCertificates([Certificate.loadPEM(pem)]))


class ServerContext(ContextFactory):
    """What a server needs to speak TLS; Twisted's own makes objects of pyOpenSSL that are deprecated there."""

    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self._context = SSL.Context(SSL.TLS_METHOD)
        self._context.use_certificate(certificate)
        self._context.use_privatekey(key)

    def getContext(self) -> SSL.Context:
        return self._context
