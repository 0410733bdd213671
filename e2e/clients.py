"""psycopg 3 through a pair of sidecars: what an application does, and libpq's pipeline mode around denials."""

import json
import sys
import threading
import time
import urllib.parse
import urllib.request

import psycopg
from psycopg import errors
from suite import READY, run, set_live

READER = READY["outbound"]["service-a"]["postgres-b"]
WRITER = READY["outbound"]["service-a"]["postgres-a"]
SCOPED = READY["outbound"]["service-b"]["postgres-b"]
REFUSED = READY["outbound"]["service-b"]["postgres-a"]


def connect(url, **options):
    return psycopg.connect(url, connect_timeout=20, **options)


def reads_and_does_not_write():
    with connect(READER, autocommit=True) as conn:
        assert conn.execute("select count(*) from public.orders").fetchone()[0] > 0
        for sql in ("insert into orders (customer_id) values (1)", "delete from orders", "create table x ()"):
            try:
                conn.execute(sql)
                raise AssertionError(f"allowed: {sql}")
            except errors.InsufficientPrivilege as error:
                assert str(error).startswith("sidegate: reader may not "), error
                assert "Decision " in error.diag.message_detail, error.diag.message_detail
                assert error.diag.message_hint, error
        assert conn.execute("select 1").fetchone() == (1,)


def parameters_and_types():
    with connect(READER) as conn:
        row = conn.execute("select %s::int, %s::text, %s::jsonb, %b::bytea", (7, "ü'\\", '{"a": 1}', b"\0\1")).fetchone()
        assert row == (7, "ü'\\", {"a": 1}, b"\0\1"), row


def prepared_statements():
    with connect(READER, prepare_threshold=0) as conn:
        for number in range(300):
            assert conn.execute("select %s::int + 1", (number,)).fetchone() == (number + 1,)


def transactions_and_savepoints():
    with connect(WRITER) as conn:
        before = conn.execute("select count(*) from orders").fetchone()[0]
        with conn.transaction(force_rollback=True):
            conn.execute("insert into orders (customer_id) values (1)")
            try:
                with conn.transaction():
                    conn.execute("drop table orders")
            except errors.InsufficientPrivilege:
                pass
            assert conn.execute("select count(*) from orders").fetchone()[0] == before + 1
        assert conn.execute("select count(*) from orders").fetchone()[0] == before


def a_denial_aborts_its_transaction():
    with connect(SCOPED) as conn:
        try:
            conn.execute("select * from public.customers")
        except errors.InsufficientPrivilege:
            pass
        try:
            conn.execute("select 1")
            raise AssertionError("the transaction is not aborted")
        except errors.InFailedSqlTransaction:
            pass
        conn.rollback()
        assert conn.execute("select 1").fetchone() == (1,)


def pipeline_mode():
    """libpq's pipeline mode, bare: what comes back for each statement and each sync, around a denial."""
    with connect(SCOPED, autocommit=True) as conn:
        pg = conn.pgconn
        pg.enter_pipeline_mode()
        for statements in (("select 1",), ("delete from public.orders", "select 2"), ("select 3",)):
            for statement in statements:
                pg.send_query_params(statement.encode(), [])
            pg.pipeline_sync()
        pg.flush()
        seen = []
        while seen.count("PIPELINE_SYNC") < 3:
            result = pg.get_result()
            if result is not None:
                status = psycopg.pq.ExecStatus(result.status).name
                seen.append(status if status != "FATAL_ERROR" else result.error_field(psycopg.pq.DiagnosticField.SQLSTATE).decode())
        pg.exit_pipeline_mode()
        assert seen == [
            "TUPLES_OK", "PIPELINE_SYNC", "42501", "PIPELINE_ABORTED", "PIPELINE_SYNC", "TUPLES_OK", "PIPELINE_SYNC",
        ], seen


def a_denied_pipeline_rolls_back():
    with connect(SCOPED, autocommit=True) as conn:
        before = conn.execute("select count(*) from public.orders").fetchone()[0]
        try:
            with conn.pipeline():
                conn.execute("insert into public.orders (customer_id) values (1)")
                conn.execute("delete from public.orders")
        except errors.InsufficientPrivilege:
            pass
        assert conn.execute("select count(*) from public.orders").fetchone()[0] == before


def copy_both_ways():
    with connect(WRITER) as conn:
        with conn.cursor() as cursor:
            with cursor.copy("copy log (msg) from stdin") as copy:
                for number in range(20000):
                    copy.write_row((f"line {number}",))
            with cursor.copy("copy (select msg from log) to stdout") as copy:
                assert sum(1 for _ in copy.rows()) >= 20000
        conn.rollback()
    with connect(READER) as conn, conn.cursor() as cursor:
        try:
            with cursor.copy("copy log (msg) from stdin") as copy:
                copy.write_row(("x",))
            raise AssertionError("a reader copied in")
        except errors.InsufficientPrivilege:
            pass


def large_results_and_large_parameters():
    with connect(READER) as conn:
        assert sum(1 for _ in conn.cursor(name="big").execute("select generate_series(1, 200000)")) == 200000
        text = "x" * (20 << 20)
        assert conn.execute("select length(%s)", (text,)).fetchone() == (len(text),)


def cancel():
    with connect(WRITER, autocommit=True) as conn:
        timer = threading.Timer(0.5, conn.cancel)
        timer.start()
        started = time.monotonic()
        try:
            conn.execute("select count(*) from generate_series(1, 10000000000)")
            raise AssertionError("not cancelled")
        except errors.QueryCanceled:
            assert time.monotonic() - started < 10
        assert conn.execute("select 1").fetchone() == (1,)


def cancel_is_for_ones_own():
    """The key that PostgreSQL itself holds opens nothing here, and a wrong key does nothing."""
    with connect(WRITER, autocommit=True) as victim:
        other = psycopg.connect(READER, autocommit=True)
        other.pgconn.get_cancel().cancel()
        assert victim.execute("select 1").fetchone() == (1,)
        other.close()


def notices_and_errors_are_postgresqls_own():
    with connect(READER, autocommit=True) as conn:
        try:
            conn.execute("select no_such_column from orders")
        except errors.UndefinedColumn as error:
            assert error.diag.statement_position == "8", error.diag.statement_position


def no_grant_no_entry():
    try:
        connect(REFUSED)
        raise AssertionError("service-b got into postgres-a")
    except psycopg.OperationalError as error:
        assert "no token" in str(error) and "invalid_target" in str(error), error


def many_connections():
    failures = []

    def work():
        try:
            for _ in range(5):
                with connect(READER) as conn:
                    assert conn.execute("select 1").fetchone() == (1,)
        except Exception as error:  # noqa: BLE001: whatever it is, it is this test's failure
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures


def newest_protocol():
    """Protocol 3.2, whose cancel keys are long, from the application through to the other side."""
    with connect(READER, autocommit=True, max_protocol_version="latest") as conn:
        assert conn.pgconn.parameter_status(b"server_encoding") == b"UTF8"
        assert conn.execute("select 1").fetchone() == (1,)
        timer = threading.Timer(0.5, lambda: conn.cancel_safe(timeout=5))
        timer.start()
        try:
            conn.execute("select count(*) from generate_series(1, 10000000000)")
            raise AssertionError("not cancelled")
        except errors.QueryCanceled:
            pass


def a_token_as_the_password():
    """A client without a sidecar: TLS asked for or direct, the token as the password."""
    subject_token = open(READY["subject_tokens"]["service-a"]).read().strip()
    form = {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": subject_token,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "audience": "postgres-b/postgres-b",
    }
    with urllib.request.urlopen(READY["issuer"] + "/token", urllib.parse.urlencode(form).encode()) as answer:
        token = json.load(answer)["access_token"]
    for options in ({"sslmode": "require"}, {"sslmode": "require", "sslnegotiation": "direct"}, {"sslmode": "disable"}):
        with connect(READY["inbound"]["postgres-b"], user="reader", password=token, **options) as conn:
            assert conn.execute("select current_setting('sidegate.sub')").fetchone()[0].endswith("service-a")
    try:
        connect(READY["inbound"]["postgres-b"], user="reader", password="x" + token, sslmode="require")
        raise AssertionError("an altered token got in")
    except psycopg.OperationalError as error:
        assert token not in str(error) and "the token was refused" in str(error), error


def settings_are_live():
    """Sessions outlive a change of settings, and the next statement is decided under the new ones."""
    with connect(READER, autocommit=True, prepare_threshold=0) as conn:
        insert = "insert into public.log (msg) values ('observed')"

        def outcome():
            try:
                conn.execute(insert)
                return "ran"
            except errors.InsufficientPrivilege:
                return "denied"
            except errors.ReadOnlySqlTransaction:
                return "reached PostgreSQL"

        assert outcome() == "denied"
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", "observe")
        assert outcome() == "reached PostgreSQL"
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", "true")
        assert outcome() == "denied"
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", "nonsense")
        assert outcome() == "denied"
        set_live("postgres-b", "VERIFY_AUTH_ENABLED", "true")
        set_live("service-a", "SIGN_AUTH_ENABLED", "false")
        try:
            connect(READER)
            raise AssertionError("got in without a token")
        except psycopg.OperationalError as error:
            assert "no token" in str(error), error
        assert conn.execute("select 1").fetchone() == (1,)
        set_live("service-a", "SIGN_AUTH_ENABLED", "true")
        connect(READER).close()


def main():
    cases = [value for value in globals().values() if callable(value) and getattr(value, "__module__", "") == "__main__"]
    cases = [case for case in cases if case not in (connect, main)]
    return run(f"psycopg {psycopg.__version__}, libpq {psycopg.pq.version()}", cases)


if __name__ == "__main__":
    sys.exit(main())
