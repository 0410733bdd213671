"""psycopg 3 through both sidecars: what an application does, allowed and denied. Run by e2e/run-clients."""

import json
import os

import psycopg
from psycopg import errors

with open(os.environ["READY"]) as file:
    READY = json.load(file)
WRITER = READY["outbound"]["service-a"]["postgres-a"]
READER = READY["outbound"]["service-a"]["postgres-b"]
SCOPED = READY["outbound"]["service-b"]["postgres-b"]
REFUSED = READY["outbound"]["service-b"]["postgres-a"]


def denied(run, message):
    try:
        run()
    except errors.InsufficientPrivilege as error:
        assert error.diag.message_primary == message, error.diag.message_primary
        assert error.diag.message_detail and error.diag.message_hint, "a denial explains itself"
        return
    raise AssertionError(f"not denied: {message}")


def reads():
    with psycopg.connect(READER) as connection:
        assert connection.execute("select count(*) from orders").fetchone()[0] > 100
        for prepare in (False, True):
            row = connection.execute("select name from customers where id = %s", [1], prepare=prepare).fetchone()
            assert row[0]
        with connection.cursor("server_side") as cursor:
            cursor.execute("select id from orders order by id")
            assert cursor.fetchmany(10)[0][0] == 1
        with connection.cursor().copy("copy customers to stdout") as copy:
            assert sum(1 for _ in copy.rows()) > 100
        user = connection.execute("select session_user").fetchone()[0]
        assert user == "app_reader", user


def denials_leave_the_session_as_postgresql_would():
    with psycopg.connect(READER, autocommit=True) as connection:
        insert = "insert into orders (customer_id) values (1)"
        denied(lambda: connection.execute(insert), "sidegate: reader may not insert orders")
        denied(lambda: connection.execute("delete from items where id = %s", [1]), "sidegate: reader may not delete items")
        assert connection.execute("select 1").fetchone() == (1,)
        try:
            with connection.transaction():
                denied(lambda: connection.execute(insert), "sidegate: reader may not insert orders")
                connection.execute("select 1")
        except errors.InFailedSqlTransaction:
            pass
        else:
            raise AssertionError("the transaction must be aborted")
        assert connection.execute("select 1").fetchone() == (1,)


def pipelines():
    with psycopg.connect(WRITER, autocommit=True) as connection:
        count = lambda: connection.execute("select count(*) from log").fetchone()[0]
        before = count()
        try:
            with connection.pipeline():
                connection.execute("insert into log (msg) values ('one')")
                connection.execute("truncate log")
                connection.execute("insert into log (msg) values ('two')")
        except errors.InsufficientPrivilege as error:
            assert error.diag.message_primary == "sidegate: writer may not truncate log"
        else:
            raise AssertionError("the pipeline must fail")
        assert count() == before, "an implicit transaction rolls back whole"


def writes():
    with psycopg.connect(WRITER) as connection:
        cursor = connection.cursor()
        cursor.executemany("insert into items (order_id, sku) values (%s, %s)", [(1, "A"), (2, "B"), (3, "C")])
        with cursor.copy("copy log (level, msg) from stdin") as copy:
            for number in range(1000):
                copy.write_row(("info", f"line {number}"))
        connection.commit()
        assert cursor.execute("select count(*) from log where msg like 'line %'").fetchone()[0] >= 1000


def scoped():
    with psycopg.connect(SCOPED, autocommit=True) as connection:
        assert connection.execute("insert into orders (customer_id) values (2) returning id").fetchone()[0] > 500
        denied(lambda: connection.execute("select * from customers"), "sidegate: orders-writer may not select public.customers")
        denied(lambda: connection.execute("update orders set total = 0"), "sidegate: orders-writer may not update public.orders")


def refused():
    try:
        psycopg.connect(REFUSED)
    except psycopg.OperationalError:
        return
    raise AssertionError("service-b has no grant on postgres-a")


for test in (reads, denials_leave_the_session_as_postgresql_would, pipelines, writes, scoped, refused):
    test()
    print("ok", test.__name__)
