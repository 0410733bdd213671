"""What can be seen from outside: metrics of every process as promtool and Prometheus read them, and the alerts."""

import base64
import json
import os
import re
import secrets
import subprocess
import sys

from suite import READY, access_token, ask, run, within

HERE = os.path.dirname(os.path.abspath(__file__))
ALERTS = os.path.join(HERE, "../deploy/examples/monitoring/alerts.yaml")
DOCUMENTATION = os.path.join(HERE, "../docs/OBSERVABILITY.md")
METRICS = READY["metrics"]
DIRECT = READY["inbound_http"]["postgres-b"]
NATIVE = READY["outbound"]["service-a"]["postgres-b"]
PROMETHEUS = READY["http"]["service-a"]["prometheus"]


def everything_has_happened_once():
    """So that no family of metrics is empty."""
    psql(NATIVE, "select 1")
    psql(NATIVE, "delete from orders")
    for method in ("GET", "POST"):
        ask(f"{PROMETHEUS}/api/v1/query?query=up", method)


def psql(url, *statements):
    """Whatever comes of them."""
    commands = [word for statement in statements for word in ("-c", statement)]
    return subprocess.run(["psql", "-X", url, *commands], capture_output=True, text=True, timeout=60)


def promtool_finds_nothing_to_say():
    for process, url in METRICS.items():
        page = ask(url)
        assert page.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8", (process, page.headers)
        checked = subprocess.run(["promtool", "check", "metrics"], input=page.body, capture_output=True, timeout=30)
        assert checked.returncode == 0 and not checked.stdout and not checked.stderr, (process, checked)
        assert b"# EOF" not in page.body and b"# UNIT" not in page.body, process


def who_asks_for_openmetrics_gets_it():
    accept = "application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
    for process, url in METRICS.items():
        page = ask(url, headers={"Accept": accept})
        assert page.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0"), (process, page.headers)
        assert page.body.endswith(b"# EOF\n") and b"# TYPE sidegate_build info\n" in page.body, process
        for accept_less in ("*/*", "text/html", "application/openmetrics-text;q=0"):
            assert ask(url, headers={"Accept": accept_less}).headers["Content-Type"].startswith("text/plain"), accept_less


def families(process):
    return set(re.findall(r"^# TYPE (\S+) ", ask(METRICS[process]).body.decode(), re.M))


def the_documentation_names_every_metric():
    """Each with the processes that have it, both ways."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", open(DOCUMENTATION).read().split("## Metrics")[1].split("\n## ")[0], re.M)
    documented = {name: {one.strip() for one in where.split(",")} for name, where in rows}
    assert len(documented) > 20 and len(rows) == len(documented), rows
    kinds = {
        "issuer": "issuer", "postgres-a": "inbound", "postgres-b": "inbound", "prometheus": "inbound",
        "service-a": "outbound", "service-b": "outbound", "console": "console",
    }
    shown = {kind: set().union(*(families(one) for one in METRICS if kinds[one] == kind)) for kind in kinds.values()}
    for kind, names in shown.items():
        assert names <= documented.keys(), (kind, names - documented.keys())
        said = {name for name, where in documented.items() if where & {kind, "all"}}
        # Nobody's session is renewed here.
        rare = {"sidegate_session_renewals_total"}
        assert names - said == set() and said - names <= rare, (kind, names - said, said - names)


def each_protocol_is_timed():
    def count(process, protocol):
        found = re.search(rf'^sidegate_request_duration_seconds_count{{protocol="{protocol}"}} (\d+)', ask(METRICS[process]).body.decode(), re.M)
        return int(found[1]) if found else 0

    before = count("postgres-b", "postgres")
    psql(NATIVE, "select 1", "select 2; select 3", "delete from orders")
    assert within(5, lambda: count("postgres-b", "postgres") == before + 3), (before, count("postgres-b", "postgres"))
    before = count("postgres-b", "query")
    ask(f"{READY['http']['service-a']['postgres-b']}/query", "POST", {}, '{"query": "select 1"}')
    assert count("postgres-b", "query") == before + 1
    assert count("prometheus", "http") > 0 and count("service-a", "http") > 0


def tokens_are_counted_where_they_are_attached():
    def signed(process):
        return int(re.search(r"^sidegate_tokens_signed_total (\d+)", ask(METRICS[process]).body.decode(), re.M)[1])

    before = signed("service-a")
    psql(NATIVE, "select 1")
    ask(f"{PROMETHEUS}/api/v1/query?query=up")
    assert signed("service-a") == before + 2 and signed("issuer") > 0 and signed("postgres-b") == 0


def what_clients_make_up_makes_no_series():
    def series():
        return {process: len([line for line in ask(url).body.decode().splitlines() if line[0] != "#"]) for process, url in METRICS.items()}

    def odd(count):
        """Methods, paths, roles, statements, databases, tokens: a new one of each, every time."""
        token = access_token("service-a", "prometheus")
        for _ in range(count):
            word = "x" + secrets.token_hex(6)
            for url, headers in ((PROMETHEUS, {}), (READY["inbound_http"]["prometheus"], {"Authorization": f"Bearer {token}"})):
                ask(f"{url}/{word}", word.upper(), headers)
            ask(f"{READY['inbound_http']['prometheus']}/{word}", headers={"Authorization": f"Bearer {odd_token(token, word)}"})
            ask(f"{READY['inbound_http']['prometheus']}/{word}", headers={"Authorization": f"{word} {word}"})
            body = json.dumps({"query": f"select {word}({word}.*) from {word}.{word}"})
            ask(f"{READY['http']['service-a']['postgres-b']}/query", "POST", {"Neon-Connection-String": f"postgresql://{word}@host/{word}"}, body)
            ask(f"{READY['http']['service-a']['postgres-b']}/query", "POST", {}, body)
            ask(f"{DIRECT}/query/{word}", word)
            parts = NATIVE.rsplit("/", 1)
            psql(f"{parts[0]}/{word}", "select 1")
            psql(f"{NATIVE}?user={word}&application_name={word}", "select 1")
            psql(NATIVE, f"drop table {word}", f"{word}", f"select {word}()", f"set {word}.a to 1", f"create role {word}", f"merge into {word}")
            ask(f"{READY['issuer']}/token", "POST", {"Content-Type": "application/x-www-form-urlencoded"}, f"grant_type={word}&audience={word}")
            ask(f"{READY['issuer']}/{word}", word)

    odd(2)
    once = series()
    odd(5)
    again = series()
    assert all(again[process] <= once[process] for process in METRICS if process not in ("postgres-a", "postgres-b")), (once, again)
    # The ports that a database's sidecar sees come and go with the processes of this machine.
    assert all(abs(again[process] - once[process]) < 5 for process in ("postgres-a", "postgres-b")), (once, again)
    assert max(again.values()) < 400, again


def odd_token(token, word):
    head, payload, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
    claims.update(iss=word, sub=word, aud=word)
    return ".".join([head, base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("="), signature])


def the_alerts_fire_when_they_should():
    for command in (["check", "rules", ALERTS], ["test", "rules", ALERTS.replace("alerts.yaml", "alerts.test.yaml")]):
        checked = subprocess.run(["promtool", *command], capture_output=True, text=True, timeout=60)
        assert checked.returncode == 0, checked.stdout + checked.stderr
    tested = open(ALERTS.replace("alerts.yaml", "alerts.test.yaml")).read()
    for alert in re.findall(r"- alert: (\w+)", open(ALERTS).read()):
        assert f'alertname="{alert}"' in tested, f"no test in which {alert} fires"


def the_demos_prometheus_evaluates_the_alerts():
    names = set(re.findall(r"- alert: (\w+)", open(ALERTS).read()))

    def rules():
        found = ask(f"{PROMETHEUS}/api/v1/rules").json()["data"]["groups"]
        return {rule["name"]: (rule["health"], rule["state"]) for group in found for rule in group["rules"]}

    evaluated = within(20, lambda: {health for health, _ in rules().values()} == {"ok"} and rules())
    assert evaluated and evaluated.keys() == names, (evaluated, rules())
    firing = [name for name, (_, state) in rules().items() if state == "firing"]
    assert not firing, f"all is well in the demo: {firing}"


def main():
    everything_has_happened_once()
    return run("Seen from outside", [
        promtool_finds_nothing_to_say, who_asks_for_openmetrics_gets_it, the_documentation_names_every_metric, each_protocol_is_timed,
        tokens_are_counted_where_they_are_attached, what_clients_make_up_makes_no_series, the_alerts_fire_when_they_should,
        the_demos_prometheus_evaluates_the_alerts,
    ])


if __name__ == "__main__":
    sys.exit(main())
