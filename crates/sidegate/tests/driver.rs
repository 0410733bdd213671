//! A Rust driver, tokio-postgres, through a pair of sidecars: prepared statements, pipelining, transactions, COPY, denials.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use testkit::Demo;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};

async fn connect(demo: &Demo, app: &str, database: &str) -> Client {
    let url = demo.outbound(app, database).replacen("postgresql://", "postgresql://app@", 1);
    let (client, connection) = tokio_postgres::connect(&url, NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn tokio_postgres_works_as_it_does_without_us() {
    let demo = Demo::start(env!("CARGO_BIN_EXE_sidegate"));
    let reader = connect(&demo, "service-a", "postgres-b").await;
    let statement = reader.prepare("select $1::int8 + count(*) from public.orders").await.unwrap();
    let (one, two) = tokio::join!(reader.query_one(&statement, &[&1i64]), reader.query_one(&statement, &[&2i64]));
    assert_eq!(one.unwrap().get::<_, i64>(0) + 1, two.unwrap().get::<_, i64>(0));

    let error = reader.execute("delete from public.orders", &[]).await.unwrap_err();
    assert_eq!(error.code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));
    assert_eq!(error.as_db_error().unwrap().message(), "sidegate: reader may not delete public.orders");
    // Pipelined behind a denial, each in its own implicit transaction, the others go on.
    let (before, denied, after) = tokio::join!(
        reader.query_one("select 1", &[]),
        reader.execute("drop table public.orders", &[]),
        reader.query_one("select 2", &[])
    );
    assert_eq!((before.unwrap().get::<_, i32>(0), after.unwrap().get::<_, i32>(0)), (1, 2));
    assert_eq!(denied.unwrap_err().code(), Some(&SqlState::INSUFFICIENT_PRIVILEGE));

    let mut scoped = connect(&demo, "service-b", "postgres-b").await;
    let transaction = scoped.transaction().await.unwrap();
    transaction.execute("insert into public.orders (customer_id) values (1)", &[]).await.unwrap();
    assert!(transaction.execute("update public.orders set status = 'x'", &[]).await.is_err());
    let aborted = transaction.execute("select 1", &[]).await.unwrap_err();
    assert_eq!(aborted.code(), Some(&SqlState::IN_FAILED_SQL_TRANSACTION));
    transaction.rollback().await.unwrap();
    assert_eq!(scoped.query("select 1", &[]).await.unwrap().len(), 1);

    let token = reader.cancel_token();
    let slow = reader.batch_execute("select count(*) from generate_series(1, 10000000000)");
    let cancel = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        token.cancel_query(NoTls).await.unwrap();
    };
    let (slow, ()) = tokio::join!(slow, cancel);
    assert_eq!(slow.unwrap_err().code(), Some(&SqlState::QUERY_CANCELED));
}
