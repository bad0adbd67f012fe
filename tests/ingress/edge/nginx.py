"""A real nginx with the configuration that ingress-nginx makes by default of an Ingress for the router.

There the addresses of the backends are changed at once by a program inside nginx; here they are in the configuration,
which is loaded anew. What else is different between the hosts is what annotations on an Ingress can change.
"""

import os
import signal
import subprocess
from pathlib import Path

from support.process import Process, eventually, free_port, need

# By host: directives in the place of the defaults.
HOSTS = {
    "scoring.test": {},
    # nginx.ingress.kubernetes.io/proxy-buffering: "on"
    "buffered.test": {"proxy_buffering": "on"},
    # nginx.ingress.kubernetes.io/proxy-request-buffering: "off"
    "uploads.test": {"proxy_request_buffering": "off"},
    # An ingress that is not among the trusted proxies. nginx would lend it the connections of the others.
    "stranger.test": {"proxy_bind": "127.0.0.9", "proxy_pass": "http://routers_of_strangers"},
}

DEFAULTS = {
    "client_max_body_size": "1m",
    "proxy_connect_timeout": "5s",
    "proxy_send_timeout": "60s",
    "proxy_read_timeout": "60s",
    "proxy_buffering": "off",
    "proxy_buffer_size": "4k",
    "proxy_buffers": "4 4k",
    "proxy_request_buffering": "on",
    "proxy_http_version": "1.1",
    "proxy_next_upstream": "error timeout",
    "proxy_next_upstream_tries": "3",
    "proxy_redirect": "off",
    "proxy_pass": "http://routers",
}

HEADERS = {
    "Host": "$http_host",
    "Upgrade": "$http_upgrade",
    "Connection": "$connection_upgrade",
    "X-Request-ID": "$req_id",
    "X-Real-IP": "$remote_addr",
    "X-Forwarded-For": "$remote_addr",
    "X-Forwarded-Host": "$http_host",
    "X-Forwarded-Port": "$server_port",
    "X-Forwarded-Proto": "$scheme",
    "X-Scheme": "$scheme",
    "X-Original-Forwarded-For": "$http_x_forwarded_for",
    "Proxy": '""',
}


class Nginx:
    """In front of routers, at a port without TLS and one with."""

    def __init__(self, folder, routers):
        self.folder = Path(folder)
        self.port, self.tls_port = free_port(), free_port()
        self.certificate = self.folder / "edge.pem"
        self._generation = 0
        self._make_certificate()
        self._write(routers)
        arguments = [need("nginx", "apt-get install nginx"), "-e", "stderr", "-c", self.folder / "nginx.conf"]
        self.process = Process("nginx", arguments, folder)
        self.process.wait_until_ready(f"http://127.0.0.1:{self.port}/generation-0")

    def send_to(self, routers):
        """Other routers from now on, as after a change of the endpoints."""
        self._write(routers)
        os.kill(self.process.child.pid, signal.SIGHUP)

    def ids(self):
        """The request ids that it gave or took, in order."""
        log = self.folder / "ids.log"
        return log.read_text().split() if log.exists() else []

    def id_after(self, known):
        """The one id that is new since there were `known`."""
        new = eventually(lambda: self.ids()[known:], "nginx has not logged the request")
        assert len(new) == 1, new
        return new[0]

    def stop(self):
        assert self.process.stop() == 0, self.process.printed()

    def _make_certificate(self):
        names = ",".join(f"DNS:{host}" for host in HOSTS)
        arguments = [need("openssl", "apt-get install openssl"), "req", "-x509", "-nodes", "-days", "2"]
        arguments += ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-subj", "/CN=scoring.test"]
        arguments += ["-addext", f"subjectAltName={names}"]
        arguments += ["-keyout", self.folder / "edge.key", "-out", self.certificate]
        subprocess.run(arguments, check=True, capture_output=True, timeout=60)

    def _write(self, routers):
        places = "".join(f"server {router.url.removeprefix('http://')};\n" for router in routers)
        text = TEMPLATE.format(
            user="user root;" if os.getuid() == 0 else "",
            folder=self.folder,
            places=places,
            servers="".join(self._server(host, changes) for host, changes in HOSTS.items()),
        )
        draft = self.folder / "nginx.draft"
        draft.write_text(text)
        draft.rename(self.folder / "nginx.conf")
        self._generation += 1

    def _server(self, host, changes):
        directives = "".join(f"{name} {value};\n" for name, value in (DEFAULTS | changes).items())
        headers = "".join(f"proxy_set_header {name} {value};\n" for name, value in HEADERS.items())
        return f"""
server {{
    server_name {host};
    listen 127.0.0.1:{self.port};
    listen 127.0.0.1:{self.tls_port} ssl http2;
    ssl_certificate {self.certificate};
    ssl_certificate_key {self.folder}/edge.key;
    ssl_protocols TLSv1.2 TLSv1.3;
    location = /generation-{self._generation} {{ return 200; }}
    location / {{
        {directives}{headers}
    }}
}}
"""


TEMPLATE = """
daemon off;
{user}
pid {folder}/nginx.pid;
error_log stderr notice;
worker_processes 2;
worker_shutdown_timeout 240s;
events {{ worker_connections 1024; multi_accept on; }}
http {{
    log_format ids $req_id;
    access_log {folder}/ids.log ids if=$counts;
    map $uri $counts {{ default 1; ~^/generation- 0; }}
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server_tokens off;
    tcp_nopush on;
    tcp_nodelay on;
    keepalive_timeout 75s;
    keepalive_requests 100;
    client_header_buffer_size 1k;
    large_client_header_buffers 4 8k;
    client_body_buffer_size 8k;
    ssl_buffer_size 4k;
    # An id that the client brings is passed on; without one nginx makes one.
    map $http_x_request_id $req_id {{ default $http_x_request_id; "" $request_id; }}
    # Empty where nothing is upgraded, so that connections to the routers are kept.
    map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
    upstream routers {{
        {places}
        keepalive 320;
        keepalive_time 1h;
        keepalive_timeout 60s;
        keepalive_requests 10000;
    }}
    upstream routers_of_strangers {{
        {places}
    }}
    {servers}
}}
"""
