"""A certification authority that nobody else trusts, for tests of TLS."""

import datetime as dt
import ipaddress
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from OpenSSL import SSL
from twisted.internet.ssl import Certificate, ContextFactory, trustRootFromCertificates
from twisted.web.client import BrowserLikePolicyForHTTPS

_BEGIN = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_END = dt.datetime(2120, 1, 1, tzinfo=dt.UTC)


class Authority:
    """Issues certificates."""

    def __init__(self) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of a test")])
        certificate = self._builder(self._name, self._key).add_extension(x509.BasicConstraints(True, None), True)
        self.certificate = certificate.sign(self._key, hashes.SHA256())

    def _builder(self, name: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
        builder = x509.CertificateBuilder().subject_name(name).issuer_name(self._name).public_key(key.public_key())
        return builder.serial_number(x509.random_serial_number()).not_valid_before(_BEGIN).not_valid_after(_END)

    def issue(self, host: str) -> "ServerContext":
        """What a server for this host's name or address needs."""
        return ServerContext(*self._issue(host))

    def write(self, host: str, directory: Path) -> tuple[str, str]:
        """The same as files, for a server that is a program of its own: the certificate's, and the key's."""
        key, certificate = self._issue(host)
        pem = serialization.Encoding.PEM
        plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        (directory / "certificate.pem").write_bytes(certificate.public_bytes(pem))
        (directory / "key.pem").write_bytes(key.private_bytes(pem, *plain))
        return str(directory / "certificate.pem"), str(directory / "key.pem")

    def _issue(self, host: str) -> tuple[ec.EllipticCurvePrivateKey, x509.Certificate]:
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            name: x509.GeneralName = x509.IPAddress(ipaddress.ip_address(host))
        except ValueError:
            name = x509.DNSName(host)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a server of a test")])
        builder = self._builder(subject, key).add_extension(x509.SubjectAlternativeName([name]), False)
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
