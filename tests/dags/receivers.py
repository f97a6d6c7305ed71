"""Servers on loopback that keep what they are sent: a webhook's and a mail server's."""

from __future__ import annotations

import contextlib
import email
import email.policy
import json
import socketserver
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any


@dataclass
class Hook:
    """A webhook: what was posted (path, headers, JSON), and the status that it answers."""

    port: int = 0
    status: int = 200
    got: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    def connection(self, **more: Any) -> str:
        """The Airflow connection that leads here."""
        return json.dumps(
            {"conn_type": "http", "host": "http://127.0.0.1", "port": self.port, **more}
        )

    @property
    def texts(self) -> list[str]:
        return [body["text"] for _, _, body in self.got]


@dataclass
class Letters:
    """A mail server: what it took, with the addresses of the envelope."""

    port: int = 0
    got: list[tuple[list[str], EmailMessage]] = field(default_factory=list)

    def connection(self, **extra: Any) -> str:
        """The Airflow connection that leads here."""
        plain = {"disable_ssl": True, "disable_tls": True, "from_email": "nightjar@shop.example"}
        return json.dumps(
            {"conn_type": "smtp", "host": "127.0.0.1", "port": self.port, "extra": plain | extra}
        )


@contextlib.contextmanager
def webhook() -> Iterator[Hook]:
    """A server that takes every POST."""
    made = Hook()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            made.got.append((self.path, dict(self.headers), json.loads(body)))
            self.send_response(made.status)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with _served(HTTPServer(("127.0.0.1", 0), Handler)) as made.port:
        yield made


@contextlib.contextmanager
def mailbox() -> Iterator[Letters]:
    """A server that speaks as much of SMTP (RFC 5321) as a client needs to leave a mail."""
    made = Letters()

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.say("220 ready")
            to: list[str] = []
            while line := self.rfile.readline().decode().strip():
                verb = line.split()[0].upper()
                if verb == "RCPT":
                    to.append(line.partition("<")[2].partition(">")[0])
                if verb == "DATA":
                    self.say("354 end with a dot")
                    made.got.append((to, self.letter()))
                self.say("221 bye" if verb == "QUIT" else "250 ok")

        def letter(self) -> EmailMessage:
            lines = []
            while (line := self.rfile.readline()) not in (b".\r\n", b""):
                lines.append(line.removeprefix(b"."))
            return email.message_from_bytes(b"".join(lines), policy=email.policy.default)

        def say(self, text: str) -> None:
            self.wfile.write(f"{text}\r\n".encode())

    with _served(socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)) as made.port:
        yield made


@contextlib.contextmanager
def _served(server: socketserver.BaseServer) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
