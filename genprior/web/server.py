"""Server of the page: three addresses under a token, and nothing kept after a request.

    GET  /TOKEN/          the page
    GET  /TOKEN/settings  priors, solvers and limits, JSON
    POST /TOKEN/open      image file -> facts, and the image as PNG
    POST /TOKEN/restore   settings, image, mask -> a stream of messages: progress, then the result

A restoration is one request: if the page closes or stops, the connection ends and so does the job.
Uploads and results are in memory only; requests hold no paths and no URLs.
"""

import asyncio
import ipaddress
import logging
import secrets
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from importlib import resources
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.requests import Request as HTTPRequest
from starlette.responses import (
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Mount, Route
from starlette.types import Receive, Scope, Send

from genprior.core.errors import OF_ONE_FILE, OUT_OF_MEMORY, SettingError, memory_ran_out
from genprior.web.guard import Guard, content_security_policy
from genprior.web.jobs import Job, JobQueue, QueueFull, Stopped
from genprior.web.messages import pack, unpack
from genprior.web.restoration import Request, Restorer

# Seconds between two looks at the state of a job, and bytes of a result that are sent at once.
POLL, CHUNK = 0.1, 2**20
# Uploads that may be in memory together, in multiples of the largest one.
UPLOADS = 8
REPORTED = (*OF_ONE_FILE, TypeError)
BINARY = "application/octet-stream"
log = logging.getLogger("genprior.web")


def one_line(error: BaseException) -> str:
    """Returns the message of an error as one line."""
    return " ".join(str(error).split()) or type(error).__name__


class Uploads:
    """Bodies of requests, whose size is limited each and in total.

    Arguments:
        max_bytes: Size of the largest upload.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.held = max_bytes, 0

    def reserve(self, request: HTTPRequest) -> int:
        """Reserves memory for the body of a request, before it is read; returns its size.

        Raises:
            HTTPException: It is too large, its size is unknown, or others fill the memory.
        """
        text = request.headers.get("content-length", "")
        if not text.isdecimal():
            raise HTTPException(411, "the request must have a Content-Length")
        size = int(text)
        if size > self.max_bytes:
            raise HTTPException(
                413, f"the file has {size / 2**20:.0f} MiB, at most {self.max_bytes / 2**20:g} "
                     f"are accepted: shrink it, or raise --max-megabytes of genprior serve"
            )
        if self.held + size > UPLOADS * self.max_bytes:
            raise HTTPException(503, "other uploads fill the memory: try again later")
        self.held += size
        return size

    def release(self, size: int) -> None:
        """Releases a reservation."""
        self.held -= size


class JobStream(StreamingResponse):
    """Messages of a job; the job is stopped when the response ends or the client is gone.

    Arguments:
        queue: The queue of the job.
        job: The job.
        release: Called at the end.
    """

    def __init__(self, queue: JobQueue, job: Job, release: Callable[[], None]) -> None:
        super().__init__(self._messages(), media_type=BINARY)
        self.queue, self.job, self.release = queue, job, release

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.job.stop()
            self.release()

    async def _messages(self) -> AsyncIterator[bytes]:
        last: dict[str, Any] = {}
        while not self.job.future.done():
            ahead = self.queue.ahead(self.job)
            state = {"event": "queued", "ahead": ahead} if ahead else self.job.state()
            if state != last:
                yield pack(state)
                last = state
            await asyncio.sleep(POLL)
        data = _ending(self.job)
        for start in range(0, len(data), CHUNK):
            yield data[start : start + CHUNK]


def _ending(job: Job) -> bytes:
    """Returns the last message of a job: its result or its error."""
    if job.future.cancelled():
        return pack({"event": "stopped"})
    try:
        about, parts = job.future.result()
    except Stopped:
        return pack({"event": "stopped"})
    except REPORTED as error:
        return pack({"event": "error", "message": one_line(error)})
    except Exception as error:
        if memory_ran_out(error):
            return pack({"event": "error", "message": OUT_OF_MEMORY})
        log.exception("a restoration failed")
        message = "the server has a bug, see its terminal: report it with the text there"
        return pack({"event": "error", "message": message})
    return pack({"event": "result", **about}, parts)


def application(
    restorer: Restorer, token: str, hosts: frozenset[str], max_bytes: int, queue: JobQueue
) -> Guard:
    """Returns the ASGI application.

    Arguments:
        restorer: Restores the images.
        token: First segment of every path.
        hosts: Accepted values of the header Host.
        max_bytes: Larger uploads are refused before they are read.
        queue: Runs the restorations.
    """
    text = resources.files("genprior.web").joinpath("index.html").read_text(encoding="utf-8")
    settings = restorer.choices() | {"max_bytes": max_bytes}
    uploads, decoding = Uploads(max_bytes), asyncio.Semaphore(1)

    async def page(request: HTTPRequest) -> Response:
        return HTMLResponse(text)

    async def choices(request: HTTPRequest) -> Response:
        return JSONResponse(settings)

    async def open_image(request: HTTPRequest) -> Response:
        size = uploads.reserve(request)
        try:
            data = await request.body()
            async with decoding:
                about, parts = await asyncio.to_thread(restorer.open, data)
        except REPORTED as error:
            raise HTTPException(400, one_line(error)) from error
        finally:
            uploads.release(size)
        return Response(pack(about, parts), media_type=BINARY)

    async def restore(request: HTTPRequest) -> Response:
        size = uploads.reserve(request)
        try:
            line, parts = unpack(await request.body(), Request)
            job = queue.submit(lambda update: restorer.restore(line.settings, parts, update))
        except BaseException as error:
            uploads.release(size)
            if isinstance(error, QueueFull):
                raise HTTPException(503, one_line(error)) from error
            if isinstance(error, ValueError):
                raise HTTPException(400, one_line(error)) from error
            raise
        return JobStream(queue, job, lambda: uploads.release(size))

    async def plain(request: HTTPRequest, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return PlainTextResponse(error.detail, error.status_code, {"connection": "close"})

    async def gone(request: HTTPRequest, error: Exception) -> Response:
        return PlainTextResponse("the upload was cut short", 400)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        queue.close()

    routes = [
        Route("/", page), Route("/settings", choices),
        Route("/open", open_image, methods=["POST"]), Route("/restore", restore, methods=["POST"]),
    ]
    app = Starlette(
        routes=[Mount("/{token}", routes=routes)], lifespan=lifespan,
        exception_handlers={HTTPException: plain, ClientDisconnect: gone},
    )
    return Guard(app, token, hosts, content_security_policy(text))


def listen(host: str, port: int) -> socket.socket:
    """Returns a listening socket.

    Raises:
        SettingError: The address is not one of this machine, is in use, or means all addresses.
    """
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        # The system reads the name: "0" and "::0" mean all addresses, too.
        address = socket.getaddrinfo(host or "0.0.0.0", port, family)[0][4][0]
        if ipaddress.ip_address(address).is_unspecified:
            raise SettingError(f"host {host!r} means all networks: give the address of one")
        return socket.create_server((address, port), family=family)
    except OSError as error:
        raise SettingError(
            f"cannot listen at {host} port {port} ({error.strerror or error}): choose another "
            f"--port, or 0 for a free one"
        ) from error


def serve(
    host: str, port: int, restorer: Restorer, max_bytes: int, announce: Callable[[str], object]
) -> None:
    """Serves the page until it is interrupted.

    Arguments:
        host: Address to listen at.
        port: Port; 0 chooses a free one.
        restorer: Restores the images.
        max_bytes: Larger uploads are refused.
        announce: Called with the address of the page when the server listens.

    Raises:
        SettingError: It cannot listen there.
    """
    token = secrets.token_urlsafe(24)
    with listen(host, port) as listener:
        port = listener.getsockname()[1]
        name = f"[{host}]" if ":" in host else host
        names = (name.lower(), "localhost")
        hosts = frozenset(f"{each}:{port}" for each in names)
        if port == 80:  # which browsers leave out
            hosts |= frozenset(names)
        app = application(restorer, token, hosts, max_bytes, JobQueue())
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, ws="none", server_header=False,
            limit_concurrency=100, timeout_graceful_shutdown=2,
        )
        announce(f"http://{name}:{port}/{token}/")
        uvicorn.Server(config).run(sockets=[listener])
