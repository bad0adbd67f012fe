//! The gate's promises about replicas that are left out after connect failures.

use super::*;

#[test]
fn never_more_than_half_are_left_out() {
    let bench = Bench::new(5, 1);
    let backoff = 1_000_000;
    let out: Vec<_> = bench.replicas.iter().map(|r| bench.gate.leave_out(r, bench.now_us, backoff)).collect();
    assert_eq!(out, [true, true, false, false, false]);
    bench.replace(1..4, 1);
    assert_eq!(bench.replicas[1..4].iter().filter(|r| r.state.is_left_out()).count(), 1);
    bench.replace(1..2, 1);
    assert!(!bench.replicas[1].state.is_left_out(), "the only one is used, however bad it looks");
    assert!(!bench.gate.leave_out(&bench.replicas[1], bench.now_us, backoff));
}

#[test]
fn the_slot_of_a_replica_that_is_left_out_is_not_handed_on() {
    let mut bench = Bench::new(2, 1);
    let held = bench.claim_all();
    let waiter = bench.wait();
    bench.break_down(&held[0]);
    bench.gate.release(&held[0]);
    assert_eq!(waiter.bell.rang(), 0);
    bench.gate.release(&held[1]);
    assert!(Arc::ptr_eq(&bench.granted(&waiter).unwrap(), &held[1]));
}

#[test]
fn a_replica_that_has_moved_is_tried_at_its_new_address_at_once() {
    let mut bench = Bench::new(2, 1);
    let broken = bench.replicas[0].clone();
    bench.break_down(&broken);
    bench.replace(.., 1);
    let held = bench.claim_all();
    assert!(!held.iter().any(|replica| Arc::ptr_eq(replica, &broken)), "a new snapshot alone is no reason to try it");
    let (id, name, state) = (broken.id.clone(), broken.name.clone(), broken.state.clone());
    let moved = Arc::new(Replica { id, address: ([127, 0, 0, 2], broken.address.port()).into(), name, state });
    bench.replicas[0] = moved.clone();
    bench.replace(.., 1);
    assert!(bench.claim_all().iter().any(|replica| Arc::ptr_eq(replica, &moved)));
}

#[test]
fn a_burst_of_failures_leaves_a_replica_out_once() {
    let mut bench = Bench::new(2, 8);
    let broken = bench.replicas[0].clone();
    let first = bench.break_down(&broken);
    for _ in 0..5 {
        let backoff = broken.state.connect_failed().unwrap();
        assert!(!bench.gate.leave_out(&broken, bench.now_us + 10, backoff), "it is out already");
    }
    bench.now_us += first;
    bench.gate.pump(Some(bench.now_us));
    assert!(bench.claim_all().iter().any(|replica| Arc::ptr_eq(replica, &broken)), "not out for longer than at first");
    assert_eq!(broken.state.connect_failed(), Some(2 * first), "the second time it is out for twice as long");
}

#[test]
fn a_waiter_tries_the_replica_whose_time_has_come_and_success_opens_it_for_all() {
    let mut bench = Bench::new(2, 2);
    let held = bench.claim_all();
    let broken = bench.replicas[0].clone();
    bench.now_us += bench.break_down(&broken);
    held.iter().filter(|replica| Arc::ptr_eq(replica, &broken)).for_each(|replica| bench.gate.release(replica));
    // The clock alone wakes nobody: this is what the pump at the end of the back-off is for.
    bench.gate.pump(None);
    bench.now_us -= 1;
    let waiters = [bench.wait(), bench.wait()];
    bench.now_us += 1;
    bench.gate.pump(Some(bench.now_us));
    assert!(Arc::ptr_eq(&bench.granted(&waiters[0]).unwrap(), &broken));
    bench.gate.pump(Some(bench.now_us + 1_000));
    assert_eq!(waiters[1].bell.rang(), 0, "one at a time");
    assert!(broken.state.connect_succeeded());
    bench.gate.pump(None);
    assert!(Arc::ptr_eq(&bench.granted(&waiters[1]).unwrap(), &broken));
}

#[test]
fn a_due_replica_without_a_free_slot_is_tried_as_soon_as_one_is_free() {
    let mut bench = Bench::new(2, 1);
    let held = bench.claim_all();
    let broken = bench.replicas[0].clone();
    let backoff = bench.break_down(&broken);
    let waiter = bench.wait();
    bench.gate.pump(Some(bench.now_us + backoff));
    assert_eq!(waiter.bell.rang(), 0);
    held.iter().filter(|replica| Arc::ptr_eq(replica, &broken)).for_each(|replica| bench.gate.release(replica));
    assert!(Arc::ptr_eq(&bench.granted(&waiter).unwrap(), &broken));
}

#[test]
fn when_the_trying_request_gives_up_before_it_connects_the_next_one_tries() {
    let mut bench = Bench::new(2, 1);
    let broken = bench.replicas[0].clone();
    bench.now_us += bench.break_down(&broken);
    let held = bench.claim_all();
    assert_eq!(held.len(), 2);
    let (first, second) = (bench.wait(), bench.wait());
    bench.gate.release(&broken);
    assert_eq!(first.bell.rang(), 1);
    bench.gate.leave(first.ticket);
    assert!(Arc::ptr_eq(&bench.granted(&second).unwrap(), &broken));
    bench.gate.release(&broken);
    assert!(Arc::ptr_eq(&bench.claim().unwrap(), &broken));
    assert!(broken.state.is_left_out());
}

#[test]
fn a_trying_request_that_fails_leaves_the_replica_out_for_longer() {
    let mut bench = Bench::new(2, 1);
    let broken = bench.replicas[0].clone();
    bench.now_us += bench.break_down(&broken);
    bench.claim_all();
    let backoff = broken.state.connect_failed().unwrap();
    assert_eq!(backoff, 2_000_000);
    assert!(bench.gate.leave_out(&broken, bench.now_us, backoff));
    let waiter = bench.wait();
    bench.gate.release(&broken);
    bench.gate.pump(Some(bench.now_us + backoff - 1));
    assert_eq!(waiter.bell.rang(), 0);
    bench.gate.pump(Some(bench.now_us + backoff));
    assert!(bench.granted(&waiter).is_some());
}

#[test]
fn a_replica_that_is_not_in_the_snapshot_is_not_left_out() {
    let bench = Bench::new(3, 1);
    bench.replace(..2, 1);
    assert!(!bench.gate.leave_out(&bench.replicas[2], bench.now_us, 1_000_000));
    assert!(bench.gate.leave_out(&bench.replicas[1], bench.now_us, 1_000_000), "others are not counted against it");
}

#[test]
fn a_replica_whose_time_came_while_it_was_away_is_tried_when_it_is_back() {
    for close in [false, true] {
        let mut bench = Bench::new(2, 1);
        let broken = bench.replicas[0].clone();
        let backoff = bench.break_down(&broken);
        if close {
            bench.gate.close()
        } else {
            bench.replace(1.., 1)
        }
        bench.now_us += backoff;
        bench.gate.pump(Some(bench.now_us));
        bench.replace(1.., 1);
        bench.now_us -= backoff;
        bench.claim_all();
        let waiter = bench.wait();
        bench.replace(.., 1);
        assert!(Arc::ptr_eq(&bench.granted(&waiter).expect("no clock will ring for it again"), &broken));
        assert!(broken.state.is_left_out(), "tried by one");
    }
}
