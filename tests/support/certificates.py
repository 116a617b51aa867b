"""Certificates of servers on this machine, which nobody trusts but who is told to."""

import ssl
from datetime import timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from app import clock
from tests.support.access_keys import pem_of
from tests.support.issuer import ec_key


def make_certificate(file: Path) -> ssl.SSLContext:
    """What a server at `localhost` presents; who trusts the certificate in `file` trusts it."""
    key, name = ec_key("tls"), x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    made = (
        x509.CertificateBuilder(name, name, key.private.public_key(), x509.random_serial_number())
        .not_valid_before(clock.now() - timedelta(days=1))
        .not_valid_after(clock.now() + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key.private, hashes.SHA256())
    )
    file.write_text(pem_of(key) + made.public_bytes(Encoding.PEM).decode())
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    return tls
