"""The console in a cluster, as people use it: through a forwarded port, each with their own rights."""

import html
import http.client
import json
import re
import subprocess
import urllib.parse

from cluster import IMAGE, SYSTEM, allowed, apply, denied, get, kubectl, psql, rolled_out, sidegate, until

# Who may do all in postgres-b and nothing elsewhere; who may only look, everywhere; and who may come to the console and nothing else.
PEOPLE = """
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: postgres-b, name: editor}
---
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: postgres-b, name: onlooker}
---
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: postgres-b, name: visitor}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {namespace: sidegate-system, name: sidegate-e2e-visitor}
rules:
  - {apiGroups: [""], resources: [pods/portforward], verbs: [get, create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {namespace: sidegate-system, name: sidegate-e2e-visitor}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: sidegate-e2e-visitor}
subjects: [{kind: ServiceAccount, namespace: postgres-b, name: visitor}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {namespace: postgres-b, name: editor}
rules:
  - {apiGroups: [""], resources: [configmaps], resourceNames: [auth-settings], verbs: [get, list, watch, update]}
  - {apiGroups: [sidegate.dev], resources: [accessroles, accessgrants], verbs: [get, list, watch, create, update, delete]}
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods/proxy], verbs: [get]}
  - {apiGroups: [""], resources: [pods/portforward], verbs: [get, create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {namespace: postgres-b, name: editor}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: editor}
subjects: [{kind: ServiceAccount, namespace: postgres-b, name: editor}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: sidegate-e2e-onlooker}
rules:
  - {apiGroups: [""], resources: [configmaps], resourceNames: [auth-settings], verbs: [get, list, watch]}
  - {apiGroups: [sidegate.dev], resources: [accessroles, accessgrants], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods], verbs: [get, list, watch]}
  - {apiGroups: [""], resources: [pods/proxy], verbs: [get]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: sidegate-e2e-onlooker}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: sidegate-e2e-onlooker}
subjects: [{kind: ServiceAccount, namespace: postgres-b, name: onlooker}]
"""

GRANT = """
apiVersion: sidegate.dev/v1alpha1
kind: AccessGrant
metadata: {{namespace: postgres-b, name: service-b}}
spec:
  service: postgres-b
  subjects: [{{serviceAccount: service-b, namespace: service-b}}]
  roles: [{roles}]
"""


class Browser:
    """Just enough of one: a cookie, forms, and text without its tags."""

    def __init__(self, port):
        self.port, self.cookie = port, ""

    def ask(self, method, path, fields=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        headers = {"Origin": f"http://127.0.0.1:{self.port}", "Cookie": self.cookie}
        body = None
        if fields is not None:
            body = urllib.parse.urlencode(fields)
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        if cookie := answer.getheader("Set-Cookie"):
            assert "HttpOnly" in cookie and "SameSite=Strict" in cookie, cookie
            self.cookie = cookie.split(";")[0]
        connection.close()
        return answer.status, text

    def page(self, path):
        status, text = self.ask("GET", path)
        assert status == 200, f"{path}: {status} {words(text)}"
        return text

    def sign_in(self, account, namespaces=""):
        token = kubectl("-n", "postgres-b", "create", "token", account).stdout.strip()
        status, text = self.ask("POST", "/sign-in", {"token": token, "namespaces": namespaces})
        assert status == 303, f"{status} {words(text)}"
        return self

    def post(self, of, path, **fields):
        """With what a page's forms bring along."""
        text = self.page(of)
        hidden = {name: re.search(f'name="{name}" value="([^"]*)"', text) for name in ("csrf", "version")}
        brought = {name: html.unescape(found[1]) for name, found in hidden.items() if found}
        return self.ask("POST", path, {**brought, **fields})


def words(text):
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", text)).split())


def set_to(browser, value, **fields):
    fields = {"key": "VERIFY_AUTH_ENABLED", "value": value, "confirmed": "yes", **fields}
    return browser.post("/services/postgres-b", "/services/postgres-b/settings", **fields)


def save(browser, text, **fields):
    fields = {"namespace": "postgres-b", "kind": "AccessGrant", "name": "service-b", "confirmed": "yes", "text": text, **fields}
    return browser.post("/access/postgres-b/AccessGrant/service-b", "/access/save", **fields)


def console():
    apply(PEOPLE)
    visit(strangers, switches, documents, onlooker, pages)
    try:
        installed("--console=own-account")
        visit(own_account)
    finally:
        installed("--console")
        # Applying takes nothing away.
        kubectl("delete", "clusterrole,clusterrolebinding", "sidegate-console")


def installed(console):
    apply(sidegate("install", console, "--image", IMAGE).stdout)
    rolled_out(SYSTEM, "deploy/sidegate-console")
    # One that ends is still found by kubectl port-forward.
    pods = lambda: len(get("-n", SYSTEM, "pods", "-l", "app.kubernetes.io/component=console")["items"]) == 1  # noqa: E731
    until("one console", pods, 60, 0.5)


def visit(*cases):
    forward = ["kubectl", "-n", SYSTEM, "port-forward", "deploy/sidegate-console", ":8080"]
    process = subprocess.Popen(forward, stdout=subprocess.PIPE, text=True)
    try:
        port = int(re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())[1])
        for case in cases:
            print(f"  {case.__name__}")
            case(port)
    finally:
        process.kill()
        process.wait()


def strangers(port):
    for fields in ({"token": "e30.e30.e30"}, {"token": ""}, {"key": "guess"}):
        assert Browser(port).ask("POST", "/sign-in", fields)[0] == 403
    assert Browser(port).ask("GET", "/")[0] == 303
    assert Browser(port).ask("GET", "/events/decisions")[0] == 401


def switches(port):
    browser = Browser(port).sign_in("editor", "postgres-b")
    statement, refusal = "select email from customers limit 1", "may not select"
    stale = re.search('name="version" value="([^"]*)"', browser.page("/services/postgres-b"))[1]
    assert set_to(browser, "observe")[0] == 303
    assert get("-n", "postgres-b", "configmap", "auth-settings")["data"]["VERIFY_AUTH_ENABLED"] == "observe"
    status, text = set_to(browser, "false", version=stale)
    assert status == 409 and "observe" in words(text), (status, words(text))
    _, took = until("taken up", lambda: "taken up" in words(browser.page("/services/postgres-b")), 10, 0.1)
    print(f"    taken up after {took:.1f} s")
    passes = lambda: refusal not in psql("service-b", "postgres-b", statement, check=False).stderr  # noqa: E731
    until("observed", passes, 10, 0.1)
    assert set_to(browser, "true")[0] == 303
    until("enforced", lambda: not passes(), 10, 0.1)
    history = words(browser.page("/services/postgres-b"))
    assert "system:serviceaccount:postgres-b:editor VERIFY_AUTH_ENABLED: observe VERIFY_AUTH_ENABLED: true" in history, history
    listed = words(browser.page("/"))
    assert "postgres-b" in listed and "postgres-a" not in listed, listed


def documents(port):
    browser = Browser(port).sign_in("editor", "postgres-b")
    status, text = save(browser, GRANT.format(roles="orders-writer, nobody-made-it"))
    assert status == 422 and "nobody-made-it" in words(text), (status, words(text))
    status, text = save(browser, GRANT.format(roles="orders-writer").replace("name: service-b", "name: other", 1))
    assert status == 422 and "cannot be changed" in words(text), (status, words(text))
    page = browser.page("/access/postgres-b/AccessGrant/service-b")
    stale = re.search('name="version" value="([^"]*)"', page)[1]
    denied("service-b", "postgres-b", "select email from customers limit 1", "may not select")
    assert save(browser, GRANT.format(roles="reader"))[0] == 303
    until("a new login reads", lambda: psql("service-b", "postgres-b", "select email from customers limit 1"), 30)
    # Two people: who comes later is told what is there.
    other = Browser(port).sign_in("editor", "postgres-b")
    status, text = save(other, GRANT.format(roles="orders-writer"), version=stale)
    assert status == 409 and "reader" in words(text), (status, words(text))
    kubectl("-n", "postgres-b", "label", "accessgrant", "service-b", "team=orders")
    assert save(browser, GRANT.format(roles="orders-writer"))[0] == 303
    spec = get("-n", "postgres-b", "accessgrant", "service-b")["spec"]
    assert spec["roles"] == ["orders-writer"], spec
    # Tokens that are out say what was granted when they were made; for those there is a button.
    assert browser.post("/services/postgres-b", "/services/postgres-b/refresh-tokens", confirmed="yes")[0] == 303
    refused = lambda: "may not select" in psql("service-b", "postgres-b", "select email from customers", check=False).stderr  # noqa: E731
    until("as it was", refused, 30)
    new = GRANT.format(roles="reader").replace("name: service-b", "name: extra", 1)
    status, text = browser.post("/access/new", "/access/check", text=new, rehearse="yes")
    version = re.search('name="version" value="([^"]*)"', text)[1]
    fields = {"namespace": "", "kind": "", "name": "", "text": new, "confirmed": "yes", "version": version}
    assert browser.post("/access/new", "/access/save", **fields)[0] == 303
    assert get("-n", "postgres-b", "accessgrant", "extra")["spec"]["roles"] == ["reader"]
    assert save(browser, "", name="extra", delete="yes", version=re.search(
        'name="version" value="([^"]*)"', browser.page("/access/postgres-b/AccessGrant/extra"))[1])[0] == 303
    assert not kubectl("-n", "postgres-b", "get", "accessgrant", "extra", "--ignore-not-found").stdout


def onlooker(port):
    browser = Browser(port).sign_in("onlooker")
    listed = words(browser.page("/"))
    assert "postgres-a" in listed and "postgres-b" in listed, listed
    before = get("-n", "postgres-b", "configmap", "auth-settings")["data"]
    status, text = set_to(browser, "false")
    assert status == 403 and "postgres-b:onlooker" in words(text), (status, words(text))
    status, text = save(browser, GRANT.format(roles="reader"))
    assert status == 403 and "cannot" in words(text), (status, words(text))
    assert get("-n", "postgres-b", "configmap", "auth-settings")["data"] == before
    assert "orders-writer" in allowed_roles(), allowed_roles()


def own_account(port):
    """Who may come to the console may set settings, and nothing else; who may not come there, may not."""
    browser = Browser(port).sign_in("visitor")
    assert set_to(browser, "observe")[0] == 303
    assert get("-n", "postgres-b", "configmap", "auth-settings")["data"]["VERIFY_AUTH_ENABLED"] == "observe"
    assert set_to(browser, "true")[0] == 303
    history = words(browser.page("/services/postgres-b"))
    assert "system:serviceaccount:postgres-b:visitor VERIFY_AUTH_ENABLED: observe VERIFY_AUTH_ENABLED: true" in history, history
    new = {"namespace": "", "kind": "", "name": "", "version": "", "confirmed": "yes", "text": GRANT.format(roles="reader")}
    status, text = browser.post("/services/postgres-b", "/access/save", **new)
    assert status == 403, (status, words(text))
    onlooker(port)


def allowed_roles():
    return json.dumps(get("-n", "postgres-b", "accessgrant", "service-b")["spec"]["roles"])


def pages(port):
    browser = Browser(port).sign_in("editor", "postgres-b")
    allowed("service-a", "postgres-b", "select count(*) from customers")
    denied("service-a", "postgres-b", "delete from orders", "reader may not delete orders")
    seen = lambda: re.search(r'href="/decisions/([0-9a-f-]+)"', browser.page("/decisions?verdict=deny&subject=service-a"))  # noqa: E731
    found, _ = until("the denial is shown", seen, 10)
    told = words(browser.page(f"/decisions/{found[1]}"))
    assert "actions: [delete], tables: [\"public.orders\"]" in told, told
    # Who may do nothing in the system's namespace is told so.
    assert "cannot list" in words(browser.page("/issuer"))
