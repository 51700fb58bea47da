"""Certificate files: what is made of them, and what is said of those that cannot be used."""

import datetime as dt
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from OpenSSL import SSL

from axcollector.core.errors import ConfigError
from axcollector.tls_files import TlsFiles, load_credentials
from tests.certificates import Authority

NOW = dt.datetime(2026, 1, 1, tzinfo=dt.UTC).timestamp()


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    """A certificate and its key, and the authority of clients."""
    authority = Authority()
    return TlsFiles(*authority.write("127.0.0.1", tmp_path), authority.write_own(tmp_path))


def refusal(files: TlsFiles) -> str:
    """Why files cannot be used: one line, which quotes nothing of a key."""
    with pytest.raises(ConfigError) as caught:
        load_credentials(files, NOW)
    message = str(caught.value)
    assert "\n" not in message
    assert "BEGIN ENCRYPTED" not in message
    return message


def test_files_that_are_fine(files: TlsFiles) -> None:
    """Whose certificate it is is told, and there is nothing to warn of; the same files are the same credentials."""
    credentials = load_credentials(files, NOW)
    assert credentials.facts == "CN=a server of a test, valid until 2120-01-01 00:00 UTC"
    assert credentials.warnings == ()
    assert credentials.digest == load_credentials(files, NOW).digest
    without = load_credentials(TlsFiles(files.certificate, files.key), NOW)
    assert without.digest != credentials.digest


def test_what_openssl_is_told(files: TlsFiles) -> None:
    """No renegotiation, no compression, no sessions kept; and clients are told whose certificate is wanted."""
    context = load_credentials(files, NOW).context
    wanted = SSL.OP_NO_RENEGOTIATION | SSL.OP_NO_COMPRESSION | SSL.OP_NO_TICKET
    assert context.set_options(0) & wanted == wanted
    assert context.get_session_cache_mode() == SSL.SESS_CACHE_OFF
    names = SSL.Connection(context, None).get_client_ca_list()
    assert [name.commonName for name in names] == ["authority of a test"]


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca"])
def test_files_that_are_not_there(files: TlsFiles, name: str) -> None:
    """The argument, the file, why, and what to look at."""
    path = getattr(files, name)
    os.rename(path, path + ".old")
    hint = "is the path right, and may this process's user read it?"
    assert refusal(files) == f"{name}={path} cannot be read: No such file or directory; {hint}"
    os.mkdir(path)
    assert refusal(files) == f"{name}={path} cannot be read: Is a directory; {hint}"
    os.rmdir(path)
    os.mkfifo(path)
    assert refusal(files) == f"{name}={path} cannot be read: It is no regular file; {hint}"


@pytest.mark.parametrize("name", ["certificate", "key", "client_ca"])
@pytest.mark.parametrize(
    "change",
    [
        lambda text: b"",
        lambda text: b"\0\xff" * 100,
        lambda text: text[: len(text) // 2],
        lambda text: text.replace(b"M", b"*"),
        lambda text: b"-----BEGIN CERTIFICATE-----\nMAAA\n-----END CERTIFICATE-----\n",
        lambda text: b"-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n",
        lambda text: b"x" * (1 << 20) + b"y",
    ],
)
def test_garbage(files: TlsFiles, name: str, change: Callable[[bytes], bytes]) -> None:
    """What is no PEM file of the right kind is refused by its name, whatever else it is."""
    path = Path(getattr(files, name))
    path.write_bytes(change(path.read_bytes()))
    message = refusal(files)
    assert message.startswith(f"{name}={path} cannot be used: it ")
    assert ("in PEM form, the lines from -----BEGIN " in message) is (path.stat().st_size <= 1 << 20)


def test_the_two_exchanged(files: TlsFiles) -> None:
    """The first that is wrong is named."""
    message = refusal(TlsFiles(files.key, files.certificate))
    assert message.startswith(f"certificate={files.key} cannot be used: it holds no certificate in PEM form")


def test_a_key_of_another_certificate(files: TlsFiles, tmp_path: Path) -> None:
    """Both files are named."""
    _, key = Authority().write("127.0.0.1", tmp_path, certificate="c2.pem", key="k2.pem")
    assert refusal(TlsFiles(files.certificate, key)) == (
        f"key={key} cannot be used: it does not belong to certificate={files.certificate};"
        " give the key that the certificate was asked for with"
    )


def test_a_chain_in_the_wrong_order(files: TlsFiles) -> None:
    """Where the server's certificate is not the first of its file, that is said."""
    own, authority = Path(files.certificate).read_bytes(), Path(files.client_ca or "").read_bytes()
    Path(files.certificate).write_bytes(authority + own)
    assert refusal(files).endswith("it is that of certificate 2 in the file, which has to be the first")


def test_a_key_with_a_passphrase(files: TlsFiles) -> None:
    """Nobody is asked for it: the message says how to write the key without."""
    key = serialization.load_pem_private_key(Path(files.key).read_bytes(), None)
    encrypted = serialization.BestAvailableEncryption(b"x")
    kinds = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    Path(files.key).write_bytes(key.private_bytes(*kinds, encrypted))
    message = refusal(files)
    assert message.startswith(f"key={files.key} cannot be used: it is protected by a passphrase; ")
    assert f"openssl pkey -in {files.key} -out NEW" in message


def test_a_key_that_openssl_finds_too_weak(tmp_path: Path) -> None:
    """What OpenSSL says is passed on."""
    authority = Authority()
    authority.server_key = lambda: rsa.generate_private_key(65537, 1024)
    message = refusal(TlsFiles(*authority.write("127.0.0.1", tmp_path)))
    assert "certificate.pem cannot be used: OpenSSL does not take it (ee key too small)" in message


def test_dates(tmp_path: Path) -> None:
    """An expired certificate, and one of the future, is used and warned of: clients decide."""
    end = dt.datetime(2025, 5, 6, 7, 8, tzinfo=dt.UTC)
    files = TlsFiles(*Authority().write("127.0.0.1", tmp_path, end=end))
    (warning,) = load_credentials(files, NOW).warnings
    assert warning == (
        f"certificate={files.certificate} expired at 2025-05-06 07:08 UTC: most clients refuse it;"
        " put a new one there and send SIGHUP"
    )
    assert load_credentials(files, end.timestamp()).warnings == ()
    (warning,) = load_credentials(files, 0).warnings
    assert "is not valid before 2020-01-01 00:00 UTC" in warning


@pytest.mark.parametrize(
    ("mode", "warned"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True), (0o602, True)]
)
def test_modes(files: TlsFiles, mode: int, warned: bool) -> None:
    """A key that everybody can read is warned of; a group may be there to read it."""
    os.chmod(files.key, mode)
    expected = (f"key={files.key} can be read by everybody (mode {mode:04o}): chmod o= {files.key}",)
    assert load_credentials(files, NOW).warnings == (expected if warned else ())
