//! The queue full, the writer broken, the disk full: what is lost is counted, or nothing is lost.

use super::*;
use std::sync::mpsc;

/// A writer whose every write waits for a permission; `Err` makes the write fail.
struct Gate(mpsc::Receiver<io::Result<()>>, Arc<Mutex<Vec<u8>>>);

impl Write for Gate {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.recv().unwrap_or(Ok(()))?;
        self.1.lock().extend_from_slice(bytes);
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

type Opener = mpsc::Sender<io::Result<()>>;

fn gate() -> (Opener, Gate, Arc<Mutex<Vec<u8>>>) {
    let (sender, receiver) = mpsc::channel();
    let out = Arc::new(Mutex::new(Vec::new()));
    (sender, Gate(receiver, out.clone()), out)
}

fn lines(out: &Mutex<Vec<u8>>) -> Vec<u64> {
    let bytes = out.lock();
    String::from_utf8_lossy(&bytes).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn writes_every_record_in_order_and_ends_with_its_handles() {
    let (open, writer, out) = gate();
    drop(open);
    let log = DecisionLog::to(writer, 10_000, OnFull::Drop).unwrap();
    for n in 0..5_000u64 {
        log.record(n);
    }
    assert!(log.flush(LONG));
    assert_eq!(lines(&out), (0..5_000).collect::<Vec<_>>());
    assert_eq!(log.lost().get(), 0);
    drop(log);
    let until = Instant::now() + LONG;
    while Arc::strong_count(&out) > 1 {
        assert!(Instant::now() < until, "the writer's thread has not ended");
        std::thread::yield_now();
    }
}

#[test]
fn a_full_queue_drops_and_counts_every_loss() {
    let (open, writer, out) = gate();
    let log = DecisionLog::to(writer, 4, OnFull::Drop).unwrap();
    for n in 0..100u64 {
        log.record(n);
    }
    drop(open);
    assert!(log.flush(LONG));
    assert!(log.lost().get() >= 90, "at most the queue and one batch can be kept");
    assert_eq!(lines(&out).len() as u64 + log.lost().get(), 100);
}

#[tokio::test]
async fn a_full_queue_that_blocks_loses_nothing() {
    let (open, writer, out) = gate();
    let log = DecisionLog::to(writer, 2, OnFull::Block).unwrap();
    let own = log.clone();
    let recorder = std::thread::spawn(move || (0..50u64).for_each(|n| own.record(n)));
    let waiting = tokio::time::timeout(Duration::from_millis(50), async {
        loop {
            log.room().await;
            tokio::task::yield_now().await;
        }
    });
    assert!(waiting.await.is_err());
    assert!(!recorder.is_finished(), "it must wait while nothing is written");
    drop(open);
    recorder.join().unwrap();
    tokio::time::timeout(LONG, log.room()).await.unwrap();
    assert!(log.flush(LONG));
    assert_eq!(lines(&out), (0..50).collect::<Vec<_>>());
    assert_eq!(log.lost().get(), 0);
}

#[test]
fn a_broken_pipe_is_counted_and_survived() {
    let (open, writer, out) = gate();
    let log = DecisionLog::to(writer, 16, OnFull::Drop).unwrap();
    open.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
    log.record(1u64);
    assert!(log.flush(LONG));
    assert_eq!(log.lost().get(), 1);
    drop(open);
    log.record(2u64);
    assert!(log.flush(LONG));
    assert_eq!(lines(&out), [2]);
}

#[test]
fn a_full_disk_holds_back_a_log_that_blocks_until_there_is_room() {
    let (open, writer, out) = gate();
    let log = DecisionLog::to(writer, 16, OnFull::Block).unwrap();
    for _ in 0..2 {
        open.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    }
    log.record(1u64);
    assert!(!log.flush(Duration::from_millis(50)));
    open.send(Ok(())).unwrap();
    assert!(log.flush(LONG));
    assert_eq!((lines(&out), log.lost().get()), (vec![1], 0));
}

#[test]
fn a_record_that_does_not_serialise_harms_no_other() {
    let (open, writer, out) = gate();
    drop(open);
    let log = DecisionLog::to(writer, 16, OnFull::Drop).unwrap();
    log.record(1u64);
    log.record(std::collections::HashMap::from([(vec![1u8], 1)]));
    log.record(2u64);
    assert!(log.flush(LONG));
    assert_eq!((lines(&out), log.lost().get()), (vec![1, 2], 1));
}
