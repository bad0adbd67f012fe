"""A model server whose answers are written by the test, in the test's own process."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Exchange(BaseHTTPRequestHandler):
    """One request, as the test's script sees it."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        self.server.script(self)

    do_GET = do_POST

    def body(self):
        """The whole body, however it is framed."""
        if "Transfer-Encoding" in self.headers:
            return b"".join(self.chunks())
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def chunks(self):
        """The chunks of the body, as they come."""
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def answer(self, body, **headers):
        """An answer at once."""
        self.send_response(200)
        self._headers(headers)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def stream(self, chunks, **headers):
        """An answer in chunks, each sent as soon as there is one."""
        self.send_response(200)
        self._headers(headers)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for chunk in chunks:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(chunk), chunk))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _headers(self, headers):
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)

    def log_message(self, *_):
        pass


class Replica:
    """Serves until it is stopped. Every test sets its own `script`."""

    def __init__(self):
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Exchange)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    def run(self, script):
        """Answers by this script from now on: a function of an exchange."""
        self._server.script = script

    def stop(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def show_headers(exchange):
    """Sends back the headers that came, one a line."""
    exchange.body()
    exchange.answer("".join(f"{name.lower()}: {value}\n" for name, value in exchange.headers.items()).encode())
