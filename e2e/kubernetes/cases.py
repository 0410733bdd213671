"""The cases, in the order in which they build on each other. The first that fails ends the run; what is there is then shown."""

import json
import os
import subprocess
import sys
import threading
import time
import traceback

from cluster import (
    IMAGE,
    NAMESPACES,
    SYSTEM,
    Failed,
    allowed,
    apply,
    denied,
    examples,
    execute,
    get,
    is_ready,
    kubectl,
    metric,
    metrics,
    pods,
    psql,
    rolled_out,
    set_live,
    sidegate,
    until,
)
from console import console

# What each service may and may not: (service, database, statement, the words of the refusal or None).
STATEMENTS = [
    ("service-a", "postgres-a", "update orders set status = 'paid' where id = 1", None),
    ("service-a", "postgres-a", "truncate orders", "writer may not truncate orders"),
    ("service-a", "postgres-b", "select count(*) from customers", None),
    ("service-a", "postgres-b", "delete from orders", "reader may not delete orders"),
    ("service-b", "postgres-b", "insert into orders (customer_id) values (1)", None),
    ("service-b", "postgres-b", "select email from customers", "orders-writer may not select public.customers"),
    ("service-b", "postgres-a", "select 1", "no token for this connection"),
]
MIB = 1 << 20
# What an idle sidecar may take, in MiB; an unoptimized build takes more.
IDLE = float(os.environ.get("IDLE_MIB", "10"))


def preflight():
    said = sidegate("check", "--pre", check=False)
    assert said.returncode == 0, said.stdout + said.stderr


def install():
    manifests = sidegate("install", "--console", "--image", IMAGE).stdout
    kubectl("apply", "--dry-run=server", "-f", "-", stdin=namespaces_first(manifests))
    apply(manifests)
    for deployment in ("sidegate-issuer", "sidegate-injector", "sidegate-console"):
        rolled_out(SYSTEM, f"deploy/{deployment}")
    again = apply(manifests)
    assert "created" not in again.stdout, again.stdout


def namespaces_first(manifests):
    """A dry run makes no namespace, and so could not judge what is in it."""
    kubectl("create", "namespace", SYSTEM, check=False)
    return manifests


def inject():
    for path, text in examples():
        apply(text)
        print(f"  {os.path.basename(path)}")
    for database in ("postgres-a", "postgres-b"):
        rolled_out(database, f"statefulset/{database}")
    for service in ("service-a", "service-b"):
        rolled_out(service, f"deploy/{service}")
    for namespace in NAMESPACES:
        for pod in get("-n", namespace, "pods")["items"]:
            sidecars = [c["name"] for c in pod["spec"].get("initContainers", []) if c.get("restartPolicy") == "Always"]
            assert sidecars == ["sidegate"], (pod["metadata"]["name"], sidecars)


def statements():
    for service, database, statement, refusal in STATEMENTS:
        if refusal is None:
            until(statement, lambda: psql(service, database, statement), 30)
        else:
            denied(service, database, statement, refusal)


def nobody_gets_round():
    """PostgreSQL has no port of its own: on the pod's address only the sidecar answers, and it asks for a token."""
    address = get("-n", "postgres-b", "pod", "postgres-b-0")["status"]["podIP"]
    done = execute(
        "service-b", "deploy/service-b", "psql", "-X", f"postgresql://postgres@{address}:5432/shop?sslmode=require", "-w", "-c", "select 1",
        check=False,
    )
    assert done.returncode and "password" in done.stderr, done.stderr


def settings():
    """With the ConfigMap watched, a change counts within a second or so."""
    statement, refusal = "select email from customers limit 1", "may not select"
    for value, seconds in (("observe", 10), ("true", 10), ("false", 10), ("true", 10)):
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", value)
        if value == "true":
            ask = lambda: refusal in psql("service-b", "postgres-b", statement, check=False).stderr  # noqa: E731
        else:
            # The role's own login has no right to it in PostgreSQL either: what has to be gone is Sidegate's refusal.
            ask = lambda: refusal not in psql("service-b", "postgres-b", statement, check=False).stderr  # noqa: E731
        _, took = until(f"verification {value}", ask, seconds, 0.05)
        print(f"  verification {value}: seen after {took:.1f} s")


def grants():
    kubectl("-n", "postgres-b", "delete", "accessgrant", "service-b")
    set_live("postgres-b", "TOKENS_NOT_BEFORE", time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
    ask = lambda: "no token" in psql("service-b", "postgres-b", "select 1", check=False).stderr  # noqa: E731
    _, took = until("a grant that is gone", ask, 30)
    print(f"  grant removed and tokens refreshed: first refusal after {took:.1f} s")
    text = next(text for path, text in examples() if path.endswith("postgres-b.yaml"))
    apply(text)
    _, took = until("the grant again", lambda: psql("service-b", "postgres-b", "select count(*) from orders"), 30)
    print(f"  grant given: let in after {took:.1f} s")


def scaling():
    kubectl("-n", "service-a", "scale", "deploy/service-a", "--replicas=3")
    rolled_out("service-a", "deploy/service-a")
    names = pods("service-a", "app=service-a")
    assert len(names) == 3, names
    for name in names:
        allowed("service-a", "postgres-b", "select count(*) from customers", f"pod/{name}")
        denied("service-a", "postgres-b", "delete from orders", "reader may not delete", f"pod/{name}")
    kubectl("-n", "service-a", "scale", "deploy/service-a", "--replicas=1")


def healing():
    before = get("-n", "postgres-b", "pod", "postgres-b-0")["metadata"]["uid"]
    kubectl("-n", "postgres-b", "delete", "pod", "postgres-b-0", "--wait=false")
    until("another pod", lambda: healed(before), 120)
    until("statements", lambda: psql("service-a", "postgres-b", "select count(*) from customers"), 30)


def healed(before):
    pod = get("-n", "postgres-b", "pod", "postgres-b-0")
    return pod["metadata"]["uid"] != before and is_ready(pod)


class Load(threading.Thread):
    """Clients that connect for each transaction: every login and every statement of a session counts."""

    def __init__(self, seconds):
        super().__init__(daemon=True)
        self.seconds, self.said = seconds, None

    def run(self):
        script = "select count(*) from customers;"
        url = "postgresql://127.0.0.1:6432/shop"
        command = f"echo '{script}' > /tmp/load.sql && pgbench -n -C -c 2 -T {self.seconds} -f /tmp/load.sql '{url}'"
        done = execute("service-a", "deploy/service-a", "sh", "-c", command, check=False, timeout=self.seconds + 120)
        self.said = done

    def end(self):
        self.join()
        text = self.said.stdout + self.said.stderr
        assert self.said.returncode == 0 and "failed transactions: 0" in text and "aborted" not in text, text
        count = next(line.split()[-1] for line in text.splitlines() if "actually processed" in line)
        print(f"  {count} connections, 0 failed")


def restarts_of_the_control_plane():
    load = Load(60)
    load.start()
    for deployment in ("sidegate-issuer", "sidegate-injector", "sidegate-console"):
        kubectl("-n", SYSTEM, "rollout", "restart", f"deploy/{deployment}")
        rolled_out(SYSTEM, f"deploy/{deployment}")
    load.end()


def restart_of_the_database():
    """Its pod goes and comes, sidecar and all: logins wait meanwhile, and none is refused. Sessions that were open are told so."""
    load = Reconnecting(75)
    load.start()
    time.sleep(5)
    kubectl("-n", "postgres-b", "rollout", "restart", "statefulset/postgres-b")
    rolled_out("postgres-b", "statefulset/postgres-b")
    load.end()


class Reconnecting(Load):
    """A client as applications are: a statement a connection, over and over; what is refused at login is counted."""

    def run(self):
        script = (
            f"end=$(( $(date +%s) + {self.seconds} )); ok=0; login=0; broken=0; "
            "while [ $(date +%s) -lt $end ]; do "
            "if out=$(psql -X -A -t postgresql://127.0.0.1:6432/shop -c 'select count(*) from customers' 2>&1); then ok=$((ok+1)); "
            'else case "$out" in *connection\\ to\\ server*failed*) login=$((login+1)); echo "$out";; *) broken=$((broken+1)); echo "$out";; esac; fi; '
            "done; echo ok $ok login $login broken $broken"
        )
        self.said = execute(
            "service-a", "deploy/service-a", "sh", "-c", script, check=False, timeout=self.seconds + 120
        )

    def end(self):
        self.join()
        counts = self.said.stdout.strip().splitlines()[-1].split()
        ok, login, broken = int(counts[1]), int(counts[3]), int(counts[5])
        print(f"  {ok} logins, {login} refused, {broken} sessions ended under a statement")
        assert ok > 20 and login == 0, self.said.stdout


def wrong_objects():
    """Refused by the API server, or told in the object's status; never a wider right."""
    refused, told = 0, 0
    for name, spec in WRONG.items():
        kind = "AccessGrant" if "subjects" in spec else "AccessRole"
        document = {
            "apiVersion": "sidegate.dev/v1alpha1", "kind": kind,
            "metadata": {"namespace": "postgres-b", "name": name}, "spec": spec,
        }  # fmt: skip
        done = kubectl("apply", "-f", "-", stdin=json.dumps(document), check=False)
        if done.returncode:
            refused += 1
            continue
        until(f"{name} to be told", lambda: accepted(kind, name) == "False", 20)
        told += 1
        kubectl("-n", "postgres-b", "delete", kind.lower(), name)
    print(f"  {refused} refused by the API server, {told} with Accepted=False")
    denied("service-b", "postgres-b", "select email from customers", "orders-writer may not select")


def accepted(kind, name):
    conditions = get("-n", "postgres-b", kind.lower(), name).get("status", {}).get("conditions", [])
    return next((condition["status"] for condition in conditions if condition["type"] == "Accepted"), None)


RULE = {"actions": ["select"], "tables": ["public.customers"]}
SUBJECTS = [{"serviceAccount": "service-b", "namespace": "service-b"}]


def postgres(*rules, **more):
    return {"service": "postgres-b", "postgres": {"user": "app_reader", "rules": list(rules), **more}}


WRONG = {
    "no-rules": postgres(),
    "unknown-action": postgres({"actions": ["SELECT"], "tables": ["public.customers"]}),
    "no-schema": postgres({"actions": ["select"], "tables": ["customers"]}),
    "star": postgres({"actions": ["select"], "tables": ["*"]}),
    "functions-for-tables": postgres({"actions": ["select"], "functions": ["public.f"]}),
    "no-user": {"service": "postgres-b", "postgres": {"rules": [RULE]}},
    "other-namespace": {"service": "postgres-a/postgres-a", "postgres": {"user": "u", "rules": [RULE]}},
    "misspelt": {"service": "postgres-b", "postgres": {"user": "u", "rules": [RULE], "databases": ["shop"]}},
    "lower-case-method": {"service": "postgres-b", "http": {"rules": [{"methods": ["get"], "paths": ["/"]}]}},
    "open-path": {"service": "postgres-b", "http": {"rules": [{"methods": ["GET"], "paths": ["/a/../b"]}]}},
    "reader": postgres(RULE),
    "no-such-role": {"service": "postgres-b", "subjects": SUBJECTS, "roles": ["nobody"]},
    "no-subjects": {"service": "postgres-b", "subjects": [], "roles": ["reader"]},
    "half-a-subject": {"service": "postgres-b", "subjects": [{"serviceAccount": "service-b"}], "roles": ["reader"]},
    "grant-with-rules": {"service": "postgres-b", "subjects": SUBJECTS, "roles": ["orders-writer"], "http": {"rules": []}},
}


def memory():
    """Of sidecars that have just started and served a statement, as the kubelet counts it against the pod's limit. The process's own
    count has the pages of the program in it, too, which all sidecars of a node share."""
    for namespace, workload in (("postgres-a", "statefulset/postgres-a"), ("service-b", "deploy/service-b")):
        kubectl("-n", namespace, "rollout", "restart", workload)
        rolled_out(namespace, workload)
    until("a statement", lambda: psql("service-a", "postgres-a", "select 1"), 30)
    for namespace, label in (("postgres-a", "app=postgres-a"), ("service-b", "app=service-b")):
        for pod in pods(namespace, label):
            counted, _ = until("the kubelet's count", lambda: working_set(namespace, pod), 60, 1)
            resident = metric(metrics(namespace, pod), "process_resident_memory_bytes ")
            print(f"  {namespace}/{pod}: {counted / MIB:.1f} MiB working set, {resident / MIB:.1f} MiB resident")
            assert counted <= IDLE * MIB, f"{namespace}/{pod}: {counted / MIB:.1f} MiB"


def working_set(namespace, pod):
    """In bytes; nothing while the kubelet has not looked yet."""
    node = get("-n", namespace, "pod", pod)["spec"]["nodeName"]
    summary = json.loads(kubectl("get", "--raw", f"/api/v1/nodes/{node}/proxy/stats/summary").stdout)
    found = (one for one in summary["pods"] if one["podRef"]["namespace"] == namespace and one["podRef"]["name"] == pod)
    containers = (one for of in found for one in of.get("containers", []) if one["name"] == "sidegate")
    return next((one["memory"].get("workingSetBytes") for one in containers if "memory" in one), None)


def health():
    said = sidegate("check", check=False)
    print("\n".join("  " + line for line in said.stdout.splitlines()))
    assert said.returncode == 0, said.stdout + said.stderr


def uninstall():
    for _, text in examples():
        kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=text)
    kubectl("delete", "--ignore-not-found", "--wait=false", "-f", "-", stdin=sidegate("install", "--console", "--image", IMAGE).stdout)
    gone = lambda: not kubectl("get", "namespaces", *NAMESPACES, SYSTEM, "--ignore-not-found").stdout  # noqa: E731
    until("all namespaces to be gone", gone, 180, 1)


CASES = [
    preflight, install, inject, statements, nobody_gets_round, settings, console, grants, scaling, healing,
    restarts_of_the_control_plane, restart_of_the_database, wrong_objects, memory, health,
]  # fmt: skip


def show():
    for command in (
        ["get", "pods", "-A", "-o", "wide"],
        ["get", "events", "-A", "--field-selector=type=Warning", "--sort-by=.lastTimestamp"],
        ["get", "accessroles,accessgrants", "-A"],
    ):
        print(kubectl(*command, check=False).stdout[-4000:], file=sys.stderr)
    for namespace, workload in ((SYSTEM, "deploy/sidegate-issuer"), (SYSTEM, "deploy/sidegate-injector")):
        print(kubectl("-n", namespace, "logs", "--tail=10", workload, check=False).stdout, file=sys.stderr)
    for namespace in NAMESPACES:
        workload = f"{'statefulset' if namespace.startswith('postgres') else 'deploy'}/{namespace}"
        said = kubectl("-n", namespace, "logs", "--tail=5", "-c", "sidegate", workload, check=False)
        print(f"-- {namespace}\n{said.stdout}", file=sys.stderr)


def main():
    wanted = sys.argv[1:]
    cases = [case for case in CASES if not wanted or case.__name__ in wanted]
    passed = 0
    try:
        for case in cases:
            print(f"== {case.__name__}")
            case()
            passed += 1
    except (Failed, AssertionError, StopIteration, subprocess.TimeoutExpired):
        traceback.print_exc()
        show()
    finally:
        if not os.environ.get("KEEP"):
            uninstall()
    print(f"kubernetes: {passed} passed, {len(cases) - passed} failed")
    return 0 if passed == len(cases) else 1


if __name__ == "__main__":
    sys.exit(main())
