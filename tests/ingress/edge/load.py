"""Open-loop load: requests start when they are due, however long others take, and every one is accounted for."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from .client import ask

PER_SECOND = 50


class Load:
    """Runs from its beginning until `finish`. Each request has a connection of its own."""

    def __init__(self, port, certificate=None):
        self._port, self._certificate = port, certificate
        self._pool = ThreadPoolExecutor(max_workers=64)
        self._over = threading.Event()
        self._futures = []
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self):
        start = time.monotonic()
        while not self._over.wait(max(0.0, start + len(self._futures) / PER_SECOND - time.monotonic())):
            self._futures.append(self._pool.submit(self._one))

    def _one(self):
        try:
            status, headers, _ = ask(self._port, certificate=self._certificate)
            return status, headers["x-request-id"]
        except Exception as error:  # Whatever it is, the client got no answer.
            return repr(error), None

    def answered(self):
        return sum(future.done() for future in self._futures)

    def finish(self):
        """Waits for what is under way. The outcomes, one for each request that was started."""
        self._over.set()
        self._thread.join()
        self._pool.shutdown(wait=True)
        return [future.result() for future in self._futures]
