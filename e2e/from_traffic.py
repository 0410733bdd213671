"""From traffic to policy: what is suggested for traffic that was observed lets it pass when it is enforced, and with any one
rule less, exactly what needed that rule is denied. Besides: explain, replay and verify-log against a running demo."""

import datetime
import glob
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time

import psycopg
from suite import READY, ask, run, set_live, within

SIDEGATE = os.environ["SIDEGATE"]
DOCUMENTS = os.path.join(READY["dir"], "documents")
WEB = next(name for name in READY["http"]["service-a"] if not name.startswith("postgres-"))
TARGETS = ["postgres-a", "postgres-b", WEB]
APPS = ["service-a", "service-b"]
SCRATCH = tempfile.TemporaryDirectory()


class Traffic:
    """A statement or request, and each (action, object) that a rule must name for it."""

    def __init__(self, app, target, how, what, *needs):
        self.app, self.target, self.how, self.what, self.needs = app, target, how, what, set(needs)

    def __repr__(self):
        return f"{self.app} on {self.target}, {self.how}: {self.what}"

    def denial(self):
        """Sidegate's words if it is denied, None if it passes."""
        return {"native": self.native, "query": self.query, "GET": self.request, "POST": self.request}[self.how]()

    def native(self):
        try:
            with psycopg.connect(READY["outbound"][self.app][self.target], connect_timeout=10) as connection:
                connection.execute(self.what)
        except psycopg.Error as error:
            return str(error) if "sidegate:" in str(error) else None
        return None

    def query(self):
        url = READY["http"][self.app][self.target] + "/query"
        answer = ask(url, "POST", {}, json.dumps({"query": self.what}))
        return str(answer) if b"sidegate:" in answer.body else None

    def request(self):
        answer = ask(READY["http"][self.app][self.target] + self.what, self.how)
        return str(answer) if b"sidegate:" in answer.body else None


def select(*tables):
    return [("select", f"public.{table}") for table in tables]


TRAFFIC = [
    Traffic("service-a", "postgres-b", "native", "select count(*) from customers", *select("customers")),
    Traffic("service-a", "postgres-b", "native", "update orders set note = note where id = 1", *select("orders"), ("update", "public.orders")),
    Traffic("service-a", "postgres-b", "native", "insert into log (msg) values ('seen')", ("insert", "public.log")),
    Traffic("service-a", "postgres-b", "query", "delete from items where id = -1", *select("items"), ("delete", "public.items")),
    Traffic("service-a", "postgres-b", "query", "select 1 as one"),
    Traffic("service-b", "postgres-b", "native", "select c.email from customers c join orders o on o.customer_id = c.id limit 1", *select("customers", "orders")),
    Traffic("service-b", "postgres-b", "native", "select min(id) from items", *select("items")),
    Traffic("service-b", "postgres-b", "query", "insert into orders (customer_id) values (1)", ("insert", "public.orders")),
    # Nobody has granted this one anything.
    Traffic("service-b", "postgres-a", "native", "select count(*) from orders", *select("orders")),
    Traffic("service-b", "postgres-a", "query", "select count(*) from items", *select("items")),
    Traffic("service-a", "postgres-a", "native", "truncate log", ("truncate", "public.log")),
    Traffic("service-a", WEB, "GET", "/api/v1/labels", ("GET", "/api/v1/labels")),
    Traffic("service-a", WEB, "GET", "/api/v1/status/config", ("GET", "/api/v1/status/config")),
    Traffic("service-a", WEB, "POST", "/api/v1/labels", ("POST", "/api/v1/labels")),
    Traffic("service-b", WEB, "GET", "/api/v1/metadata", ("GET", "/api/v1/metadata")),
]


def sidegate(*arguments, status=0, **more):
    ran = subprocess.run([SIDEGATE, "policy", *arguments], capture_output=True, text=True, timeout=60, **more)
    assert ran.returncode == status, (arguments, ran)
    return ran.stdout


def log(service):
    usual = os.path.join(READY["dir"], "logs", f"{service}.decisions.jsonl")
    return READY.get("decision_logs", {}).get(service, usual)


def logged_since(marks):
    """What came into the logs since, as files. A record is written a moment after its answer."""
    assert within(10, lambda: all(size > marks[service] for service, size in sizes().items()))
    assert within(20, is_still)
    files = []
    for service, start in marks.items():
        with open(log(service), "rb") as file:
            file.seek(start)
            lines = file.read()
        path = os.path.join(SCRATCH.name, f"{service}.{start}.jsonl")
        with open(path, "wb") as file:
            file.write(lines)
        files.append(path)
    return files


def is_still():
    before = sizes()
    time.sleep(1)
    return before == sizes()


def sizes():
    return {service: os.path.getsize(log(service)) for service in TARGETS}


def verify(value):
    for service in TARGETS:
        set_live(service, "VERIFY_AUTH_ENABLED", value)


def denied():
    return {one for one in TRAFFIC if one.denial()}


def refresh_tokens():
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    for service in [*TARGETS, *APPS]:
        path = os.path.join(READY["settings"][service], "TOKENS_NOT_BEFORE")
        with open(path + ".new", "w") as file:
            file.write(now)
        os.rename(path + ".new", path)


def in_force(documents):
    """Puts documents in place of all there are, and makes every token be of them."""
    for path in glob.glob(os.path.join(DOCUMENTS, "*.yaml")):
        if not path.endswith("suggestion.yaml"):
            os.remove(path)
    path = os.path.join(DOCUMENTS, "suggestion.yaml")
    with open(path + ".new", "w") as file:
        file.write(documents)
    os.rename(path + ".new", path)


def denies_exactly(expected):
    """Within a while: documents are read, tokens are issued and sessions begun anew."""

    def as_expected():
        refresh_tokens()
        return denied() == expected

    if not within(40, as_expected):
        raise AssertionError(f"expected to be denied: {expected}\ndenied: {[(one, one.denial()) for one in denied()]}")


def rules(documents):
    """Each line that is a rule: its number, and the (action, object) pairs in it, with the subject and service of its document."""
    found, service, subject = [], None, None
    for number, line in enumerate(documents.splitlines()):
        if about := re.match(r"# system:serviceaccount:\S+:(\S+) on (\S+)/\S+:", line):
            subject, service = about[1], about[2]
        if rule := re.match(r"\s+- \{(?:actions|methods): \[(.*?)\], (?:tables|functions|paths): \[(.*)\]\}", line):
            names = re.findall(r'"((?:[^"\\]|\\.)*)"', rule[2])
            found.append((number, subject, service, {(action, name) for action in rule[1].split(", ") for name in names}))
    return found


def without(documents, number):
    """The documents without a rule; of one that has no other, what is left opens nothing that is needed."""
    lines = documents.splitlines()
    is_http = "methods:" in lines[number]
    lines[number] = "      - {methods: [GET], paths: [\"/none\"]}" if is_http else "      - {actions: [execute], functions: [\"pg_catalog.now\"]}"
    return "\n".join(lines) + "\n"


SUGGESTED = None


def what_was_observed_is_suggested():
    global SUGGESTED
    verify("observe")
    assert within(20, is_still)
    before = sizes()
    said = [(one, one.denial()) for one in TRAFFIC if one.denial()]
    assert not said, f"nothing is denied while it observes: {said}"
    names = {one.target for one in TRAFFIC}
    assert names == set(TARGETS)
    files = logged_since(before)
    SUGGESTED = sidegate("suggest", "--log", *files, "--user", "app_owner")
    assert SUGGESTED == sidegate("suggest", "--log", *files, "--user", "app_owner")
    found = {(app, target, need) for _, app, target, needs in rules(SUGGESTED) for need in needs}
    wanted = {(one.app, one.target, need) for one in TRAFFIC for need in one.needs}
    assert found == wanted, f"too much: {found - wanted}\nmissing: {wanted - found}\n{SUGGESTED}"
    only = sidegate("suggest", "--service", "postgres-b/postgres-b", "--log", *files)
    assert "namespace: postgres-a" not in only and "service: postgres-b" in only, only


def enforced_it_lets_the_same_traffic_pass():
    verify("true")
    in_force(SUGGESTED)
    denies_exactly(set())


def a_draft_says_the_same():
    assert within(20, is_still)
    before = sizes()
    assert not denied()
    files = logged_since(before)
    draft = os.path.join(SCRATCH.name, "draft")
    os.makedirs(draft, exist_ok=True)
    for number, app, target, needs in rules(SUGGESTED):
        with open(os.path.join(draft, "draft.yaml"), "w") as file:
            file.write(without(SUGGESTED, number))
        lines = [json.loads(line) for line in sidegate("replay", "--json", "--log", *files, "--roles", draft, status=3).splitlines()]
        expected = [one for one in TRAFFIC if (one.app, one.target) == (app, target) and one.needs & needs]
        assert lines[-1]["totals"]["newly_denied"] == len(expected), (needs, lines)
        assert lines[-1]["totals"]["not_decided"] == {}, lines
    with open(os.path.join(draft, "draft.yaml"), "w") as file:
        file.write(SUGGESTED)
    assert " 0 newly denied" in sidegate("replay", "--log", *files, "--roles", draft)


def each_rule_less_denies_exactly_what_needs_it():
    found = rules(SUGGESTED)
    assert len(found) >= 8, SUGGESTED
    for number, app, target, needs in found:
        in_force(without(SUGGESTED, number))
        denies_exactly({one for one in TRAFFIC if (one.app, one.target) == (app, target) and one.needs & needs})
    in_force(SUGGESTED)
    denies_exactly(set())


def why_was_it_denied():
    statement = "insert into items (order_id) select id from orders where note = 'x'"
    denial = Traffic("service-b", "postgres-b", "native", statement).denial()
    decision = re.search(r"Decision ([0-9a-f-]{36})", denial)[1]
    assert within(10, lambda: decision in open(log("postgres-b")).read())
    admin = READY["metrics"]["postgres-b"].removesuffix("/metrics")
    from_log = sidegate("explain", "--decision", decision, "--log", log("postgres-b"), status=3)
    from_sidecar = sidegate("explain", "--decision", decision, "--sidecar", admin, status=3)
    assert from_log == from_sidecar, (from_log, from_sidecar)
    assert "system:serviceaccount:service-b:service-b" in from_log and "denied  insert public.items" in from_log, from_log
    piped = sidegate("explain", "--json", "--decision", decision, "--log", "-", status=3, stdin=open(log("postgres-b")))
    explained = json.loads(piped)
    assert explained["enforced"] and explained["remedy"]["rules"], explained
    whole = sidegate("explain", "--decision", decision, "--log", log("postgres-b"), "--roles-dir", DOCUMENTS, status=3)
    document = whole[whole.index("---\n") :]
    assert "insert" in document and "kind: AccessGrant" not in document, whole
    other = json.loads(open(log("postgres-b")).readlines()[-1])["decision"][::-1]
    sidegate("explain", "--decision", other, "--log", log("postgres-b"), status=2)
    sidegate("explain", "--decision", "00000000-0000-4000-8000-000000000000", "--sidecar", admin, status=2)


def chained(lines):
    """The chain as it is documented, by another hand."""
    head, out = "0" * 64, []
    for line in lines:
        body = line[:-1]
        head = hashlib.sha256((head + body).encode()).hexdigest()
        out.append(f'{body},"chain":"{head}"}}')
    return out, head


def a_log_is_proven_whole():
    # As it was written, but for a chain that the demo may have put there.
    lines = [re.sub(r',"chain":"[0-9a-f]{64}"\}$', "}", line) for line in open(log("postgres-b")).read().splitlines()]
    good, head = chained(lines)
    early = json.loads(good[3])["chain"]
    path = os.path.join(SCRATCH.name, "chained")

    def check(lines, status, *more):
        with open(path, "w") as file:
            file.write("".join(f"{line}\n" for line in lines))
        return sidegate("verify-log", path, *more, status=status)

    assert head in check(good, 0)
    assert "contains the head" in check(good, 0, "--head", early)
    check(good[:3], 3, "--head", early)
    check(good[:5] + good[6:], 3)
    check(good[:5] + [good[5].replace('"schema":1', '"schema":2')] + good[6:], 3)
    check(good[:5] + [good[4]] + good[5:], 3)
    check(lines, 2)
    with open(path, "w") as file:
        file.write("\n".join(good) + "\n" + good[-1][:40])
    assert "the last line is torn" in sidegate("verify-log", path)
    sidegate("verify-log", "/no/such/log", status=2)


if __name__ == "__main__":
    sys.exit(
        run(
            "from traffic",
            [
                what_was_observed_is_suggested,
                enforced_it_lets_the_same_traffic_pass,
                a_draft_says_the_same,
                each_rule_less_denies_exactly_what_needs_it,
                why_was_it_denied,
                a_log_is_proven_whole,
            ],
        )
    )
