"""Server of the page: access, limits, damaged uploads, one job at a time."""

import io
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image
from shell import photo
from starlette.testclient import TestClient
from webpage import TOKEN, file_of, messages_in, request_of, serving, until

from genprior.cli import main
from genprior.commands import serve as command
from genprior.core.errors import SettingError
from genprior.web.jobs import JobQueue
from genprior.web.restoration import Restorer
from genprior.web.server import application, listen

HOST = "127.0.0.1:8765"
ORIGIN = {"origin": f"http://{HOST}"}


@pytest.fixture
def client(weights: Path) -> Iterator[TestClient]:
    restorer = Restorer({"tiny": str(weights)}, "cpu", 10_000)
    app = application(restorer, TOKEN, frozenset([HOST]), 2**20, JobQueue())
    with TestClient(app, base_url=f"http://{HOST}", headers=ORIGIN) as client:
        yield client


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    response = client.get(f"/{TOKEN}/")
    assert response.status_code == 200 and response.text.startswith("<!doctype html>")
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy and "http" not in policy
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "http://" not in response.text and "https://" not in response.text
    assert client.get(f"/{TOKEN}/settings").json()["max_bytes"] == 2**20


@pytest.mark.parametrize("path", ["/", "/settings", "//settings", "/wrong/", f"/{TOKEN[:-1]}/",
                                  f"/{TOKEN}x/", f"/%2e%2e/{TOKEN}/", "/\u00e9/"])
def test_a_wrong_token_is_refused(client: TestClient, path: str) -> None:
    response = client.get(path)
    assert response.status_code == 403 and "wrong token" in response.text
    assert client.post(f"{path}open", content=b"").status_code == 403


def test_other_names_of_the_host_are_refused(client: TestClient) -> None:
    for host in ("evil.example", "evil.example:8765", "127.0.0.1", "127.0.0.1:80", ""):
        response = client.get(f"/{TOKEN}/", headers={"host": host})
        assert response.status_code == 403 and "wrong Host" in response.text


def test_requests_of_other_sites_are_refused(client: TestClient) -> None:
    for origin in ("http://evil.example", "null", f"https://{HOST}", "http://127.0.0.1:1"):
        response = client.post(f"/{TOKEN}/open", content=b"x", headers={"origin": origin})
        assert response.status_code == 403 and "wrong Origin" in response.text
        assert client.get(f"/{TOKEN}/", headers={"origin": origin}).status_code == 403
    del client.headers["origin"]
    assert client.get(f"/{TOKEN}/").status_code == 200  # an address that is typed has none
    assert client.post(f"/{TOKEN}/open", content=b"x").status_code == 403


def test_large_uploads_are_refused_before_they_are_read(client: TestClient) -> None:
    for path in ("open", "restore"):
        response = client.post(f"/{TOKEN}/{path}", content=b"0" * (2**20 + 1))
        assert response.status_code == 413 and "at most 1 are accepted" in response.text
        chunked = client.post(f"/{TOKEN}/{path}", content=iter([b"abc"]))
        assert chunked.status_code == 411
    bomb = file_of(np.zeros((3000, 3000), np.uint8))  # few bytes, many pixels
    response = client.post(f"/{TOKEN}/open", content=bomb)
    assert response.status_code == 400 and "more than 10000" in response.text


def test_other_addresses_and_methods_do_not_exist(client: TestClient) -> None:
    for path in ("etc/passwd", "../server.py", "index.html", "open"):
        assert client.get(f"/{TOKEN}/{path}").status_code in (403, 404, 405)
    assert client.put(f"/{TOKEN}/settings").status_code == 405


def damaged(count: int) -> Iterator[bytes]:
    """Image files that are cut, mutated, or nothing of that kind."""
    numbers = random.Random(0)
    whole = [file_of(photo(), format) for format in ("PNG", "JPEG", "WEBP", "BMP", "TIFF")]
    yield from (b"", b"\0" * 100, b"<svg onload=alert(1)>", b"GIF89a" + b"\0" * 20, b"\x93NUMPY")
    for k in range(count - 5):
        data = bytearray(whole[k % 5])
        if k % 2:
            data = data[: numbers.randrange(1, len(data))]
        for _ in range(numbers.randrange(1, 30)):
            data[numbers.randrange(len(data))] = numbers.randrange(256)
        yield bytes(data)


def test_damaged_uploads_get_a_message_and_the_server_stays_up(client: TestClient) -> None:
    refused = 0
    for data in damaged(100):
        response = client.post(f"/{TOKEN}/open", content=data)
        assert response.status_code in (200, 400)
        if response.status_code == 400:
            refused += 1
            assert response.text.startswith("the image: ") and "\n" not in response.text
        else:
            ((_, parts),) = messages_in(response.content)
            Image.open(io.BytesIO(parts["image"])).load()
    assert refused > 50
    assert client.post(f"/{TOKEN}/open", content=file_of(photo())).status_code == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{}", b"{}\n", b"x" * 2**17, b"[" * 10_000 + b"\n", b"\xff\n",
     request_of({"image": b"abc"}) + b"more", request_of({"image": b"abc"})[:-1],
     request_of({}, path="/etc/passwd"), request_of({}, url="http://127.0.0.1/"),
     request_of({}, samples=10**9), request_of({}, tool="train"), request_of({}, noise=-1),
     request_of({}, name="a" * 300)],
)
def test_damaged_requests_get_a_message(client: TestClient, body: bytes) -> None:
    response = client.post(f"/{TOKEN}/restore", content=body)
    assert response.status_code == 400 and "request" in response.text


def test_a_restoration_streams_progress_and_the_result(client: TestClient) -> None:
    hole = np.zeros((24, 32), np.uint8)
    hole[8:12, 8:12] = 255
    parts = {"image": file_of(photo()), "mask": file_of(hole)}
    body = request_of(parts, tool="inpaint", noise=0, solver="hqs", steps=3)
    *before, (about, files) = messages_in(client.post(f"/{TOKEN}/restore", content=body).content)
    assert about["event"] == "result" and about["solver"] == "hqs" and about["nfe"] == 3
    assert all(message["event"] == "progress" for message, _ in before)
    with Image.open(io.BytesIO(files["file-0"])) as image:
        result = np.asarray(image)
    np.testing.assert_array_equal(result[hole == 0], photo()[hole == 0])
    assert (result != photo())[hole > 0].any()
    bad = request_of({"image": file_of(photo())}, prior="none")
    ((about, _),) = messages_in(client.post(f"/{TOKEN}/restore", content=bad).content)[-1:]
    assert about == {"event": "error", "parts": [],
                     "message": "unknown prior 'none': choose one of tiny"}


def test_a_bug_is_reported_in_the_terminal(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Restorer, "restore", lambda *_: {}["secret"])
    response = client.post(f"/{TOKEN}/restore", content=request_of({}))
    assert "secret" not in response.text and "has a bug" in response.text
    assert "secret" in caplog.text


def test_exhausted_memory_is_no_bug(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Restorer, "restore", lambda *_: torch.empty(2**60))
    response = client.post(f"/{TOKEN}/restore", content=request_of({}))
    assert "memory ran out" in response.text and not caplog.text


def test_a_job_ends_when_its_connection_does(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def endless(self, settings, parts, progress):
        try:
            for k in range(10**6):
                progress(k + 1, 10**6)
                time.sleep(0.01)
        finally:
            ended.set()

    monkeypatch.setattr(Restorer, "restore", endless)
    with serving(Restorer({"tiny": str(weights)}, "cpu", 10_000)) as page:
        headers, body = {"origin": page.origin}, request_of({})
        with httpx2.stream("POST", f"{page.address}restore", content=body,
                           headers=headers) as response:
            assert next(response.iter_raw()).startswith(b'{"event": "progress"')
            assert not ended.is_set()
        assert ended.wait(5)
        assert httpx2.get(f"{page.address}settings").status_code == 200


def test_fifty_requests_at_once_run_one_by_one_or_are_told_to_wait(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = threading.Lock()

    def short(self, settings, parts, progress):
        assert alone.acquire(blocking=False), "two jobs run at once"
        time.sleep(0.02)
        alone.release()
        return {"width": 1}, {}

    monkeypatch.setattr(Restorer, "restore", short)
    with serving(Restorer({"tiny": str(weights)}, "cpu", 10_000)) as page:
        body = request_of({"image": b"0" * 100_000})

        def send(_):
            return httpx2.post(f"{page.address}restore", content=body, timeout=30,
                               headers={"origin": page.origin})

        with ThreadPoolExecutor(50) as pool:
            answers = list(pool.map(send, range(50)))
        done = [a for a in answers if a.status_code == 200]
        assert len(done) >= 8
        assert all(messages_in(a.content)[-1][0]["event"] == "result" for a in done)
        assert all("try again later" in a.text for a in answers if a.status_code != 200)
        assert {a.status_code for a in answers} <= {200, 503}
        until(lambda: not page.queue._jobs)
        assert send(0).status_code == 200


def test_nothing_is_written(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = request_of({"image": file_of(photo())}, steps=2, solver="hqs")
    client.post(f"/{TOKEN}/restore", content=body)  # imports and caches
    opened = []
    real = io.open

    def watched(file, mode="r", *rest, **named):
        if set(mode) & set("wax+"):
            opened.append(file)
        return real(file, mode, *rest, **named)

    monkeypatch.setattr("builtins.open", watched)
    monkeypatch.setattr("io.open", watched)
    answer = client.post(f"/{TOKEN}/restore", content=body)
    assert messages_in(answer.content)[-1][0]["event"] == "result"
    assert not opened


@pytest.mark.parametrize("host", ["", "0.0.0.0", "0", "00.0.0.0", "::", "::0", "0:0:0:0:0:0:0:0"])
def test_no_spelling_of_all_addresses_is_listened_at(host: str) -> None:
    with pytest.raises(SettingError, match="means all networks"):
        listen(host, 0)


def test_the_server_listens_where_it_is_told() -> None:
    with listen("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        assert first.getsockname()[0] == "127.0.0.1"
        with pytest.raises(SettingError, match=f"port {port} .*choose another --port"):
            listen("127.0.0.1", port)


def test_the_command_prints_an_address_with_a_new_token(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(self, sockets=None):
        raise KeyboardInterrupt

    monkeypatch.setattr("uvicorn.Server.run", interrupted)
    texts = [CliRunner().invoke(main, ["serve", "--port", "0"]) for _ in range(2)]
    addresses = [result.stdout.splitlines()[0] for result in texts]
    assert all(a.startswith("http://127.0.0.1:") and len(a.split("/")[3]) == 32 for a in addresses)
    assert addresses[0].split("/")[3] != addresses[1].split("/")[3]
    assert all(result.exit_code == 0 and result.stderr == "" for result in texts)
    unknown = CliRunner().invoke(main, ["serve", "--prior", "none"])
    assert unknown.exit_code == 4 and "unknown prior 'none'" in unknown.stderr
    assert command._is_loopback("::1") and not command._is_loopback("192.0.2.1")


def test_without_the_extra_its_name_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "genprior.web.server", None)
    import builtins

    real = builtins.__import__

    def missing(name, *rest):
        if name == "genprior.web.server":
            raise ModuleNotFoundError("No module named 'uvicorn'", name="uvicorn")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", missing)
    result = CliRunner().invoke(main, ["serve"])
    assert result.exit_code == 2 and 'pip install "genprior[web]"' in result.stderr
