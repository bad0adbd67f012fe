"""An authority for the session, a replica, and routers that listen with TLS."""

import datetime
import http.server
import os
import threading
from pathlib import Path

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from support import manifests
from support.process import Process, free_port
from support.router import binary

# Everything here is on loopback: a proxy of the environment has no part in it.
os.environ["NO_PROXY"] = "*"

NAME = "models.test"


class Authority:
    """Signs certificates and puts them into files."""

    def __init__(self, folder):
        self.folder = folder
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority of the tests")])
        usage = dict.fromkeys(
            ["digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement"]
            + ["encipher_only", "decipher_only"],
            False,
        )
        extensions = [
            (x509.BasicConstraints(ca=True, path_length=None), True),
            (x509.KeyUsage(key_cert_sign=True, crl_sign=True, **usage), True),
            (x509.SubjectKeyIdentifier.from_public_key(self.key.public_key()), False),
        ]
        self.certificate = self.sign(self.name, self.key.public_key(), extensions)
        self.file = folder / "ca.crt"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def sign(self, subject, public_key, extensions):
        now = datetime.datetime.now(datetime.timezone.utc)
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self.name)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=60))
        )
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, file, *names, kind="ecdsa", subject=NAME):
        """Writes FILE.crt and FILE.key, and gives the arguments that name them."""
        key = ec.generate_private_key(ec.SECP256R1()) if kind == "ecdsa" else rsa.generate_private_key(65537, 2048)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, subject)])
        extensions = [
            (x509.SubjectAlternativeName([x509.DNSName(name) for name in names or (NAME,)]), False),
            (x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()), False),
        ]
        certificate = self.sign(subject, key.public_key(), extensions)
        pem, pkcs8 = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
        for end, content in [
            ("crt", certificate.public_bytes(pem)),
            ("key", key.private_bytes(pem, pkcs8, serialization.NoEncryption())),
        ]:
            draft = self.folder / f"{file}.{end}.draft"
            draft.write_bytes(content)
            draft.rename(self.folder / f"{file}.{end}")
        return ["--tls-cert", self.folder / f"{file}.crt", "--tls-key", self.folder / f"{file}.key"]


@pytest.fixture(scope="session")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was sent, and says which headers came."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        for name in ("X-Forwarded-Proto", "X-Forwarded-Client-Cert"):
            self.send_header(f"Saw-{name}", self.headers.get(name, "nothing"))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture(scope="session")
def replica():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()


SETTINGS = {"auth_mode": "none", "max_concurrent_requests_per_instance": 0, "request_timeout_ms": 20000}


class TlsRouter:
    """A running `scorefront serve` that listens with TLS and without."""

    def __init__(self, folder, replica, arguments, objects=()):
        source = Path(folder) / "manifests"
        source.mkdir()
        objects = objects or manifests.deployment("echo", "only", [replica], **SETTINGS)
        (source / "all.yaml").write_text(yaml.safe_dump_all(objects))
        self.port, self.plain_port, admin = free_port(), free_port(), free_port()
        self.admin_url = f"http://127.0.0.1:{admin}"
        fixed = ["--listen-tls", f"127.0.0.1:{self.port}", "--listen", f"127.0.0.1:{self.plain_port}"]
        fixed += ["--admin", f"127.0.0.1:{admin}", "--source", f"manifests:{source}", "--workers", "2"]
        fixed += ["--access-log", Path(folder) / "access.log", "--drain-grace-ms", "100"]
        self.process = Process("scorefront", [binary(), "serve", *fixed, *arguments], folder)
        try:
            self.process.wait_until_ready(f"{self.admin_url}/readyz")
        except BaseException:
            self.process.stop()
            raise

    def url(self, path="/api/v1/endpoint/echo/score"):
        return f"https://{NAME}:{self.port}{path}"


@pytest.fixture
def start(tmp_path, replica):
    """Starts routers with more arguments; each must end well."""
    running = []

    def start_one(*arguments, objects=()):
        folder = tmp_path / f"router-{len(running)}"
        folder.mkdir()
        running.append(TlsRouter(folder, replica, arguments, objects))
        return running[-1]

    yield start_one
    for router in running:
        code = router.process.stop()
        assert code == 0, f"the router ended with {code} after SIGTERM:\n{router.process.printed()}"
