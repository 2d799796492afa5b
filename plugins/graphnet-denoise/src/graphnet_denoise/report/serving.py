"""Serving: a page for the browser of this machine alone, at an address that nobody else can guess."""

from __future__ import annotations

import json
import re
import secrets
import sys
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

from graphnet.errors import DataError, InputError
from graphnet_denoise.report.page import content_policy, page

_MORE = "connect-src 'self'"  # the page asks its own server for changes
_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_NO_PAGE = "default-src 'none'"
_TIMEOUT_S = 30


class Shown(Protocol):
    """What a page shows while it changes. Each method is called from several threads."""

    def version(self) -> int:
        """A number that changes whenever `data` does."""

    def data(self) -> Mapping[str, Any]:
        """What `page_data` returns."""

    def picture(self, number: int) -> Mapping[str, Any]:
        """What `Pictured.data` returns for an image. Raises DataError if there is no such image."""


class PageServer(ThreadingHTTPServer):
    """Serves a page on 127.0.0.1, at an address that contains a random token.

    Args:
        shown: what the page shows.
        port: the port; 0 takes a free one.

    Raises:
        InputError: the port is taken, or not allowed.
    """

    daemon_threads = True

    def __init__(self, shown: Shown, *, port: int = 0) -> None:
        self.shown = shown
        self.token = secrets.token_urlsafe()
        try:
            super().__init__(("127.0.0.1", port), _Handler)
        except OSError as error:
            raise InputError(
                f"--port {port}: cannot be used ({error.strerror}). Give another one, or leave it out."
            ) from None

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://127.0.0.1:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say in one line what went wrong; a browser that has closed its connection is nothing wrong."""
        error = sys.exception()
        if not isinstance(error, ConnectionError | TimeoutError):
            print(f"error: the page was not served: {error!r}", file=sys.stderr)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    server_version, sys_version = "graphnet", ""
    timeout = _TIMEOUT_S
    policy = _NO_PAGE

    def parse_request(self) -> bool:
        """Refuse what is no GET, names another host, or has not the token in its path."""
        if not super().parse_request():
            return False
        port = self.server.server_port
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or hosts[0] not in (f"127.0.0.1:{port}", f"localhost:{port}"):
            self.send_error(HTTPStatus.FORBIDDEN)
        elif self.command != "GET":
            self.send_error(HTTPStatus.METHOD_NOT_ALLOWED)
        elif not self._has_token():
            self.send_error(HTTPStatus.NOT_FOUND)
        else:
            return True
        return False

    def _has_token(self) -> bool:
        expected = f"/{self.server.token}/"
        return secrets.compare_digest(self.path[: len(expected)].encode(), expected.encode())

    def do_GET(self) -> None:
        """Answer with the page, its data, the number of its last change, or one of its images."""
        shown = self.server.shown
        place = self.path.partition("?")[0].split("/")[2:]
        try:
            match place:
                case [""]:
                    data = shown.data()
                    self.policy = f"{content_policy(_MORE)}; frame-ancestors 'none'"
                    self._send("text/html", page(data, policy=_MORE))
                case ["version"]:
                    self._send_json({"version": shown.version()})
                case ["data"]:
                    self._send_json(shown.data())
                case ["pictures", number] if re.fullmatch("[0-9]{1,8}", number):
                    self._send_json(shown.picture(int(number)))
                case _:
                    self.send_error(HTTPStatus.NOT_FOUND)
        except DataError:
            self.send_error(HTTPStatus.NOT_FOUND)

    def end_headers(self) -> None:
        """Add the headers that every answer has."""
        self.send_header("Content-Security-Policy", self.policy)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: a page that asks every 2 s would fill the terminal."""

    def _send_json(self, data: Mapping[str, Any]) -> None:
        self._send("application/json", json.dumps(data))

    def _send(self, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", f"{kind}; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
