"""Replicas that follow a script: a function that is called with each connection, in a thread of its own."""

import socket
import struct
import threading


class Replica:
    """Listens on a port of loopback, or of another network. Closed with `with`."""

    def __init__(self, script, far=None, port=0):
        self.socket = far.does(lambda: listen(far.address, port)) if far else listen("127.0.0.1", port)
        self.place = self.socket.getsockname()
        self.script = script
        self.connections = []
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                taken, _ = self.socket.accept()
            except OSError:
                return
            taken.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.connections.append(taken)
            threading.Thread(target=self.serve, args=[taken], daemon=True).start()

    def serve(self, taken):
        try:
            self.script(taken)
        except OSError:
            pass
        finally:
            taken.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # Shutting down wakes those who wait; closing alone would not.
        for each in [self.socket, *self.connections]:
            try:
                each.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self.socket.close()


def listen(address, port):
    return socket.create_server((address, port))


def vanish(connection):
    """Ends it without a word to the other side, where a firewall drops the reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def take_request(connection):
    """The body of the next request; `None` at the end of the connection."""
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        if not more:
            return None
        data += more
    head, body = data.split(b"\r\n\r\n", 1)
    fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    while len(body) < int(fields.get(b"content-length", b"0")):
        body += connection.recv(65536)
    return body


def answer(body):
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body)


def echo(connection):
    """Answers each request with its own body."""
    while (body := take_request(connection)) is not None:
        connection.sendall(answer(body))
