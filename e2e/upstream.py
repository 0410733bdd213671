"""A small HTTP service for tests of what passes through: streams, uploads, websockets. It tells what it was sent.

    GET  /head          the request's line and headers, as JSON
    GET  /stream        ten chunks, each only after `POST /next` was called for it
    POST /echo          the body, chunk by chunk, as it comes
    GET  /bytes?N       N bytes
    any  /count         the method and how many bytes the body had; a chunked or a sized one
    GET  /socket        a websocket that sends back what it gets
"""

import base64
import hashlib
import json
import struct
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BLOCK = b"sidegate" * 8192
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    turn = threading.Semaphore(0)

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/head":
            self.answer(json.dumps({"line": self.requestline, "headers": self.headers.items()}).encode())
        elif path == "/stream":
            self.begin_chunks()
            for number in range(10):
                self.turn.acquire(timeout=10)
                self.chunk(f"chunk {number}\n".encode())
            self.chunk(b"")
        elif path == "/bytes":
            self.send_response(200)
            self.send_header("Content-Length", query)
            self.end_headers()
            left = int(query)
            while left > 0:
                left -= self.wfile.write(BLOCK[: min(left, len(BLOCK))])
        elif path == "/count":
            self.do_POST()
        elif path == "/socket":
            self.socket()
        else:
            self.send_error(404)

    def do_DELETE(self):
        self.do_POST()

    def do_POST(self):
        if self.path == "/next":
            self.turn.release()
            self.answer(b"")
        elif self.path == "/echo":
            self.begin_chunks()
            for block in self.blocks():
                self.chunk(block)
            self.chunk(b"")
        elif self.path == "/count":
            framing = "chunked" if "Transfer-Encoding" in self.headers else "sized" if "Content-Length" in self.headers else "none"
            self.answer(f"{self.command} {framing} {sum(len(block) for block in self.blocks())}".encode())
        else:
            self.send_error(404)

    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def begin_chunks(self):
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def blocks(self):
        """The body as it comes, however it is framed."""
        if "chunked" in (self.headers.get("Transfer-Encoding") or ""):
            while length := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(length)
                self.rfile.readline()
            self.rfile.readline()
        else:
            left = int(self.headers.get("Content-Length") or 0)
            while left > 0:
                block = self.rfile.read(min(left, len(BLOCK)))
                left -= len(block)
                yield block

    def socket(self):
        """RFC 6455, as much as an echo needs."""
        accept = base64.b64encode(hashlib.sha1((self.headers["Sec-WebSocket-Key"] + GUID).encode()).digest()).decode()
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade"), ("Sec-WebSocket-Accept", accept)):
            self.send_header(name, value)
        self.end_headers()
        self.close_connection = True
        while frame := read_frame(self.rfile):
            self.wfile.write(frame_of(*frame))

    def log_message(self, *_):
        pass


def read_frame(file):
    """Kind and payload of a frame, unmasked; nothing at the end."""
    head = file.read(2)
    if len(head) < 2:
        return None
    length = head[1] & 127
    if length > 125:
        length = struct.unpack(">H" if length == 126 else ">Q", file.read(2 if length == 126 else 8))[0]
    mask = file.read(4) if head[1] & 128 else bytes(4)
    return head[0], bytes(byte ^ mask[at % 4] for at, byte in enumerate(file.read(length)))


def frame_of(kind, payload, mask=None):
    length = len(payload)
    size = bytes([length]) if length < 126 else b"\x7e" + struct.pack(">H", length) if length < 65536 else b"\x7f" + struct.pack(">Q", length)
    if mask is None:
        return bytes([kind]) + size + payload
    return bytes([kind, size[0] | 128]) + size[1:] + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def serve():
    """Start one on a free port; the port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    # A client that leaves amid its answer is what some cases are about.
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.server_port
