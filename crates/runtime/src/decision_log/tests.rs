//! The queue full, the writer broken, the disk full, the file turned over: what is lost is counted and said, or nothing
//! is lost.

use std::collections::HashMap;
use std::io::Write;
use std::path::Path;
use std::sync::mpsc;

use super::*;
use chain::Head;

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

impl Sink for Gate {}

/// A disk with room for so many bytes; what was written in part can be taken back, or not.
struct Disk {
    room: Arc<Mutex<usize>>,
    out: Arc<Mutex<Vec<u8>>>,
    takes_back: bool,
}

impl Write for Disk {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut room = self.room.lock();
        if *room == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(*room);
        *room -= taken;
        self.out.lock().extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Sink for Disk {
    fn take_back(&mut self, bytes: usize) -> bool {
        if self.takes_back {
            let mut out = self.out.lock();
            let left = out.len() - bytes;
            out.truncate(left);
        }
        self.takes_back
    }
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Test {
    Number(u64),
    Sealed { n: u64 },
    Denied { denied: u64 },
    Lost { lost: u64 },
    Heavy { bytes: usize },
    Broken(HashMap<Vec<u8>, u8>),
}

impl Entry for Test {
    fn lost(count: u64) -> Self {
        Self::Lost { lost: count }
    }

    fn has_id(&self, id: &str) -> bool {
        matches!(self, Self::Sealed { n } if n.to_string() == id)
    }

    fn weight(&self) -> usize {
        match self {
            Self::Heavy { bytes } => *bytes,
            _ => 1,
        }
    }

    fn is_denial(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }
}

type Opener = mpsc::Sender<io::Result<()>>;

fn gate() -> (Opener, Gate, Arc<Mutex<Vec<u8>>>) {
    let (sender, receiver) = mpsc::channel();
    let out = Arc::new(Mutex::new(Vec::new()));
    (sender, Gate(receiver, out.clone()), out)
}

fn options(capacity: usize, on_full: OnFull) -> Options {
    Options { capacity, on_full, chained: false, recent: 3 }
}

fn log(sink: impl Sink, capacity: usize, on_full: OnFull) -> DecisionLog<Test> {
    DecisionLog::spawn(Some(sink), Head::default(), options(capacity, on_full)).unwrap()
}

/// The numbers recorded, and all losses that the log says.
fn lines(bytes: &[u8]) -> (Vec<u64>, u64) {
    let values: Vec<serde_json::Value> =
        String::from_utf8_lossy(bytes).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let said = values.iter().filter_map(|value| value["lost"].as_u64()).sum();
    (values.iter().filter_map(serde_json::Value::as_u64).collect(), said)
}

const LONG: Duration = Duration::from_secs(20);

#[test]
fn writes_every_record_in_order_and_ends_with_its_handles() {
    let (open, writer, out) = gate();
    drop(open);
    let log = log(writer, 10_000, OnFull::Drop);
    (0..5_000).for_each(|n| log.record(Test::Number(n)));
    assert!(log.flush(LONG));
    assert_eq!(lines(&out.lock()), ((0..5_000).collect(), 0));
    assert_eq!(log.lost().get(), 0);
    drop(log);
    let until = Instant::now() + LONG;
    while Arc::strong_count(&out) > 1 {
        assert!(Instant::now() < until, "the writer's thread has not ended");
        std::thread::yield_now();
    }
}

#[test]
fn the_last_ones_are_kept_in_memory() {
    let log: DecisionLog<Test> = DecisionLog::start(&Destination::Nowhere, options(16, OnFull::Drop)).unwrap();
    (0..5).for_each(|n| log.record(Test::Number(n)));
    assert!(log.flush(LONG));
    assert_eq!(lines(&DecisionLog::lines(&log.recent(10, |_| true))).0, [2, 3, 4]);
    assert_eq!(lines(&DecisionLog::lines(&log.recent(2, |_| true))).0, [3, 4]);
    assert_eq!(lines(&DecisionLog::lines(&log.recent(2, |test| matches!(test, Test::Number(2))))).0, [2]);
}

#[test]
fn many_others_do_not_push_out_denials() {
    let log: DecisionLog<Test> = DecisionLog::start(&Destination::Nowhere, options(4096, OnFull::Drop)).unwrap();
    (0..5).for_each(|denied| log.record(Test::Denied { denied }));
    (0..1000).for_each(|n| log.record(Test::Number(n)));
    log.record(Test::Denied { denied: 5 });
    assert!(log.flush(LONG));
    let texts =
        |limit, wanted: fn(&Test) -> bool| String::from_utf8(DecisionLog::lines(&log.recent(limit, wanted))).unwrap();
    let denials = "{\"denied\":3}\n{\"denied\":4}\n";
    assert_eq!(
        texts(10, |_| true),
        format!("{denials}997\n998\n999\n{{\"denied\":5}}\n"),
        "in the order in which they were recorded"
    );
    assert_eq!(texts(2, |_| true), "999\n{\"denied\":5}\n");
    assert_eq!(texts(10, Test::is_denial), format!("{denials}{{\"denied\":5}}\n"));
}

#[test]
fn a_full_queue_drops_and_counts_every_loss_and_says_it() {
    let (open, writer, out) = gate();
    let log = log(writer, 4, OnFull::Drop);
    (0..100).for_each(|n| log.record(Test::Number(n)));
    drop(open);
    assert!(log.flush(LONG));
    log.record(Test::Number(100));
    assert!(log.flush(LONG));
    assert!(log.lost().get() >= 90, "at most the queue and one batch can be kept");
    let (written, said) = lines(&out.lock());
    assert_eq!((written.len() as u64 + said, said), (101, log.lost().get()));
    assert_eq!(written.last(), Some(&100));
}

#[tokio::test]
async fn a_full_queue_that_blocks_loses_nothing() {
    let (open, writer, out) = gate();
    let log = log(writer, 2, OnFull::Block);
    // Decisions that were under way when it became full are recorded beyond it.
    (0..5).for_each(|n| log.record(Test::Number(n)));
    assert!(tokio::time::timeout(Duration::from_millis(50), log.room()).await.is_err(), "others wait");
    let own = log.clone();
    let deciding = tokio::spawn(async move {
        for n in 5..50 {
            own.room().await;
            own.record(Test::Number(n));
        }
    });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!deciding.is_finished(), "it must wait while nothing is written");
    drop(open);
    tokio::time::timeout(LONG, deciding).await.unwrap().unwrap();
    tokio::time::timeout(LONG, log.room()).await.unwrap();
    assert!(log.flush(LONG));
    assert_eq!((lines(&out.lock()), log.lost().get()), (((0..50).collect(), 0), 0));
}

#[test]
fn a_broken_pipe_is_counted_and_survived() {
    let (open, writer, out) = gate();
    let log = log(writer, 16, OnFull::Drop);
    open.send(Err(io::ErrorKind::BrokenPipe.into())).unwrap();
    log.record(Test::Number(1));
    assert!(log.flush(LONG));
    assert_eq!(log.lost().get(), 1);
    drop(open);
    log.record(Test::Number(2));
    assert!(log.flush(LONG));
    assert_eq!((lines(&out.lock()), log.lost().get()), ((vec![2], 1), 1));
}

#[test]
fn a_full_disk_holds_back_a_log_that_blocks_until_there_is_room() {
    let (open, writer, out) = gate();
    let log = log(writer, 16, OnFull::Block);
    for _ in 0..2 {
        open.send(Err(io::ErrorKind::StorageFull.into())).unwrap();
    }
    log.record(Test::Number(1));
    assert!(!log.flush(Duration::from_millis(50)));
    assert!(!log.has_room(), "nothing may be decided that cannot be recorded");
    open.send(Ok(())).unwrap();
    assert!(log.flush(LONG));
    assert_eq!((lines(&out.lock()), log.lost().get(), log.has_room()), ((vec![1], 0), 0, true));
}

#[test]
fn a_disk_that_fills_amid_a_line_leaves_whole_lines_and_a_count() {
    for takes_back in [true, false] {
        let (room, out) = (Arc::new(Mutex::new(5)), Arc::new(Mutex::new(Vec::new())));
        let log = log(Disk { room: room.clone(), out: out.clone(), takes_back }, 16, OnFull::Drop);
        [10, 20, 30].into_iter().for_each(|n| log.record(Test::Number(n)));
        assert!(log.flush(LONG));
        assert_eq!(log.lost().get(), 2, "10 and its end of line, and two bytes of 20");
        *room.lock() = 1000;
        log.record(Test::Number(40));
        assert!(log.flush(LONG));
        let text = String::from_utf8(out.lock().clone()).unwrap();
        let torn = if takes_back { "" } else { "20\n" };
        assert_eq!(text, format!("10\n{torn}{{\"lost\":2}}\n40\n"));
    }
}

#[test]
fn a_record_that_does_not_serialise_harms_no_other() {
    let (open, writer, out) = gate();
    drop(open);
    let log = log(writer, 16, OnFull::Drop);
    log.record(Test::Number(1));
    log.record(Test::Broken(HashMap::from([(vec![1u8], 1)])));
    log.record(Test::Number(2));
    assert!(log.flush(LONG));
    assert_eq!((lines(&out.lock()).0, log.lost().get()), (vec![1, 2], 1));
}

fn to_file(path: &Path, size: u64, chained: bool) -> DecisionLog<Test> {
    let rotation = Some(Rotation { size, keep: 2 });
    let destination = Destination::File { path: path.to_owned(), rotation };
    DecisionLog::start(&destination, Options { chained, ..options(64, OnFull::Drop) }).unwrap()
}

fn record(path: &Path, numbers: std::ops::Range<u64>) {
    let log = to_file(path, 300, true);
    for n in numbers {
        log.record(Test::Sealed { n });
        assert!(log.flush(LONG));
    }
    // The lock is free when the writer has ended.
    let queue = Arc::downgrade(&log.0.0);
    drop(log);
    while queue.strong_count() > 0 {
        std::thread::yield_now();
    }
}

#[test]
fn files_are_turned_over_and_the_chain_goes_on_across_them_and_across_starts() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("decisions.jsonl");
    record(&path, 0..4);
    // A process that was killed leaves a part of a line.
    std::fs::OpenOptions::new().append(true).open(&path).unwrap().write_all(b"{\"n\":99,\"ch").unwrap();
    record(&path, 4..7);
    let read = |suffix: &str| std::fs::read_to_string(format!("{}{suffix}", path.display())).unwrap();
    let text = read(".2") + &read(".1") + &read("");
    assert!(!dir.path().join("decisions.jsonl.3").exists());
    let sealed: Vec<_> = text.lines().filter_map(|line| chain::split(line.as_bytes())).collect();
    assert_eq!(text.lines().count(), sealed.len() + 1, "the torn line stands alone: {text}");
    let numbers: Vec<String> = sealed.iter().map(|(body, _)| String::from_utf8_lossy(body).into_owned()).collect();
    assert_eq!(numbers.last().map(String::as_str), Some("{\"n\":6"), "{text}");
    assert!(sealed.len() >= 5, "{text}");
    for pair in sealed.windows(2) {
        assert_eq!(pair[0].1.after(pair[1].0), pair[1].1, "{text}");
    }
}

#[test]
fn two_processes_do_not_write_one_file_and_a_bad_path_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let _first = to_file(&path, 100, false);
    let again = |path: &Path| {
        let destination = Destination::File { path: path.to_owned(), rotation: None };
        DecisionLog::<Test>::start(&destination, options(1, OnFull::Drop)).unwrap_err().to_string()
    };
    assert!(again(&path).contains("another process writes it"));
    assert!(again(&dir.path().join("none/log")).contains("No such file"));
}

#[test]
fn what_callers_send_does_not_decide_how_much_memory_a_log_takes() {
    let (_opener, gate, _) = gate();
    let log = DecisionLog::spawn(Some(gate), chain::Head::default(), options(10_000, OnFull::Drop)).unwrap();
    for _ in 0..40 {
        log.record(Test::Heavy { bytes: 1 << 20 });
    }
    // The writer may hold one batch of them besides.
    assert!(log.lost().get() >= 40 - 2 * (WAITING_BYTES >> 20) as u64, "{}", log.lost().get());

    let kept = DecisionLog::spawn(
        None::<std::fs::File>,
        chain::Head::default(),
        Options { recent: 1000, ..options(10_000, OnFull::Drop) },
    )
    .unwrap();
    for _ in 0..12 {
        kept.record(Test::Heavy { bytes: 1 << 20 });
    }
    assert!(kept.flush(Duration::from_secs(10)));
    let kept = kept.recent(1000, |_| true).len();
    assert!((1..=recent::BYTES_MAX >> 20).contains(&kept), "{kept}");
}

/// The directory's log files and their sizes.
fn sizes(dir: &std::path::Path) -> Vec<(String, u64)> {
    let mut all: Vec<(String, u64)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), entry.metadata().unwrap().len()))
        .collect();
    all.sort();
    all
}

#[test]
fn a_file_that_somebody_moved_away_costs_no_older_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    let rotation = Some(Rotation { size: 100, keep: 3 });
    let mut file = RotatingFile::open(&path, rotation).unwrap();
    let write = |file: &mut RotatingFile, letter: u8| {
        file.prepare(60).unwrap();
        io::Write::write_all(file, &[letter; 60]).unwrap();
    };
    for letter in *b"abcd" {
        write(&mut file, letter);
    }
    let older = |n: u8| std::fs::read(dir.path().join(format!("log.{n}"))).unwrap()[0];
    assert_eq!([older(1), older(2), older(3)], *b"cba");
    std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
    write(&mut file, b'e');
    assert_eq!([older(1), older(2), older(3)], *b"cba", "{:?}", sizes(dir.path()));
    assert_eq!(std::fs::read(&path).unwrap()[0], b'e');
    write(&mut file, b'f');
    assert_eq!([older(1), older(2), older(3)], *b"ecb");
    // A rotation that cannot be done costs none either, however often it would be due.
    std::fs::create_dir(dir.path().join("log.new")).unwrap();
    std::fs::write(dir.path().join("log.new/in-the-way"), "").unwrap();
    for _ in 0..5 {
        write(&mut file, b'g');
    }
    assert_eq!([older(1), older(2), older(3)], *b"ecb");
}

#[test]
fn a_chain_begins_in_a_file_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    std::fs::write(&path, "{\"n\":1}\n").unwrap();
    let start = |rotation| {
        let destination = Destination::File { path: path.clone(), rotation };
        DecisionLog::start(&destination, Options { chained: true, ..options(10, OnFull::Drop) })
    };
    assert!(start(None).is_err_and(|error| error.to_string().contains("move the file away")));
    let log = start(Some(Rotation { size: 1 << 20, keep: 3 })).unwrap();
    log.record(Test::Sealed { n: 2 });
    assert!(log.flush(Duration::from_secs(10)));
    assert_eq!(std::fs::read_to_string(dir.path().join("log.1")).unwrap(), "{\"n\":1}\n");
    let mut verifier = verify::Verifier::default();
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.lines().all(|line| verifier.line(line.as_bytes()).is_ok()), "{text}");
    drop(log);
    // Going on with a chain that is there leaves the file where it is.
    std::thread::sleep(Duration::from_millis(200));
    let _log = start(Some(Rotation { size: 1 << 20, keep: 3 })).unwrap();
    assert_eq!(std::fs::read_to_string(dir.path().join("log.1")).unwrap(), "{\"n\":1}\n");
}
