use std::collections::BTreeSet;

use super::*;

fn wanted() -> Wanted {
    let both = vec![Protocol::Native, Protocol::Http];
    Wanted {
        contenders: vec![
            (Mode::Direct, vec![Protocol::Native]),
            (OFF_OFF, both.clone()),
            (ON_OFF, both.clone()),
            (OFF_ON, both.clone()),
            (ON_ON, both),
        ],
        operations: vec![Operation::Light, Operation::Heavy],
        requests: vec![100, 1000],
        heavy_requests: vec![],
        connections: vec![1, 4],
        repeat: 4,
    }
}

#[test]
fn each_repetition_has_each_mode_once_at_each_cell() {
    let plan = Plan::new(&wanted()).unwrap();
    // 1 direct and 4 modes by 2 protocols; 2 operations, 2 numbers of requests, 2 of connections.
    assert_eq!(plan.runs().len(), 4 * 9 * 8);
    for run in plan.runs() {
        assert_eq!(plan.runs().iter().filter(|other| *other == run).count(), 1, "{run}");
    }
    let repetitions: Vec<u32> = plan.runs().iter().map(|run| run.repetition).collect();
    assert!(repetitions.is_sorted(), "a repetition is over before the next begins");
}

#[test]
fn modes_take_turns_before_the_next_cell_begins() {
    let plan = Plan::new(&wanted()).unwrap();
    let orders: Vec<Vec<Mode>> = plan
        .runs()
        .chunks(9)
        .map(|runs| {
            assert!(runs.iter().all(|run| run.cell == runs[0].cell && run.repetition == runs[0].repetition));
            let mut modes: Vec<Mode> = runs.iter().map(|run| run.mode).collect();
            modes.dedup();
            modes
        })
        .collect();
    assert!(orders.iter().all(|order| order.len() == 5 && order[4] == OFF_ON), "{orders:?}");
    for place in 0..4 {
        let seen: BTreeSet<Mode> = orders.iter().map(|order| order[place]).collect();
        assert_eq!(seen.len(), 4, "every mode has been in place {place}");
    }
}

#[test]
fn rows_of_the_square_balance_places_and_predecessors() {
    for count in [1, 2, 3, 4, 6] {
        let rows: Vec<Vec<usize>> = (0..count).map(|row| williams(count, row)).collect();
        for place in 0..count {
            assert_eq!(rows.iter().map(|row| row[place]).collect::<BTreeSet<_>>().len(), count);
        }
        if count % 2 == 0 {
            let pairs: BTreeSet<_> =
                rows.iter().flat_map(|row| row.windows(2).map(|pair| (pair[0], pair[1]))).collect();
            assert_eq!(pairs.len(), count * (count - 1), "each behind each other: {rows:?}");
        }
    }
}

#[test]
fn heavy_requests_are_fewer_unless_it_is_said_how_many() {
    let heavy = |wanted: &Wanted| requests(wanted, Operation::Heavy);
    let mut wanted = wanted();
    assert_eq!(heavy(&wanted), [5, 20]);
    wanted.requests = vec![3];
    assert_eq!(heavy(&wanted), [3], "never more than asked for");
    wanted.heavy_requests = vec![7];
    assert_eq!(heavy(&wanted), [7]);
}

#[test]
fn a_mixture_is_what_is_promised() {
    let count = |class| (0..50).filter(|index| Operation::Mixed.class(*index) == class).count();
    assert_eq!((count(Class::Write), count(Class::Read), count(Class::Heavy)), (24, 25, 1));
}

#[test]
fn what_is_out_of_bounds_is_refused_by_name() {
    let broken = |change: fn(&mut Wanted)| {
        let mut wanted = wanted();
        change(&mut wanted);
        Plan::new(&wanted).unwrap_err().to_string()
    };
    assert!(broken(|wanted| wanted.requests = vec![0]).contains("--requests"));
    assert!(broken(|wanted| wanted.connections = vec![1, 1000]).contains("--connections"));
    assert!(broken(|wanted| wanted.repeat = 0).contains("--repeat"));
    assert!(broken(|wanted| wanted.contenders.clear()).contains("nothing to measure"));
}
