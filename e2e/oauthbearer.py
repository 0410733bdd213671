"""PostgreSQL 18's own client, libpq with OAUTHBEARER (RFC 7628), at a sidecar that asks for nothing else.

The demo's sidecars ask clients of their own for a password, as every driver has that. So one more sidecar is started here, beside
the demo's postgres-b. libpq gets its token from a hook that any program may set (`PQsetAuthDataHook`), and the hook from `sidegate token`.
"""

import contextlib
import ctypes
import glob
import json
import os
import socket
import ssl
import struct
import subprocess
import sys
import tempfile
import time

# libpq wants https of an issuer; the demo's is plain HTTP on loopback.
os.environ["PGOAUTHDEBUG"] = "UNSAFE"

import psycopg
import psycopg_binary
from suite import READY, TLS, run, within

SIDEGATE = os.environ["SIDEGATE"]
ISSUER = READY["issuer"]
DISCOVERY = ISSUER + "/.well-known/openid-configuration"
# Tokens are overlooked to be older than they may be by so much.
LEEWAY = 30


def sidegate_token(service="postgres-b", issuer=ISSUER):
    proof = READY["subject_tokens"]["service-a"]
    command = [SIDEGATE, "token", "--issuer", issuer, "--subject-token-file", proof, "--audience", f"{service}/{service}"]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout.removesuffix("\n")


class Request(ctypes.Structure):
    """PGoauthBearerRequest of libpq-fe.h."""

    _fields_ = [
        ("openid_configuration", ctypes.c_char_p),
        ("scope", ctypes.c_char_p),
        ("run", ctypes.c_void_p),
        ("cleanup", ctypes.c_void_p),
        ("token", ctypes.c_char_p),
        ("user", ctypes.c_void_p),
    ]


PQAUTHDATA_OAUTH_BEARER_TOKEN = 1
HOOK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(Request))
asked = []
shown = None


@HOOK
def hook(kind, _connection, request):
    if kind != PQAUTHDATA_OAUTH_BEARER_TOKEN or shown is None:
        return 0
    asked.append((request.contents.openid_configuration, request.contents.scope))
    request.contents.token = shown
    return 1


def set_hook():
    """In the very libpq that psycopg uses: the wheel brings its own."""
    [library] = glob.glob(os.path.join(os.path.dirname(psycopg_binary.__file__), "..", "psycopg_binary.libs", "libpq-*.so*"))
    ctypes.CDLL(os.path.realpath(library)).PQsetAuthDataHook(hook)


def connect(port, token, issuer=ISSUER):
    global shown
    shown = token.encode()
    asked.clear()
    return psycopg.connect(
        host="127.0.0.1", port=port, user="reader", dbname="shop", sslmode="verify-full", sslrootcert=READY["ca_file"],
        oauth_issuer=issuer, oauth_client_id="suite", require_auth="oauth", connect_timeout=20,
    )


def refused(port, token, *parts):
    # With the whole URL libpq shows its token at once, and what it is told of it is what a person sees.
    try:
        connect(port, token, DISCOVERY).close()
    except psycopg.OperationalError as error:
        assert token not in str(error) or len(token) < 8, error
        for part in parts:
            assert part in str(error), f"{part!r} is not in {error}"
        return
    raise AssertionError("it got in")


def logs_in_with_a_token(port, token):
    for issuer, questions in ((ISSUER, 1), (DISCOVERY, 1)):
        with connect(port, token, issuer) as conn:
            assert conn.execute("select current_setting('sidegate.sub')").fetchone()[0] == "system:serviceaccount:service-a:service-a"
            assert conn.execute("select count(*) from customers").fetchone()[0] > 0
            assert conn.pgconn.ssl_in_use
        # What libpq was told by us is where it sends whoever gets the token.
        assert [url for url, _ in asked] == [DISCOVERY.encode()] * questions, asked


def is_authorized_as_anybody(port, token):
    with connect(port, token) as conn:
        try:
            conn.execute("delete from orders")
            raise AssertionError("a reader deletes")
        except psycopg.errors.InsufficientPrivilege as error:
            assert str(error).startswith("sidegate: reader may not delete orders"), error


def another_issuer_is_not_believed_by_libpq(port, token):
    try:
        connect(port, token, "https://elsewhere.test").close()
        raise AssertionError("the token was shown to whoever asked")
    except psycopg.OperationalError as error:
        assert "elsewhere.test" in str(error) and not asked, error


def bad_tokens_are_refused_clearly(port, token):
    # What is no token by its form is no message of the protocol's.
    refused(port, "no token, surely", "OAUTHBEARER")
    refused(port, "garbage", "the token was refused", "malformed")
    refused(port, token[:-8] + "AAAAAAAA", "the token was refused", "signature")
    refused(port, sidegate_token("postgres-a"), "the token was refused", "another audience")
    refused(port, open(READY["subject_tokens"]["service-a"]).read().strip(), "the token was refused")


def an_empty_token_is_none(port):
    # libpq does not send one.
    refused(port, "", "")
    assert said_to(port, b"n,,\x01auth=\x01\x01")[0] == b"R"


class Wire:
    """As much of the protocol as a login has."""

    def __init__(self, port):
        plain = socket.create_connection(("127.0.0.1", port), timeout=20)
        plain.sendall(struct.pack("!ii", 8, 80877103))
        assert plain.recv(1) == b"S"
        self.link = TLS.wrap_socket(plain, server_hostname="127.0.0.1")
        startup = struct.pack("!i", 196608) + b"user\0reader\0database\0shop\0\0"
        self.link.sendall(struct.pack("!i", len(startup) + 4) + startup)

    def send(self, body):
        self.link.sendall(b"p" + struct.pack("!i", len(body) + 4) + body)

    def initial(self, response):
        self.send(b"OAUTHBEARER\0" + struct.pack("!i", len(response)) + response)

    def read(self):
        """A message; none if the other side has closed."""
        head = self.exactly(5)
        return head and (head[:1], self.exactly(struct.unpack("!i", head[1:])[0] - 4))

    def exactly(self, length):
        data = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while len(data) < length:
                part = self.link.recv(length - len(data))
                if not part:
                    break
                data += part
        return data if len(data) == length else None


def said_to(port, initial):
    wire = Wire(port)
    assert wire.read() == (b"R", struct.pack("!i", 10) + b"OAUTHBEARER\0\0")
    wire.initial(initial)
    return wire.read()


def tells_where_tokens_come_from(port):
    """RFC 7628 §3.2.2 and §3.2.3: status, where to go, and an end after the client's ^A, whatever comes with it."""
    for answer in (b"\x01", b"\x01x", b""):
        wire = Wire(port)
        assert wire.read() == (b"R", struct.pack("!i", 10) + b"OAUTHBEARER\0\0")
        wire.initial(b"n,,\x01auth=\x01\x01")
        kind, body = wire.read()
        assert (kind, body[:4]) == (b"R", struct.pack("!i", 11)), body
        said = json.loads(body[4:])
        assert said["status"] == "invalid_token" and said["openid-configuration"] == DISCOVERY, said
        assert isinstance(said["scope"], str), said
        wire.send(answer)
        kind, body = wire.read()
        assert kind == b"E" and (b"28000" if answer == b"\x01" else b"08P01") in body, body
        assert wire.read() is None, "it goes on"


def bad_responses_end_it(port):
    for bad in (b"", b"\x01", b"n,,\x01\x01", b"n,a=root,\x01auth=Bearer x\x01\x01", b"n,,\x01auth=Bearer \x01\x01", b"\xff" * 100):
        kind, body = said_to(port, bad)
        assert kind == b"E" and b"08P01" in body, (bad, body)


def an_expired_token_is_refused(port, token, expires):
    time.sleep(max(0, expires + LEEWAY + 1 - time.time()))
    refused(port, token, "the token was refused", "expired")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def up(port):
    with contextlib.suppress(OSError):
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
        return True
    return False


@contextlib.contextmanager
def serving(scratch, name, config, port):
    path = os.path.join(scratch, name)
    with open(path + ".yaml", "w") as file:
        file.write(config)
    with open(path + ".log", "w") as log:
        process = subprocess.Popen([SIDEGATE, name, "--config", path + ".yaml"], stdout=log, stderr=log)
    try:
        assert within(30, lambda: up(port) or process.poll() is not None) and process.poll() is None, open(path + ".log").read()
        yield
    finally:
        process.terminate()
        process.wait(30)


def sidecar(port):
    server, proof = READY["postgres"]["postgres-b"], READY["subject_tokens"]["postgres-b"]
    return f"""
service: postgres-b/postgres-b
issuer: {{url: "{ISSUER}", subject_token_file: "{proof}"}}
certificates: {{from: issuer}}
postgres: {{users: {{reader: app_reader}}}}
inbound:
  - protocol: postgres
    listen: 127.0.0.1:{port}
    tls: {{}}
    upstream: "unix:{server["socket_dir"]}/.s.PGSQL.{server["port"]}"
    authentication: oauthbearer
"""


def hasty_issuer(port):
    """The demo's, with the same keys, on a port of its own, and with tokens that live for a second."""
    changes = {"listen:": f"listen: 127.0.0.1:{port}", "access_tokens:": "access_tokens: {ttl: 1}", "admin:": ""}
    lines = open(os.path.join(READY["dir"], "config", "issuer.yaml")).read().splitlines()
    return "\n".join(next((new for old, new in changes.items() if line.startswith(old)), line) for line in lines) + "\n"


def main():
    assert psycopg.pq.version() >= 180000, psycopg.pq.version()
    set_hook()
    port, issuer_port = free_port(), free_port()
    with tempfile.TemporaryDirectory() as scratch:
        with serving(scratch, "issuer", hasty_issuer(issuer_port), issuer_port):
            hasty = f"http://127.0.0.1:{issuer_port}"
            # It may be there before its keys are.
            short = within(20, lambda: try_token(hasty))
            expires = time.time() + 1
        with serving(scratch, "sidecar", sidecar(port), port):
            token = sidegate_token()
            case = lambda function, *more: named(function, lambda: function(port, *more))
            return run(
                f"OAUTHBEARER, libpq {psycopg.pq.version()}",
                [
                    case(logs_in_with_a_token, token),
                    case(is_authorized_as_anybody, token),
                    case(another_issuer_is_not_believed_by_libpq, token),
                    case(bad_tokens_are_refused_clearly, token),
                    case(an_empty_token_is_none),
                    case(tells_where_tokens_come_from),
                    case(bad_responses_end_it),
                    case(an_expired_token_is_refused, short, expires),
                ],
            )


def try_token(issuer):
    with contextlib.suppress(subprocess.CalledProcessError):
        return sidegate_token(issuer=issuer)


def named(function, case):
    case.__name__ = function.__name__
    return case


if __name__ == "__main__":
    sys.exit(main())
