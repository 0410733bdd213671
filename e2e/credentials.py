"""Renewal and rotation under constant load: pgbench, pgbench with a connection a transaction, and SQL over HTTP, all
through both sidecars, while tokens (20 s), certificates (40 s), signing keys and authorities turn over by themselves and
by command, the issuer restarts and is away, settings flip, and tokens are refreshed. Not one transaction may fail."""

import datetime
import glob
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

from suite import READY, ask, set_live, within

SECONDS = 100
PGBENCH = shutil.which("pgbench") or sorted(glob.glob("/usr/lib/postgresql/*/bin/pgbench"))[-1]
SCRIPT = "\\set id random(1, 200)\nselect name from customers where id = :id;\n"


class Load:
    """One pgbench. Errors of a statement end its client, and are counted by how it ends."""

    def __init__(self, what, *arguments):
        self.what = what
        self.script = tempfile.NamedTemporaryFile("w", suffix=".sql")
        self.script.write(SCRIPT)
        self.script.flush()
        url = READY["outbound"]["service-a"]["postgres-b"]
        command = [PGBENCH, "-n", "-f", self.script.name, "-T", str(SECONDS), *arguments, url]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def end(self):
        said, _ = self.process.communicate(timeout=SECONDS + 60)
        done = re.search(r"number of transactions actually processed: (\d+)", said)
        failed = re.search(r"number of failed transactions: (\d+)", said)
        failed = int(failed.group(1)) if failed else 0
        assert self.process.returncode == 0 and done and failed == 0 and "aborted" not in said, f"{self.what}:\n{said}"
        print(f"{self.what}: {done.group(1)} transactions, 0 failed")


class HttpLoad(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True)
        self.requests, self.failed, self.over = 0, [], False

    def run(self):
        url = READY["http"]["service-a"]["postgres-b"] + "/query"
        body = json.dumps({"query": "select name from customers where id = $1", "params": [7]})
        while not self.over:
            try:
                answer = ask(url, "POST", {"Content-Type": "application/json"}, body)
                self.requests += 1
                if answer.status != 200:
                    self.failed.append((elapsed(), answer))
            except OSError as error:
                self.failed.append((elapsed(), error))
            time.sleep(0.01)

    def end(self):
        self.over = True
        self.join(30)
        assert not self.failed, self.failed[:5]
        print(f"SQL over HTTP: {self.requests} requests, 0 failed")


STARTED = time.monotonic()


def elapsed():
    return round(time.monotonic() - STARTED, 1)


def say(what):
    print(f"  {elapsed():6.1f} s  {what}", flush=True)


def issuers():
    """The issuer's own process, not the guard that started it."""
    found = []
    for directory in glob.glob("/proc/[0-9]*"):
        try:
            line = open(directory + "/cmdline").read().split("\0")
        except OSError:
            continue
        if "issuer" in line and "guard" not in line and any(READY["dir"] in part for part in line):
            found.append(int(os.path.basename(directory)))
    assert found, "no issuer"
    return found


def kids():
    return {key["kid"] for key in ask(READY["issuer"] + "/jwks").json()["keys"]}


def authorities():
    return set(re.findall(r"-----BEGIN CERTIFICATE-----[^-]+-----END", open(READY["trust_bundle"]).read()))


def metric(process, name):
    """The sum over all labels."""
    lines = ask(READY["metrics"][process]).body.decode().splitlines()
    return sum(float(line.rsplit(" ", 1)[1]) for line in lines if re.match(name + r"(\{|_total|\s)", line))


def rotate(what):
    configuration = os.path.join(READY["dir"], "config", "issuer.yaml")
    run = subprocess.run([os.environ["SIDEGATE"], "issuer", "rotate", "--config", configuration, what], capture_output=True, text=True)
    say(f"rotate {what}: {(run.stdout + run.stderr).strip()}")
    assert run.returncode == 0, run


class Seen(threading.Thread):
    """Which keys and authorities there were."""

    def __init__(self):
        super().__init__(daemon=True)
        self.kids, self.authorities, self.over = set(), set(), False

    def run(self):
        while not self.over:
            try:
                self.kids |= kids()
                self.authorities |= authorities()
            except (OSError, ValueError):
                pass
            time.sleep(1)


def wait_until(second):
    time.sleep(max(0, second - elapsed()))


def main():
    seen = Seen()
    seen.start()
    renewals = metric("postgres-b", "sidegate_session_renewals")
    certificates = metric("service-a", "sidegate_certificate_renewals")
    loads = [
        Load("pgbench, prepared", "-M", "prepared", "-c", "4"),
        Load("pgbench, simple", "-c", "2"),
        Load("pgbench, a connection a transaction", "-C", "-c", "2"),
        HttpLoad(),
    ]
    loads[-1].start()
    wait_until(5)
    rotate("signing-keys")
    rotate("authority")
    wait_until(15)
    for pid in issuers():
        os.kill(pid, signal.SIGKILL)
    say("issuer killed; the demo starts it again")
    assert within(20, lambda: alive()), "the issuer does not come back"
    say("issuer back")
    wait_until(30)
    stopped = issuers()
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    say("issuer away")
    wait_until(42)
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    say("issuer back")
    wait_until(46)
    for value in ["observe", "false", "true", "false", "observe", "true", "observe", "true", "false", "true"]:
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", value)
        say(f"verification {value}")
    rotate("signing-keys")
    wait_until(62)
    for _ in range(5):
        now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        set_live("postgres-b", "TOKENS_NOT_BEFORE", now)
        say("tokens refreshed")
        time.sleep(2)
    for load in loads:
        load.end()
    seen.over = True
    renewals = metric("postgres-b", "sidegate_session_renewals") - renewals
    certificates = metric("service-a", "sidegate_certificate_renewals") - certificates
    print(f"{renewals:.0f} tokens brought to open sessions, {certificates:.0f} certificates renewed by service-a's sidecar,")
    print(f"{len(seen.kids)} signing keys and {len(seen.authorities)} authorities seen")
    assert renewals > 50 and certificates >= 4 and len(seen.kids) >= 4 and len(seen.authorities) >= 3


def alive():
    try:
        return ask(READY["issuer"] + "/healthz").status == 200
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(main())
