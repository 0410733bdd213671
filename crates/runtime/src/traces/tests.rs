//! Spans on their way to a collector: what arrives, and that nobody waits for one that does not answer.

use serde_json::Value as Json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers each request with this status, and gives what came.
async fn collector(status: &'static str) -> (String, mpsc::UnboundedReceiver<(String, Json)>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut bytes = Vec::new();
            let (head, body) = loop {
                stream.read_buf(&mut bytes).await.unwrap();
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                if body.len() >= length.parse::<usize>().unwrap() {
                    break (head.to_owned(), body.to_owned());
                }
            };
            let _ = sender.send((head, serde_json::from_str(&body).unwrap()));
            let answer = format!("HTTP/1.1 {status}\r\nContent-Length: 2\r\n\r\n{{}}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    (url, received)
}

fn spans(count: usize, tracer: &Tracer) {
    for _ in 0..count {
        tracer.end(tracer.begin(None, Instant::now()).unwrap().span.unwrap());
    }
}

#[tokio::test]
async fn a_span_arrives_whole() {
    let (url, mut received) = collector("200 OK").await;
    let mut options = Options::to(url);
    options.headers.push(("api-key".to_owned(), "k".to_owned()));
    options.describe("service.name", "b".to_owned());
    let tracer = Tracer::start(options, Counter::default()).unwrap();
    let parent = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
    let begun = tracer.begin(Some(parent), Instant::now()).unwrap();
    let mut span = begun.span.unwrap();
    span.rename("SELECT orders");
    span.set("db.system.name", "postgresql");
    span.set("db.system.name", "x".repeat(2000));
    span.set("http.response.status_code", 200);
    span.fail();
    tracer.end(span);
    tracer.flush(Duration::from_secs(10)).await;
    let (head, body) = received.try_recv().unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1") && head.contains("api-key: k"), "{head}");
    let sent = &body["resourceSpans"][0];
    assert_eq!(sent["resource"]["attributes"][0]["value"]["stringValue"], "b");
    let span = &sent["scopeSpans"][0]["spans"][0];
    assert_eq!(span["traceId"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(span["parentSpanId"], "b7ad6b7169203331");
    assert_eq!(
        begun.context.to_traceparent(),
        format!("00-{}-{}-01", "0af7651916cd43dd8448eb211c80319c", span["spanId"].as_str().unwrap())
    );
    assert_eq!((&span["kind"], &span["status"]["code"]), (&2.into(), &2.into()));
    assert_eq!(span["attributes"][0]["value"]["stringValue"].as_str().unwrap().len(), TEXT_MAX);
    assert_eq!(span["attributes"][1]["value"]["intValue"], "200");
    let nanoseconds = |name: &str| span[name].as_str().unwrap().parse::<u128>().unwrap();
    assert!(nanoseconds("startTimeUnixNano") <= nanoseconds("endTimeUnixNano"));
}

#[tokio::test]
async fn a_parent_that_is_not_sampled_is_followed() {
    let tracer = Tracer::start(Options::to("http://127.0.0.1:1/".to_owned()), Counter::default()).unwrap();
    let parent = TraceContext::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
    let begun = tracer.begin(parent, Instant::now()).unwrap();
    assert!(begun.span.is_none());
    let passed_on = begun.context.to_traceparent();
    assert!(passed_on.starts_with("00-0af7651916cd43dd8448eb211c80319c-") && passed_on.ends_with("-00"), "{passed_on}");
}

#[tokio::test]
async fn a_collector_that_fails_costs_spans_and_counts_them() {
    let (url, mut received) = collector("500 Broken").await;
    let lost = Counter::default();
    let tracer = Tracer::start(Options::to(url), lost.clone()).unwrap();
    spans(3, &tracer);
    tracer.flush(Duration::from_secs(10)).await;
    assert_eq!((lost.get(), received.len()), (3, 1), "an answer that says nothing of later is final");
    assert!(received.try_recv().is_ok());
}

#[tokio::test]
async fn a_collector_that_hangs_holds_up_nobody() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lost = Counter::default();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    let tracer = Tracer::start(Options::to(url), lost.clone()).unwrap();
    spans(1, &tracer);
    // It has taken the connection, and says nothing.
    let flushing = tokio::spawn({
        let tracer = tracer.clone();
        async move { tracer.flush(Duration::from_secs(30)).await }
    });
    let _held = listener.accept().await.unwrap();
    let began = Instant::now();
    spans(3 * QUEUE, &tracer);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert!(lost.get() >= 2 * QUEUE as u64, "{}", lost.get());
    flushing.abort();
}
