"""A server on loopback that speaks as OpenAI's does, and says and does what a test wants."""

import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def answer(text, finish_reason="stop", tokens=3):
    message = {"role": "assistant", "content": text}
    return 200, {
        "id": "1",
        "object": "chat.completion",
        "created": 1,
        "model": "toy",
        "choices": [{"index": 0, "finish_reason": finish_reason, "message": message}],
        "usage": {"completion_tokens": tokens, "prompt_tokens": 5, "total_tokens": 5 + tokens},
    }


def refusal(status, message, **headers):
    return status, {"error": {"message": message, "type": "toy", "code": None}}, headers


class Server(ThreadingHTTPServer):
    """Answers each request with what `reply(body, attempt)` returns: status, content, and headers if it likes."""

    daemon_threads = False  # so that closing the server waits for them

    def __init__(self, reply):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply, self.lock = reply, threading.Lock()
        self.bodies, self.headers, self.busy, self.most_busy = [], [], 0, 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request, client_address):
        """A client that hung up is what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10  # of a connection that the client keeps and does not use

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            attempt = sum(earlier["messages"] == body["messages"] for earlier in server.bodies) + 1
            server.bodies.append(body | {"path": self.path})
            server.headers.append(self.headers)
            server.busy += 1
            server.most_busy = max(server.most_busy, server.busy)
        try:
            status, content, *headers = server.reply(body, attempt)
        finally:
            with server.lock:
                server.busy -= 1
        self._send(status, content, *headers)

    def do_GET(self):
        self._send(*self.server.reply(None, 1))

    def _send(self, status, content, *headers):
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json"} | (headers[0] if headers else {})).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments):
        pass


@contextmanager
def serving(reply):
    with Server(reply) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
