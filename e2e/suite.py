"""What the suites in Python share: the demo that they run against, HTTP without a driver, and the run of all cases.

A case is a function; all run, and those that fail are named.
"""

import functools
import http.client
import json
import os
import ssl
import sys
import time
import traceback
import urllib.error
import urllib.parse
import urllib.request

READY = json.load(open(os.environ["READY"]))
TLS = ssl.create_default_context(cafile=READY["ca_file"])


class Answer:
    def __init__(self, status, headers, body):
        self.status, self.headers, self.body = status, headers, body

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"{self.status} {dict(self.headers)} {self.body[:500]!r}"


def ask(url, method="GET", headers={}, body=None):
    """One request; whatever its status is no exception. The path goes out as it is."""
    parts = urllib.parse.urlsplit(url)
    if parts.scheme == "https":
        connection = http.client.HTTPSConnection(parts.netloc, context=TLS, timeout=30)
    else:
        connection = http.client.HTTPConnection(parts.netloc, timeout=30)
    connection.request(method, url[len(f"{parts.scheme}://{parts.netloc}") :], body, headers)
    answer = connection.getresponse()
    try:
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()


def access_token(app, service):
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": open(READY["subject_tokens"][app]).read().strip(),
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": f"{service}/{service}",
    }
    with urllib.request.urlopen(READY["issuer"] + "/token", urllib.parse.urlencode(form).encode()) as answer:
        return json.load(answer)["access_token"]


def problem(answer, status):
    """A refusal as RFC 9457 has it."""
    assert answer.status == status, answer
    assert answer.headers["Content-Type"].startswith("application/problem+json"), answer
    said = answer.json()
    assert said["status"] == status and said["title"] and said["type"] and said["message"], said
    return said


def decisions(service):
    with open(READY["decision_logs"][service]) as file:
        return [line for line in map(json.loads, file) if "event" not in line]


def within(seconds, ask_again):
    deadline = time.monotonic() + seconds
    while not (found := ask_again()) and time.monotonic() < deadline:
        time.sleep(0.1)
    return found


def set_live(service, key, value):
    path = os.path.join(READY["settings"][service], key)
    with open(path + ".new", "w") as file:
        file.write(value)
    os.rename(path + ".new", path)
    time.sleep(1)


def run(what, cases):
    """Runs them all; the status for the shell."""
    failed = 0
    for case in cases:
        try:
            case()
        except Exception:  # noqa: BLE001: reported here
            failed += 1
            print(f"--- {name(case)}", file=sys.stderr)
            traceback.print_exc()
    print(f"{what}: {len(cases) - failed} passed, {failed} failed")
    return 1 if failed else 0


def name(case):
    return case.func.__name__ if isinstance(case, functools.partial) else case.__name__
