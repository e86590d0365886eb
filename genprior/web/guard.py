"""Access control of the local server: token, Host and Origin; and headers of every response.

The token keeps out other users of the machine and other pages of the browser. The check of Host
keeps out pages of other sites whose name was rebound to this address (DNS rebinding), the check of
Origin requests of other sites, and the content security policy keeps the page from sending
anything elsewhere.
"""

import base64
import hashlib
import re
import secrets
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADERS = {
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}


def content_security_policy(page: str) -> str:
    """Returns the policy of a page: only its own inline script and style, and this server."""

    def hashes(tag: str) -> str:
        bodies = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (base64.b64encode(hashlib.sha256(b.encode()).digest()).decode() for b in bodies)
        return " ".join(f"'sha256-{digest}'" for digest in digests)

    return (
        f"default-src 'none'; script-src {hashes('script')}; style-src {hashes('style')}; "
        f"img-src data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        f"frame-ancestors 'none'"
    )


class Guard:
    """ASGI middleware that refuses requests without the token, or of other sites.

    Arguments:
        app: The application.
        token: First segment of every path.
        hosts: Values of the header Host that are accepted, HOST:PORT.
        policy: Content security policy of all responses.
    """

    def __init__(self, app: App, token: str, hosts: frozenset[str], policy: str) -> None:
        self.app, self.token, self.hosts = app, token, hosts
        self.headers = [
            (name.encode(), value.encode())
            for name, value in (HEADERS | {"content-security-policy": policy}).items()
        ]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":  # the server speaks no other protocol
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", []), *self.headers]
            await send(message)

        reason = self.refusal(scope)
        if reason is None:
            await self.app(scope, receive, send_with_headers)
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8"), (b"connection", b"close")]
        await send_with_headers(
            {"type": "http.response.start", "status": 403, "headers": headers}
        )
        await send({"type": "http.response.body", "body": reason.encode()})

    def refusal(self, scope: Scope) -> str | None:
        """Returns why a request is refused, or None."""
        values: dict[bytes, list[str]] = {}
        for name, value in scope["headers"]:
            values.setdefault(name.lower(), []).append(value.decode("latin-1"))
        host, origin = values.get(b"host", []), values.get(b"origin", [])
        if len(host) != 1 or host[0].lower() not in self.hosts:
            return "wrong Host: open the address that genprior serve printed"
        must = scope["method"] not in ("GET", "HEAD")
        if (must or origin) and origin != [f"http://{host[0]}"]:
            return "wrong Origin: the request does not come from the page of genprior serve"
        given = scope["path"].partition("/")[2].partition("/")[0]
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return "wrong token: open the whole address that genprior serve printed"
        return None
