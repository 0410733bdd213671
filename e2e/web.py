"""HTTP services behind a sidecar: the demo's Prometheus, and an upstream of the test's own."""

import base64
import functools
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse

import upstream
from suite import READY, access_token, ask, decisions, problem, run, set_live, within

PROMETHEUS = READY["http"]["service-a"]["prometheus"]
INBOUND = READY["inbound_http"]["prometheus"]


def prometheus_watches_the_demo():
    def up():
        found = ask(f"{PROMETHEUS}/api/v1/query?query=up").json()["data"]["result"]
        return {one["metric"]["service"] for one in found if one["value"][1] == "1"}

    everyone = {"postgres-a", "postgres-b", "service-a", "service-b", "prometheus", "issuer"}
    assert within(20, lambda: up() == everyone), up()


def the_dashboards_panels_have_data():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../deploy/examples/monitoring/grafana/dashboard.json")
    panels = json.load(open(path))["panels"]
    queries = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(queries) > 10, queries

    def without_data():
        ask(READY["http"]["service-a"]["postgres-b"] + "/query", "POST", {}, json.dumps({"query": "delete from orders"}))
        return [query for query in queries if not asked(query)["result"]]

    # A rate takes two scrapes.
    missing = within(60, lambda: [] == without_data()) or without_data()
    assert missing is True, missing


def asked(query):
    answer = ask(PROMETHEUS + "/api/v1/query?query=" + urllib.parse.quote(query))
    assert answer.status == 200, (query, answer)
    return answer.json()["data"]


def prometheus_may_be_read():
    by_post = ask(
        f"{PROMETHEUS}/api/v1/query", "POST", {"Content-Type": "application/x-www-form-urlencoded"}, "query=vector(1)"
    )
    assert by_post.json()["data"]["result"][0]["value"][1] == "1", by_post
    assert "up" in ask(f"{PROMETHEUS}/api/v1/label/__name__/values").json()["data"]
    bad = ask(f"{PROMETHEUS}/api/v1/query?query=%7B")
    assert bad.status == 400 and bad.json()["errorType"] == "bad_data", f"Prometheus' own answer: {bad}"


def prometheus_may_not_be_administered():
    for method, path in (
        ("POST", "/-/quit"),
        ("POST", "/-/reload"),
        ("POST", "/api/v1/admin/tsdb/snapshot"),
        ("PUT", "/api/v1/admin/tsdb/clean_tombstones"),
        ("DELETE", "/api/v1/query"),
        ("GET", "/api/v1/status/config"),
        ("GET", "/"),
    ):
        answer = ask(PROMETHEUS + path, method)
        said = problem(answer, 403)
        assert said["message"] == f"sidegate: metrics-reader may not {method} {path}", said
        assert said["hint"] and 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"], answer
        recorded = within(5, lambda: [one for one in decisions("prometheus") if one["decision"] == said["decision_id"]])
        assert recorded[0]["verdict"] == "deny" and recorded[0]["subject"].endswith(":service-a"), recorded
    assert ask(f"{PROMETHEUS}/-/ready").status == 200, "it is still there"


def no_way_of_writing_a_path_leads_around():
    for path in (
        "/api/v1/query/../admin/tsdb/snapshot",
        "/api/v1/query/%2e%2e/admin/tsdb/snapshot",
        "/api/v1/query/.%2E/admin/tsdb/snapshot",
        "/api/v1/query%2f..%2fadmin/tsdb/snapshot",
        "/api/v1/query/..%2Fadmin/tsdb/snapshot",
        "/api/v1/query/..;/admin/tsdb/snapshot",
        "/api/v1/query\\..\\admin\\tsdb\\snapshot",
        "/api/v1//admin/tsdb/snapshot",
        "//api/v1/admin/tsdb/snapshot",
        "/api/v1/label/x/../../admin/tsdb/snapshot",
        "/./-/quit",
        "/%2d/quit",
        "/-/quit?/api/v1/query",
        "/-/quit;/api/v1/query",
    ):
        for base, headers in ((PROMETHEUS, {}), (INBOUND, {"Authorization": "Bearer " + access_token("service-a", "prometheus")})):
            answer = ask(base + path, "POST", headers)
            # What stays below /api/v1/query may be passed on, and Prometheus knows no such path.
            assert answer.status in (400, 403, 404, 405), (base, path, answer)
            assert b"snapshots" not in answer.body and b"Requesting termination" not in answer.body, (path, answer)
    snapshots = os.path.join(READY["dir"], "prometheus", "snapshots")
    assert not os.path.exists(snapshots), os.listdir(snapshots)
    assert ask(f"{PROMETHEUS}/-/ready").status == 200


def no_grant_no_entry():
    answer = ask(READY["http"]["service-b"]["prometheus"] + "/api/v1/query?query=up")
    assert "sidegate: no token" in problem(answer, answer.status)["message"] and answer.status in (401, 403), answer


def a_token_is_asked_for_at_the_listener():
    url = f"{INBOUND}/api/v1/query?query=up"
    without = ask(url)
    problem(without, 401)
    assert without.headers["WWW-Authenticate"].startswith("Bearer") and "error=" not in without.headers["WWW-Authenticate"], without
    token = access_token("service-a", "prometheus")
    for wrong in (token[:-4] + "AAAA", "x", access_token("service-a", "postgres-b")):
        answer = ask(url, headers={"Authorization": f"Bearer {wrong}"})
        problem(answer, 401)
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"], answer
        assert wrong == "x" or wrong.encode() not in answer.body
    assert ask(url, headers={"Authorization": f"Bearer {token}"}).status == 200
    assert ask(url, headers={"Authorization": f"bearer {token}"}).status == 200


def web_pages_are_kept_out():
    # By a name of the page's own that leads here, or from another site.
    for header in (
        {"Host": "evil.example"}, {"Host": "evil.example:80"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-origin"},
        # Browsers say nothing else with a websocket.
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:3000"},
    ):
        problem(ask(f"{PROMETHEUS}/api/v1/query?query=up", headers=header), 403)
    for header in ({"Host": "localhost"}, {"Host": "127.0.0.1:1"}, {"Host": "[::1]:80"}, {"Sec-Fetch-Mode": "cors"}):
        assert ask(f"{PROMETHEUS}/api/v1/query?query=up", headers=header).status == 200, header


def a_refusal_arrives_whole():
    """Even if it is said before the body was read: curl speaks HTTP/2 here, where the rest of a request is then reset."""
    for url, body in ((f"{INBOUND}/-/quit", "x=y"), (READY["inbound_http"]["postgres-b"] + "/query", '{"query": "select 1"}')):
        for _ in range(25):
            command = ["curl", "-sS", "--http2", "--cacert", READY["ca_file"], "-w", "%{http_code}", "-o", os.devnull, url, "-d", body]
            run = subprocess.run(command, capture_output=True, text=True, timeout=30)
            assert run.stdout == "401" and not run.stderr, run


def settings_are_live():
    reload = lambda: ask(f"{PROMETHEUS}/-/reload", "POST").status
    assert reload() == 403
    try:
        set_live("prometheus", "VERIFY_AUTH_ENABLED", "observe")
        assert reload() == 200
        seen = within(5, lambda: [one for one in decisions("prometheus") if one["mode"] == "observe"])
        assert seen and seen[-1]["verdict"] == "deny", seen
        set_live("prometheus", "VERIFY_AUTH_ENABLED", "true")
        assert reload() == 403
        set_live("service-a", "SIGN_AUTH_ENABLED", "false")
        problem(ask(f"{PROMETHEUS}/api/v1/query?query=up"), 401)
    finally:
        set_live("prometheus", "VERIFY_AUTH_ENABLED", "true")
        set_live("service-a", "SIGN_AUTH_ENABLED", "true")
    assert ask(f"{PROMETHEUS}/api/v1/query?query=up").status == 200


ECHO_DOCUMENTS = """
kind: AccessRole
metadata: {namespace: echo, name: echo-user}
spec:
  service: echo
  http: {rules: [{methods: [GET, POST, DELETE], paths: ["/*"]}]}
---
kind: AccessGrant
metadata: {namespace: echo, name: service-a}
spec: {service: echo, subjects: [{serviceAccount: service-a, namespace: service-a}], roles: [echo-user]}
"""


class Echo:
    """A pair of sidecars of the test's own, around an upstream of the test's own, with the demo's issuer."""

    def __init__(self):
        self.dir = os.path.dirname(os.environ["READY"])
        with open(os.path.join(READY["dir"], "documents", "echo.yaml"), "w") as file:
            file.write(ECHO_DOCUMENTS)
        inbound, outbound = free_port(), free_port()
        self.inbound = self.start("echo-in", {
            "service": "echo/echo",
            "issuer": {"url": READY["issuer"], "subject_token_file": READY["subject_tokens"]["prometheus"]},
            "certificates": {"from": "issuer"},
            "inbound": [{
                "protocol": "http",
                "listen": f"127.0.0.1:{inbound}",
                "tls": {},
                "upstream": f"127.0.0.1:{upstream.serve()}",
            }],
        })
        self.outbound = self.start("echo-out", {
            "service": "service-a/service-a",
            "issuer": {"url": READY["issuer"], "subject_token_file": READY["subject_tokens"]["service-a"]},
            "outbound": [{
                "protocol": "http",
                "listen": f"127.0.0.1:{outbound}",
                "target": "echo/echo",
                "connect": f"127.0.0.1:{inbound}",
                "tls": {"ca_file": READY["ca_file"], "server_name": "prometheus.prometheus.svc"},
            }],
        })
        self.address = ("127.0.0.1", outbound)
        self.url = f"http://127.0.0.1:{outbound}"
        if not within(20, self.is_up):
            self.end()
            raise AssertionError("the test's own sidecars do not come up")

    def start(self, name, configuration):
        path = os.path.join(self.dir, f"{name}.yaml")
        with open(path, "w") as file:
            json.dump(configuration, file)
        log = open(os.path.join(self.dir, f"{name}.log"), "w")
        return subprocess.Popen([os.environ["SIDEGATE"], "sidecar", "--config", path], stdout=log, stderr=log)

    def is_up(self):
        try:
            return ask(f"{self.url}/head").status == 200
        except OSError:
            return False

    def end(self):
        for process in (self.inbound, self.outbound):
            process.terminate()
        for process in (self.inbound, self.outbound):
            process.wait(30)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def the_upstream_learns_who_calls_and_no_token(echo):
    forged = {
        "X-Sidegate-Subject": "system:serviceaccount:evil:evil",
        "x-sidegate-role": "admin",
        "X-SIDEGATE-DECISION": "none",
        "X-Sidegate-Anything": "at all",
        "X-Own": "kept",
    }
    told = ask(f"{echo.url}/head?a=1&b=%2f", headers=forged).json()
    headers = [(name.lower(), value) for name, value in told["headers"]]
    assert told["line"].startswith("GET /head?a=1&b=%2f "), told
    named = dict(headers)
    assert [value for name, value in headers if name == "x-sidegate-subject"] == ["system:serviceaccount:service-a:service-a"], headers
    assert [value for name, value in headers if name == "x-sidegate-role"] == ["echo-user"], headers
    assert len(named["x-sidegate-decision"]) == 36 and named["x-own"] == "kept" and "x-sidegate-anything" not in named, headers
    assert "authorization" not in named, "the token is for the sidecar alone"
    own = ask(f"{echo.url}/head", headers={"Authorization": "Basic dTpw"})
    assert own.status != 200 or not any("Bearer" in value for _, value in own.json()["headers"]), own


def a_body_streams_down(echo):
    """Each piece is there before the next one is sent."""
    connection = http.client.HTTPConnection(*echo.address, timeout=15)
    connection.request("GET", "/stream")
    ask(f"{echo.url}/next", "POST")
    answer = connection.getresponse()
    for number in range(10):
        if number:
            assert ask(f"{echo.url}/next", "POST").status == 200
        assert answer.readline() == f"chunk {number}\n".encode()
    assert answer.read() == b""


def a_body_streams_up_and_down_at_once(echo):
    with socket.create_connection(echo.address, 15) as connection:
        connection.sendall(b"POST /echo HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        reader = connection.makefile("rb")
        for number in range(10):
            piece = f"piece {number}".encode()
            connection.sendall(b"%x\r\n%b\r\n" % (len(piece), piece))
            if number == 0:
                assert b" 200 " in reader.readline()
                while reader.readline() != b"\r\n":
                    pass
            length = int(reader.readline(), 16)
            assert reader.read(length) == piece and reader.readline() == b"\r\n"
        connection.sendall(b"0\r\n\r\n")
        assert reader.readline() == b"0\r\n"


def a_body_stays_a_body(echo):
    """Whatever the method, with its length or without one that is known, though it goes by HTTP/2 between the sidecars."""
    for method in ("POST", "GET", "DELETE"):
        sized = ask(f"{echo.url}/count", method, {}, b"hello")
        assert sized.body == f"{method} sized 5".encode(), sized
        with socket.create_connection(echo.address, 15) as connection:
            connection.sendall(f"{method} /count HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n".encode())
            connection.settimeout(15)
            seen = b""
            while b"\r\n\r\n" not in seen or not seen.endswith(b" 5"):
                more = connection.recv(4096)
                assert more, seen
                seen += more
            assert seen.endswith(f"{method} chunked 5".encode()), seen
    assert ask(f"{echo.url}/count").body == b"GET none 0"


def those_that_do_not_read_hold_up_nobody(echo):
    lazy = []
    try:
        for _ in range(8):
            lazy.append(socket.create_connection(echo.address, 15))
            lazy[-1].sendall(b"GET /bytes?100000000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(1)
        for _ in range(3):
            connection = http.client.HTTPConnection(*echo.address, timeout=5)
            connection.request("GET", "/bytes?300000")
            assert len(connection.getresponse().read()) == 300000
    finally:
        for one in lazy:
            one.close()


def a_websocket_passes(echo):
    with socket.create_connection(echo.address, 15) as connection:
        key = base64.b64encode(os.urandom(16)).decode()
        connection.sendall(
            f"GET /socket HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            f"Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        reader = connection.makefile("rb")
        status = reader.readline()
        assert b" 101 " in status, status
        headers = {}
        while (line := reader.readline()) != b"\r\n":
            name, _, value = line.decode().partition(":")
            headers[name.lower()] = value.strip()
        accept = base64.b64encode(hashlib.sha1((key + upstream.GUID).encode()).digest()).decode()
        assert headers["sec-websocket-accept"] == accept and headers["upgrade"].lower() == "websocket", headers
        for size in (0, 5, 125, 126, 65535, 65536, 300000):
            payload = os.urandom(size)
            connection.sendall(upstream.frame_of(0x82, payload, os.urandom(4)))
            assert upstream.read_frame(reader) == (0x82, payload), size


def memory_stays_small(echo):
    """A gigabyte each way, past both sidecars; neither keeps it."""
    size = 1 << 30
    connection = http.client.HTTPConnection(*echo.address, timeout=120)
    connection.request("GET", f"/bytes?{size}")
    answer = connection.getresponse()
    buffer, got = bytearray(1 << 20), 0
    while count := answer.readinto(buffer):
        got += count
    assert got == size, got
    connection.request("POST", "/count", (upstream.BLOCK for _ in range(size // len(upstream.BLOCK))), {"Content-Length": str(size)})
    assert connection.getresponse().read() == f"POST sized {size}".encode()
    for process in (echo.inbound, echo.outbound):
        with open(f"/proc/{process.pid}/status") as file:
            peak = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
        assert peak < 64 << 10, f"{peak} KiB"


def main():
    cases = [
        prometheus_watches_the_demo, the_dashboards_panels_have_data, prometheus_may_be_read, prometheus_may_not_be_administered,
        no_way_of_writing_a_path_leads_around, no_grant_no_entry, a_token_is_asked_for_at_the_listener,
        web_pages_are_kept_out, a_refusal_arrives_whole, settings_are_live,
    ]
    of_our_own = [
        the_upstream_learns_who_calls_and_no_token, a_body_streams_down, a_body_streams_up_and_down_at_once,
        a_body_stays_a_body, those_that_do_not_read_hold_up_nobody, a_websocket_passes, memory_stays_small,
    ]
    echo = Echo()
    try:
        return run("HTTP services", cases + [functools.partial(case, echo) for case in of_our_own])
    finally:
        echo.end()


if __name__ == "__main__":
    sys.exit(main())
