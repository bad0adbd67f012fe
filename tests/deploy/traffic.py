"""Replicas that behave well and badly, and clients that keep them busy until they are told to stop."""

import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import requests
from support import manifests
from support.process import free_port

KEY = "primary-key-of-the-dashboard"
BODY = b'{"data": [1]}'

# Nothing here goes on for longer, whatever a test forgets.
SECONDS_MAX = 90


class Replica:
    """Answers after `seconds`."""

    def __init__(self, seconds):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                self.rfile.read(int(self.headers.get("Content-Length", 0)))
                time.sleep(seconds)
                self.send_response(200)
                self.send_header("Content-Length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_):
                pass

            def handle_one_request(self):
                try:
                    super().handle_one_request()
                except OSError:
                    self.close_connection = True

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class Slammer:
    """Takes connections and closes them before it answers."""

    def __init__(self):
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.run, daemon=True).start()

    def run(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            connection.recv(1)
            connection.close()

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


class World:
    """Endpoints of which each has one kind of trouble."""

    def __init__(self):
        self.replicas = [Replica(0.03), Replica(0.03), Replica(0.01), Slammer(), Replica(0.5)]
        well, twin, shadow, slammer, slow = (replica.port for replica in self.replicas)
        self.objects = [
            *manifests.deployment("iris", "blue", [well, twin], traffic_percent=100, max_queue_wait_ms=5000),
            *manifests.deployment("iris", "green", [shadow], traffic_percent=0, mirror_percent=50),
            *manifests.deployment("resets", "only", [slammer]),
            *manifests.deployment("absent", "only", [free_port(), free_port()]),
            *manifests.deployment("slow", "only", [slow], request_timeout_ms=100, max_queue_wait_ms=50),
            *manifests.deployment("empty", "only", [], max_queue_wait_ms=20),
            *(manifests.keys(name, KEY, KEY + "-2") for name in ["iris", "resets", "absent", "slow", "empty"]),
        ]

    def stop(self):
        for replica in self.replicas:
            replica.stop()


class Crowd:
    """Eight clients of `iris`, more than it has slots, and one of each of the others."""

    def __init__(self, router):
        self.router = router
        self.is_over = threading.Event()
        self.end = time.monotonic() + SECONDS_MAX
        good = {"Authorization": f"Bearer {KEY}"}
        plans = [("iris", good, BODY)] * 8 + [
            (name, good, BODY) for name in ["resets", "absent", "slow", "slow", "empty"]
        ]
        # Refused before a body would be read: without one the connection can be used again in any case.
        plans += [("unknown", good, b""), ("iris", {"Authorization": "Bearer wrong"}, b"")]
        plans += [("iris", {**good, "azureml-model-deployment": "unknown"}, b"")]
        self.pool = ThreadPoolExecutor(len(plans))
        self.clients = [self.pool.submit(self.score, *plan) for plan in plans]

    def score(self, endpoint, headers, body):
        with requests.Session() as session:
            while not self.is_over.is_set() and time.monotonic() < self.end:
                answer = session.post(self.router.scoring_uri(endpoint), data=body, headers=headers, timeout=30)
                if answer.status_code != 200:
                    self.is_over.wait(0.05)

    def stop(self):
        """Ends it; what a client met that is no answer comes up here."""
        self.is_over.set()
        for client in self.clients:
            client.result(30)
        self.pool.shutdown()
