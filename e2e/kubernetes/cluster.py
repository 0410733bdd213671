"""What the cases need of a cluster: kubectl, waiting, and statements from inside a service's pod."""

import glob
import json
import os
import subprocess
import time

EXAMPLES = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../deploy/examples/demo")
SIDEGATE, IMAGE = os.environ["SIDEGATE"], os.environ["IMAGE"]
POSTGRES_IMAGE = os.environ.get("POSTGRES_IMAGE", "postgres:17")
CLIENT_IMAGE = os.environ.get("CLIENT_IMAGE", POSTGRES_IMAGE)
SYSTEM = "sidegate-system"
NAMESPACES = ["postgres-a", "postgres-b", "service-a", "service-b"]


class Failed(Exception):
    pass


def run(*command, stdin=None, check=True, timeout=300):
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=timeout)
    if check and done.returncode:
        raise Failed(f"{' '.join(command)}: {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def kubectl(*arguments, **options):
    return run("kubectl", *arguments, **options)


def sidegate(*arguments, **options):
    return run(SIDEGATE, *arguments, **options)


def get(*arguments):
    return json.loads(kubectl("get", "-o", "json", *arguments).stdout)


def until(what, ask, seconds=60, every=0.25):
    """What `ask` finds, and how long it took; a failure, with the last that it said, if that takes too long."""
    begun = time.monotonic()
    while True:
        try:
            found = ask()
            if found:
                return found, time.monotonic() - begun
            said = found
        except (Failed, subprocess.TimeoutExpired) as error:
            said = error
        if time.monotonic() - begun > seconds:
            raise Failed(f"not in {seconds} s: {what}; last: {said}")
        time.sleep(every)


def apply(text):
    # A Service that has just been made may refuse for a moment, the webhook's too.
    return until("kubectl apply", lambda: kubectl("apply", "-f", "-", stdin=text), 60, 2)[0]


def examples():
    """The manifests of the examples, with the images that this cluster has."""
    for path in sorted(glob.glob(os.path.join(EXAMPLES, "*.yaml"))):
        image = CLIENT_IMAGE if os.path.basename(path).startswith("service-") else POSTGRES_IMAGE
        yield path, open(path).read().replace("image: postgres:17", f"image: {image}")


def rolled_out(namespace, workload, seconds=180):
    kubectl("-n", namespace, "rollout", "status", workload, f"--timeout={seconds}s", timeout=seconds + 10)


def pods(namespace, label):
    """The names of the pods that are there to stay."""
    items = get("-n", namespace, "pods", "-l", label)["items"]
    return [item["metadata"]["name"] for item in items if "deletionTimestamp" not in item["metadata"]]


def is_ready(pod):
    conditions = pod["status"].get("conditions", [])
    return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def execute(namespace, pod, *command, **options):
    return kubectl("-n", namespace, "exec", pod, "-c", "app", "--", *command, **options)


PORTS = {"postgres-a": 5432, "postgres-b": 6432}


def psql(service, database, statement, pod=None, **options):
    """One statement as an application of the service runs it."""
    url = f"postgresql://127.0.0.1:{PORTS[database]}/shop"
    command = ["psql", "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", url, "-c", statement]
    return execute(service, pod or f"deploy/{service}", *command, **options)


def allowed(service, database, statement, pod=None):
    return psql(service, database, statement, pod).stdout.strip()


def denied(service, database, statement, words, pod=None):
    done = psql(service, database, statement, pod, check=False)
    assert done.returncode and words in done.stderr, f"{statement}: {done.returncode} {done.stdout}{done.stderr}"


def set_live(namespace, key, value):
    patch = json.dumps({"data": {key: value}})
    kubectl("-n", namespace, "patch", "configmap", "auth-settings", "--type=merge", "-p", patch)


def metrics(namespace, pod):
    """The sidecar's own words, through the API server."""
    return kubectl("get", "--raw", f"/api/v1/namespaces/{namespace}/pods/{pod}:9901/proxy/metrics").stdout


def metric(text, name):
    return next(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))
