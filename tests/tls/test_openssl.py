"""OpenSSL's client and curl, which share no code with the router."""

import os
import subprocess
import threading

import requests
from conftest import NAME
from support.process import eventually, need


def s_client(router, authority, *arguments, name=NAME):
    """What `openssl s_client` prints about a handshake."""
    done = subprocess.run(
        [need("openssl", "apt-get install openssl"), "s_client", "-connect", f"127.0.0.1:{router.port}"]
        + ["-servername", name, "-CAfile", str(authority.file), "-verify_hostname", name, *map(str, arguments)],
        input=b"",
        capture_output=True,
        timeout=30,
    )
    return (done.stdout + done.stderr).decode(errors="replace")


def curl(router, authority, *arguments, url=None):
    """Exit code and output of curl."""
    resolve = [word for port in (router.port, router.plain_port) for word in ("--resolve", f"{NAME}:{port}:127.0.0.1")]
    done = subprocess.run(
        [need("curl", "apt-get install curl"), "-sS", "--cacert", authority.file, *resolve, *arguments]
        + [url or router.url()],
        capture_output=True,
        timeout=30,
    )
    return done.returncode, done.stdout.decode(), done.stderr.decode()


def test_versions_from_1_2_on_are_spoken_with_forward_secrecy(start, authority):
    router = start(*authority.issue("own-ecdsa"), *authority.issue("own-rsa", kind="rsa"))
    for version in ("tls1_2", "tls1_3"):
        printed = s_client(router, authority, f"-{version}", "-alpn", "h2,http/1.1")
        assert "Verify return code: 0 (ok)" in printed and "ALPN protocol: h2" in printed, printed
    assert "Verify return code: 0 (ok)" in s_client(router, authority, "-tls1_2", "-sigalgs", "RSA-PSS+SHA256")
    for refused in (["-tls1_1", "-cipher", "DEFAULT@SECLEVEL=0"], ["-tls1_2", "-cipher", "AES128-SHA"]):
        assert "Cipher is (NONE)" in s_client(router, authority, *refused)


def test_the_name_chooses_the_certificate(start, authority):
    router = start(*authority.issue("own-ecdsa"), *authority.issue("other", "other.test", "*.wild.test"))
    for name in ("other.test", "a.wild.test", NAME):
        assert "Verify return code: 0 (ok)" in s_client(router, authority, name=name)


def test_a_session_is_resumed_by_every_worker(start, authority, tmp_path):
    router = start(*authority.issue("own-ecdsa"))
    for version in ("-tls1_2", "-tls1_3"):
        session = tmp_path / f"session{version}"
        # With TLS 1.3 the ticket comes after the handshake: an answer is waited for.
        script = f'(printf "GET / HTTP/1.1\\r\\nHost: {NAME}\\r\\nConnection: close\\r\\n\\r\\n"; sleep 1)'
        script += f" | openssl s_client -connect 127.0.0.1:{router.port} -servername {NAME} -ign_eof {version}"
        subprocess.run(f"{script} -sess_out {session}", shell=True, capture_output=True, check=True, timeout=30)
        for _ in range(4):
            assert "Reused, " in s_client(router, authority, version, "-sess_in", session)


def test_curl_is_served_with_both_protocols(start, authority):
    router = start(*authority.issue("own-ecdsa"))
    body = "x" * 100_000
    for protocol in ("1.1", "2"):
        code, printed, error = curl(
            router, authority, f"--http{protocol}", "-d", body, "-w", "%{http_code} %{http_version}"
        )
        assert (code, printed) == (0, f"{body}200 {protocol}"), error


def test_large_bodies_arrive_whole_both_ways(start, authority, tmp_path):
    router = start(*authority.issue("own-ecdsa"))
    sent, got = tmp_path / "sent", tmp_path / "got"
    sent.write_bytes(os.urandom(20 << 20))
    for arguments in (["--http1.1"], ["--http2"], ["--http1.1", "--tls-max", "1.2"]):
        code, _, error = curl(router, authority, *arguments, "--data-binary", f"@{sent}", "-o", got)
        assert code == 0 and got.read_bytes() == sent.read_bytes(), (arguments, error)


def test_curl_follows_the_redirect_with_its_body(start, authority):
    router = start(*authority.issue("own-ecdsa"))
    redirecting = start(*authority.issue("own-ecdsa"), "--redirect-to-https", str(router.port))
    url = f"http://{NAME}:{redirecting.plain_port}/api/v1/endpoint/echo/score"
    resolve = ["--resolve", f"{NAME}:{router.port}:127.0.0.1"]
    code, printed, error = curl(redirecting, authority, *resolve, "-L", "-d", "scored", "-w", " %{http_code}", url=url)
    assert (code, printed) == (0, "scored 200"), error


def test_a_client_certificate_is_asked_for_and_passed_on(start, authority):
    own = authority.issue("own-ecdsa")
    router = start(*own, "--client-ca", authority.file)
    _, certificate, _, key = authority.issue("client", "batch.test", subject="batch")
    # With TLS 1.3 a client learns after its handshake that it was refused: it says so, or that nobody is there any more.
    assert curl(router, authority, "-d", "x")[:2] in [(code, "") for code in (35, 52, 55, 56)]
    code, printed, error = curl(router, authority, "-i", "-d", "x", "--cert", certificate, "--key", key)
    assert code == 0, error
    assert 'Subject="CN=batch";DNS=batch.test' in printed and "saw-x-forwarded-proto: https" in printed.lower()


def test_no_request_fails_while_certificates_are_renewed(start, authority):
    router = start(*authority.issue("renewed"))
    url = router.url().replace(NAME, "127.0.0.1")
    stop, failures, served = threading.Event(), [], []

    def ask(keeps):
        session = requests.Session()
        while not stop.is_set():
            if not keeps:
                session = requests.Session()
            try:
                # Whose certificate it is the other tests check: here the address is not in it.
                answer = session.post(url, data=b"x", timeout=10, verify=False)
                served.append(answer.status_code)
            except requests.RequestException as error:
                failures.append(error)

    threads = [threading.Thread(target=ask, args=(number % 2 == 0,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        serials = set()
        for renewal in range(3):
            authority.issue("renewed", kind="rsa" if renewal == 1 else "ecdsa")
            wanted = subprocess.run(
                ["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", authority.folder / "renewed.crt"],
                capture_output=True,
                check=True,
            ).stdout.decode()
            wanted = wanted.split("=")[1].strip().replace(":", "").lower()
            eventually(
                lambda: requests.get(f"{router.admin_url}/debug/certificates", timeout=5).json()[0]["in_use"]["sha256"]
                == wanted,
                "the renewed certificate is in use",
            )
            serials.add(wanted)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == [] and set(served) == {200} and len(serials) == 3
