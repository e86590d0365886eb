"""A running `genprior serve` for tests, and messages of its requests."""

import io
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import uvicorn
from PIL import Image

from genprior.web.jobs import JobQueue
from genprior.web.messages import pack
from genprior.web.restoration import Restorer
from genprior.web.server import application, listen

TOKEN = "token-of-the-tests"


@dataclass(frozen=True)
class Page:
    """Address and queue of a running server."""

    origin: str
    queue: JobQueue

    @property
    def address(self) -> str:
        return f"{self.origin}/{TOKEN}/"


@contextmanager
def serving(restorer: Restorer, max_bytes: int = 2**26) -> Iterator[Page]:
    """Runs a server in a thread."""
    with listen("127.0.0.1", 0) as listener:
        host = f"127.0.0.1:{listener.getsockname()[1]}"
        queue = JobQueue()
        app = application(restorer, TOKEN, frozenset([host]), max_bytes, queue)
        config = uvicorn.Config(app, log_level="critical", access_log=False, ws="none",
                                timeout_graceful_shutdown=1)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: server.run(sockets=[listener]))
        thread.start()
        until(lambda: server.started)
        try:
            yield Page(f"http://{host}", queue)
        finally:
            server.should_exit = True
            thread.join(20)


def until(condition: Any, seconds: float = 20) -> None:
    """Waits until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "the condition did not become true"
        time.sleep(0.02)


def file_of(array: np.ndarray, format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(array).save(file, format)
    return file.getvalue()


def request_of(parts: dict[str, bytes], **settings: Any) -> bytes:
    """A request for a restoration, with few steps."""
    given = {"tool": "denoise", "name": "photo.png", "prior": "tiny", "noise": 0.1} | settings
    return pack({"settings": given}, parts)


def messages_in(data: bytes) -> list[tuple[dict[str, Any], dict[str, bytes]]]:
    """Reads a stream of messages, independently of the package."""
    found = []
    while data:
        line, _, data = data.partition(b"\n")
        about, parts = json.loads(line), {}
        for name, size in about["parts"]:
            parts[name], data = data[:size], data[size:]
        found.append((about, parts))
    return found
