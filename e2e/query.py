"""`POST /query` as HTTP, without a driver: what it answers to what is wrong, and what sessions that are shared keep to themselves."""

import concurrent.futures
import http.client
import json
import os
import socket
import subprocess
import sys
import time
import urllib.parse

from suite import READY, access_token, ask, decisions, problem, run, set_live, within

READER = READY["http"]["service-a"]["postgres-b"]
WRITER = READY["http"]["service-a"]["postgres-a"]
SCOPED = READY["http"]["service-b"]["postgres-b"]
REFUSED = READY["http"]["service-b"]["postgres-a"]
DIRECT = READY["inbound_http"]["postgres-b"]
ENDLESS = "select count(*) from generate_series(1, 10000000000)"


def query(url, text, params=None, path="/query", headers={}):
    body = {"query": text} if params is None else {"query": text, "params": params}
    return ask(url + path, "POST", headers, json.dumps(body))


def rows(url, text, params=None, **more):
    answer = query(url, text, params, **more)
    assert answer.status == 200, answer
    return answer.json()["rows"]


def values_are_json_where_json_has_them():
    got = rows(READER, """select 1::int2 as small, 2.5::float8 as float, true as yes, null as nothing, '{"a": [1]}'::jsonb as json,
        array[1, null] as ints, array[array['a'], array['b,"']] as texts, 9007199254740993 as big, 12.50 as numeric, '\\x00ff'::bytea as bytes""")
    assert got == [{
        "small": 1, "float": 2.5, "yes": True, "nothing": None, "json": {"a": [1]}, "ints": [1, None], "texts": [["a"], ['b,"']],
        "big": "9007199254740993", "numeric": "12.50", "bytes": "\\x00ff",
    }], got


def parameters_are_json():
    got = rows(READER, "select $1::int as i, $2::bool as b, $3::jsonb as j, $4::text[] as t, $5::text as n, $6::float8 as f", [7, False, {"k": [None]}, ["x", None], None, 0.5])
    assert got == [{"i": 7, "b": False, "j": {"k": [None]}, "t": ["x", None], "n": None, "f": 0.5}], got


def what_is_wrong_with_a_request_is_said():
    for body in (
        b"", b"null", b"7", b'{"query": 1}', b'{"query": "select 1"', b'{"query": "select 1", "query": "select 2"}', b'{"query": "select 1", "sql": "select 2"}',
        b'{"query": "select 1", "unknown": 1}', b'{"params": []}', b'{"query": "select \xff"}', b'{"query": "select $1", "params": ["\\ud800"]}',
        b'[{"query": "select 1"}, 7]', b'{"query": "select 1", "params": ' + b"[" * 100000 + b"]" * 100000 + b"}",
    ):
        problem(ask(f"{READER}/query", "POST", {}, body), 400)
    isolation = {"Neon-Batch-Isolation-Level": "Serializable; drop table orders"}
    problem(ask(f"{READER}/query", "POST", isolation, '[{"query": "select 1"}]'), 400)
    problem(query(READER, "select 1", headers={"Neon-Connection-String": "nonsense"}), 400)
    assert ask(f"{READER}/query", "GET").headers["Allow"] == "POST"
    problem(ask(f"{READER}/query", "DELETE"), 405)
    problem(ask(f"{READER}/other", "POST"), 404)


def what_is_wrong_with_a_statement_is_postgresqls_to_say():
    for text, params, code in (
        ("select no_such_column from orders", None, "42703"),
        ("selec 1", None, "42601"),
        ("select 1; select 2", None, "42601"),
        ("select 1 / 0", None, "22012"),
        ("select $1::int", ["x"], "22P02"),
        ("select $1::int, $2::int", [1], "08P01"),
        ("select $1::text", ["a\0b"], "22021"),
        ("copy (select 1) to stdout", None, "0A000"),
    ):
        said = problem(query(READER, text, params), 400)
        assert said["code"] == code, (text, said)
    assert problem(query(READER, "select 1", path="/query?database=nosuch"), 400)["code"] == "3D000"


def a_denial_has_everything():
    answer = query(SCOPED, "select email from customers")
    said = problem(answer, 403)
    assert said["message"] == "sidegate: orders-writer may not select public.customers" and said["code"] == "42501" and said["hint"], said
    assert 'error="insufficient_scope"' in answer.headers["WWW-Authenticate"], answer
    recorded = within(5, lambda: [one for one in decisions("postgres-b") if one["decision"] == said["decision_id"]])
    assert recorded[0]["verdict"] == "deny" and recorded[0]["role"] == "orders-writer", recorded
    problem(query(REFUSED, "select 1"), 403)


def a_batch_is_decided_before_it_begins():
    count = lambda: rows(WRITER, "select count(*) as n from log where msg = 'batch'")
    before = count()
    batch = [{"query": "insert into log (msg) values ('batch')"}, {"query": "truncate orders"}]
    assert problem(ask(f"{WRITER}/query", "POST", {}, json.dumps(batch)), 403)["code"] == "42501"
    batch[1]["query"] = "commit"
    assert problem(ask(f"{WRITER}/query", "POST", {}, json.dumps(batch)), 400)["code"] == "25001"
    assert count() == before


def a_token_is_asked_for():
    url = f"{DIRECT}/query"
    problem(ask(url, "POST", {}, '{"query": "select 1"}'), 401)
    for wrong in ("x", access_token("service-a", "postgres-a"), access_token("service-a", "postgres-b")[:-4] + "AAAA"):
        answer = ask(url, "POST", {"Authorization": f"Bearer {wrong}"}, '{"query": "select 1"}')
        assert 'error="invalid_token"' in answer.headers["WWW-Authenticate"] and problem(answer, 401), answer
    good = {"Authorization": "Bearer " + access_token("service-a", "postgres-b")}
    assert ask(url, "POST", good, '{"sql": "select 1 as one"}').json()["rows"] == [{"one": 1}]


def nothing_of_a_request_is_left_for_the_next():
    for text in (
        "set search_path = pg_catalog", "select set_config('app.tenant', 'evil', false)", "create temp table left_over (a int)",
        "select pg_advisory_lock(4711)", "begin", "prepare left_over as select 1", "declare left_over cursor with hold for select 1",
    ):
        query(WRITER, text)
    for _ in range(30):
        [row] = rows(WRITER, """select current_setting('search_path') as path, coalesce(current_setting('app.tenant', true), '') as tenant,
            to_regclass('pg_temp.left_over') as temp, (select count(*)::int from pg_locks where locktype = 'advisory') as locks,
            (select count(*)::int from pg_prepared_statements where name = 'left_over') as prepared,
            (select count(*)::int from pg_cursors where name = 'left_over') as cursors""")
        assert row == {"path": '"$user", public', "tenant": "", "temp": None, "locks": 0, "prepared": 0, "cursors": 0}, row
        problem(query(WRITER, "execute left_over"), 400)


def callers_with_one_role_stay_apart():
    path = os.path.join(READY["dir"], "documents", "shared.yaml")
    with open(path, "w") as file:
        file.write("""kind: AccessGrant
metadata: {namespace: postgres-b, name: shared}
spec: {service: postgres-b, subjects: [{serviceAccount: service-a, namespace: service-a}], roles: [orders-writer]}
""")
    whose = lambda url: query(url, "select current_setting('sidegate.sub') as subject", path="/query?role=orders-writer")
    direct = lambda: ask(f"{DIRECT}/query?role=orders-writer", "POST", {"Authorization": "Bearer " + access_token("service-a", "postgres-b")},
                         json.dumps({"query": "select current_setting('sidegate.sub') as subject, current_user as login"}))
    try:
        # A new token has the new role; those that the sidecars hold have not.
        assert within(10, lambda: direct().json().get("rows") == [{"subject": "system:serviceaccount:service-a:service-a", "login": "app_orders_writer"}])
        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            theirs = [pool.submit(whose, SCOPED) for _ in range(100)]
            ours = [pool.submit(direct) for _ in range(30)]
            assert {one.result().json()["rows"][0]["subject"] for one in theirs} == {"system:serviceaccount:service-b:service-b"}
            assert {one.result().json()["rows"][0]["subject"] for one in ours} == {"system:serviceaccount:service-a:service-a"}
    finally:
        os.unlink(path)


def at_work(database):
    """How many sessions run a statement, by what PostgreSQL itself says."""
    server = READY["postgres"][database]
    sql = "select count(*) from pg_stat_activity where state = 'active' and query like 'select count(*) from generate_series%'"
    command = ["psql", "-X", "-At", "-h", server["socket_dir"], "-p", str(server["port"]), "-U", server["admin"], "-d", "shop", "-c", sql]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def a_client_that_goes_away_ends_its_query():
    parts = urllib.parse.urlsplit(WRITER)
    body = json.dumps({"query": ENDLESS})
    with socket.create_connection((parts.hostname, parts.port)) as connection:
        connection.sendall(f"POST {parts.path}/query HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        assert within(10, lambda: at_work("postgres-a") == 1), "it does not start"
    assert within(10, lambda: at_work("postgres-a") == 0), "it goes on"


def too_many_at_once_are_told_to_come_again():
    count = "select count(*) as n from generate_series(1, 8000000)"
    with concurrent.futures.ThreadPoolExecutor(130) as pool:
        answers = [one.result() for one in [pool.submit(query, WRITER, count) for _ in range(130)]]
    refused = [one for one in answers if one.status != 200]
    assert refused and all(one.status == 503 and one.headers["Retry-After"] for one in refused), refused[:1]
    assert rows(WRITER, "select 1 as one") == [{"one": 1}]


def a_result_that_breaks_off_is_no_result():
    for text in ("select 1 / (50000 - n) as x from generate_series(1, 100000) as n", "select repeat('x', 1000) as x from generate_series(1, 100000)"):
        try:
            json.loads(query(READER, text).body)
            raise AssertionError(f"taken for whole: {text}")
        except (OSError, json.JSONDecodeError) as error:
            assert not isinstance(error, TimeoutError), error
        except Exception as error:  # http.client's own, which is no OSError
            assert type(error).__name__ == "IncompleteRead", error


def breaks_off(url, text):
    try:
        answer = query(url, text)
    except (OSError, http.client.HTTPException):
        return
    raise AssertionError(f"{text}: {answer}")


def what_is_refused_over_its_result_has_not_happened():
    count = lambda: rows(WRITER, "select count(*)::int as n from log where msg like 'undone%'")
    before = count()
    copied = query(WRITER, "copy (insert into log (msg) values ('undone') returning msg) to stdout")
    assert problem(copied, 400)["code"] == "0A000"
    breaks_off(WRITER, "insert into log (msg) select 'undone' || repeat('x', 1000000) from generate_series(1, 80) returning msg")
    too_long = {"query": "insert into log (msg) values ('undone' || repeat('x', 5000000)) returning msg"}
    assert problem(query(WRITER, too_long["query"]), 400)["code"] == "54000"
    locks = {"query": "update orders set status = 'undone' where id = 7"}
    assert problem(ask(f"{WRITER}/query", "POST", {}, json.dumps([locks, too_long])), 400)["code"] == "54000"
    # Nobody holds the row any more.
    again = [{"query": "set lock_timeout = '2s'"}, {"query": "update orders set status = status where id = 7 returning status"}]
    answer = ask(f"{WRITER}/query", "POST", {}, json.dumps(again))
    assert answer.status == 200 and answer.json()["results"][1]["rows"][0]["status"] != "undone", answer
    assert count() == before


def a_batch_does_not_outlive_its_rights():
    slow = {"query": "select count(*) from generate_series(1, 2500000)"}
    batch = [slow] * 12 + [{"query": "insert into log (msg) values ('outlived')"}]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        # To the database's own sidecar: that of the service would try again with a newer token.
        direct = READY["inbound_http"]["postgres-a"] + "/query"
        bearer = {"Authorization": "Bearer " + access_token("service-a", "postgres-a")}
        running = pool.submit(ask, direct, "POST", bearer, json.dumps(batch))
        assert within(10, lambda: at_work("postgres-a") == 1), "it does not start"
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 1))
        set_live("postgres-a", "TOKENS_NOT_BEFORE", now)
        assert problem(running.result(), 401)["code"] == "57P01"
    # With a newer token it goes on.
    set_live("service-a", "TOKENS_NOT_BEFORE", now)
    assert within(10, lambda: query(WRITER, "select 1").status == 200)
    assert rows(WRITER, "select count(*)::int as n from log where msg = 'outlived'") == [{"n": 0}]


def answers_stay_with_their_requests():
    try:
        set_live("postgres-a", "VERIFY_AUTH_ENABLED", "observe")
        for _ in range(3):
            # PostgreSQL would read the next text otherwise than it is decided on: the session ends.
            assert problem(query(WRITER, "set standard_conforming_strings = off"), 400)["code"] == "57P01"
            with concurrent.futures.ThreadPoolExecutor(8) as pool:
                asked = {n: pool.submit(rows, WRITER, "select $1::int as n", [n]) for n in range(40)}
                assert all(one.result() == [{"n": n}] for n, one in asked.items())
    finally:
        set_live("postgres-a", "VERIFY_AUTH_ENABLED", "true")


def without_a_token_a_batch_is_still_one_transaction():
    batch = [{"query": "select 1"}, {"query": "commit and chain"}, {"query": "select 2"}]
    try:
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", "observe")
        answer = ask(f"{DIRECT}/query", "POST", {}, json.dumps(batch))
        assert problem(answer, 400)["code"] == "25001"
        assert ask(f"{DIRECT}/query", "POST", {}, json.dumps(batch[:1])).status == 200
        # The log is written some milliseconds behind the answers.
        observed = lambda one: one["reason"] == "no_token" and one["mode"] == "observe"
        recorded = lambda: len([one for one in decisions("postgres-b") if observed(one)])
        assert within(5, lambda: recorded() >= 2), "who would fail is recorded"
    finally:
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", "true")


def settings_are_live():
    insert = "insert into public.log (msg) values ('observed')"
    try:
        problem(query(READER, insert), 403)
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", "observe")
        # Decided, recorded, passed on; PostgreSQL's own lock holds.
        assert query(READER, insert).json()["code"] == "25006"
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", "true")
        problem(query(READER, insert), 403)
        set_live("service-a", "SIGN_AUTH_ENABLED", "false")
        problem(query(READER, "select 1"), 401)
    finally:
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", "true")
        set_live("service-a", "SIGN_AUTH_ENABLED", "true")
    assert rows(READER, "select 1 as one") == [{"one": 1}]


def main():
    cases = [
        values_are_json_where_json_has_them, parameters_are_json, what_is_wrong_with_a_request_is_said,
        what_is_wrong_with_a_statement_is_postgresqls_to_say, a_denial_has_everything, a_batch_is_decided_before_it_begins,
        a_token_is_asked_for, nothing_of_a_request_is_left_for_the_next, callers_with_one_role_stay_apart,
        a_client_that_goes_away_ends_its_query, too_many_at_once_are_told_to_come_again, a_result_that_breaks_off_is_no_result,
        settings_are_live, what_is_refused_over_its_result_has_not_happened, a_batch_does_not_outlive_its_rights,
        answers_stay_with_their_requests, without_a_token_a_batch_is_still_one_transaction,
    ]
    return run("POST /query", cases)


if __name__ == "__main__":
    sys.exit(main())
