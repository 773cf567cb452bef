//! Rates hold over time: what the real program admits, against what its configuration says, for offered loads of 1.5, 10 and
//! 100 times the rate, from one CPU and from two. Measured by the clock, so a busy machine changes the load, not the answer.

use std::{
    os::fd::AsFd as _,
    sync::{Barrier, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use firewall_common::counter::Tally;
use tests::{
    frame::Frame,
    loaded::{Loaded, test_run},
};

/// Part by which an admitted rate may differ from the configured one.
const TOLERANCE: f64 = 0.05;

/// These tests take all CPUs there are, one after the other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn policy(rate: u32, burst: f64) -> Loaded {
    let policy = format!("[[dmz.rate]]\nname = \"it\"\nper = \"source\"\npackets = \"{rate}/s\"\nburst = {burst}");
    Loaded::new(&policy).expect("root, and bpffs")
}

/// Calls `offer` with the number of the call, every `gap`, for `lasts`. A call that is late is made up for at once.
/// Gives the time of each call.
fn paced(lasts: Duration, gap: Duration, mut offer: impl FnMut(u32)) -> Vec<Instant> {
    let start = Instant::now();
    let mut times = Vec::new();
    loop {
        let now = Instant::now();
        if now - start >= lasts {
            return times;
        }
        let calls = times.len() as u32;
        if now < start + gap * calls {
            std::hint::spin_loop();
            continue;
        }
        times.push(now);
        offer(calls);
    }
}

/// Tokens that came back while packets were offered at `times`, to a bucket empty at first: time in which nobody offers
/// fills it up to `depth` and no further.
fn returned(times: &mut [Instant], rate: f64, depth: f64) -> f64 {
    times.sort();
    times.windows(2).map(|pair| ((pair[1] - pair[0]).as_secs_f64() * rate).min(depth)).sum()
}

#[track_caller]
fn assert_near(what: &str, admitted: u64, expected: f64, configured: f64) {
    let ratio = admitted as f64 / expected;
    println!("{what}: {admitted} admitted, {expected:.0} expected, ratio {ratio:.4}");
    assert!((ratio - 1.0).abs() <= TOLERANCE, "{what}: {admitted} admitted, {expected:.1} expected");
    assert!(expected > configured / 2.0, "{what}: the machine was too busy to offer a load");
}

/// One source that may send 1,000 packets a second.
fn one_source(threads: u32) {
    const RATE: f64 = 1000.0;
    const BURST: f64 = 0.05;
    const LASTS: Duration = Duration::from_millis(2200);
    let _alone = alone();
    let frame = Frame::v4("198.51.100.7", "192.0.2.1").udp(40000, 5000).payload(10).build();
    // Packets one by one: a call with several of the same takes 17 ms, in which the bucket fills up again.
    for factor in [1.5, 10.0, 100.0] {
        let mut loaded = policy(RATE as u32, BURST);
        let program = loaded.program().expect("a descriptor");
        loaded.run(&frame, 1000).expect("the kernel runs the program");
        let before = loaded.counters().expect("counters can be read");
        let barrier = Barrier::new(threads as usize);
        let gap = Duration::from_secs_f64(f64::from(threads) / (factor * RATE));
        let offer = || {
            barrier.wait();
            paced(LASTS, gap, |_| {
                test_run(program.as_fd(), &frame, 1).expect("the kernel runs the program");
            })
        };
        let mut times: Vec<Instant> = std::thread::scope(|scope| {
            let offering: Vec<_> = (0..threads).map(|_| scope.spawn(offer)).collect();
            offering.into_iter().flat_map(|thread| thread.join().expect("it offers")).collect()
        });
        let after = loaded.counters().expect("counters can be read");
        let passed = after.tally(Tally::Passed) - before.tally(Tally::Passed);
        let dropped = after.tally(Tally::Dropped) - before.tally(Tally::Dropped);
        assert_eq!(passed + dropped, times.len() as u64, "each packet once");
        assert_eq!(after.tally(Tally::BucketContended), 0);
        println!("offered: {:.1} times the rate", times.len() as f64 / (RATE * LASTS.as_secs_f64()));
        let expected = returned(&mut times, RATE, RATE * BURST);
        let what = format!("1,000/s, {threads} CPUs, {factor} times the load");
        assert_near(&what, passed, expected, RATE * LASTS.as_secs_f64());
    }
}

#[test]
fn one_source_from_one_cpu() {
    one_source(1);
}

#[test]
fn one_source_from_two_cpus() {
    one_source(2);
}

/// A thousand sources that may send 10 packets a second each.
fn thousand_sources(threads: u32) {
    const RATE: f64 = 10.0;
    const DEPTH: f64 = 5.0;
    const SOURCES: u32 = 1000;
    const LASTS: Duration = Duration::from_millis(3500);
    let _alone = alone();
    let frame = |number: u32| {
        let source = std::net::Ipv4Addr::from(0x0a00_0000 + number * 7919);
        Frame::v4(source, "192.0.2.1").udp(40000, 5000).payload(10).build()
    };
    let frames: Vec<Vec<u8>> = (0..SOURCES).map(frame).collect();
    // A million packets a second are more than single calls can offer: the last load is as much as the machine gives.
    for factor in [1.5, 10.0, 100.0] {
        let mut loaded = policy(RATE as u32, DEPTH / RATE);
        let program = loaded.program().expect("a descriptor");
        // The last of the tokens of the first, too.
        for frame in &frames {
            for _ in 0..2 * DEPTH as u32 {
                loaded.run(frame, 1).expect("the kernel runs the program");
            }
        }
        let before = loaded.counters().expect("counters can be read");
        let barrier = Barrier::new(threads as usize);
        let gap = Duration::from_secs_f64(f64::from(threads) / (factor * RATE * f64::from(SOURCES)));
        let offer = |thread: u32| {
            let (mut admitted, frames, barrier, program) = (vec![0u32; SOURCES as usize], &frames, &barrier, &program);
            barrier.wait();
            // Half a round apart, so that each source is offered to both at an even pace.
            let ahead = thread * SOURCES / threads;
            let number = |call: u32| ((call + ahead) % SOURCES) as usize;
            let times = paced(LASTS, gap, |call| {
                let run = test_run(program.as_fd(), &frames[number(call)], 1);
                admitted[number(call)] += u32::from(run.expect("the kernel runs the program").action == 2);
            });
            let of_sources: Vec<(usize, Instant)> =
                times.into_iter().enumerate().map(|(call, time)| (number(call as u32), time)).collect();
            (of_sources, admitted)
        };
        let results: Vec<_> = std::thread::scope(|scope| {
            let offer = &offer;
            let offering: Vec<_> = (0..threads).map(|thread| scope.spawn(move || offer(thread))).collect();
            offering.into_iter().map(|thread| thread.join().expect("it offers")).collect()
        });
        let after = loaded.counters().expect("counters can be read");
        assert_eq!(after.tally(Tally::BucketStolen), 0, "there is room for a thousand");
        let mut times = vec![Vec::new(); SOURCES as usize];
        for (source, time) in results.iter().flat_map(|(of_sources, _)| of_sources) {
            times[*source].push(*time);
        }
        let expected: Vec<f64> = times.iter_mut().map(|times| returned(times, RATE, DEPTH)).collect();
        // Each on its own; whole packets, and what was left of a token at the start.
        for (source, expected) in expected.iter().enumerate() {
            let admitted: u32 = results.iter().map(|(_, admitted)| admitted[source]).sum();
            let off = f64::from(admitted) - expected;
            assert!(off.abs() <= 2.0 + expected * TOLERANCE, "source {source}: {admitted} of {expected:.1}");
        }
        let offered: usize = times.iter().map(Vec::len).sum();
        println!("offered: {:.1} times the rate", offered as f64 / (RATE * f64::from(SOURCES) * LASTS.as_secs_f64()));
        let passed = after.tally(Tally::Passed) - before.tally(Tally::Passed);
        let what = format!("10/s for each of 1,000, {threads} CPUs, {factor} times the load");
        let configured = RATE * f64::from(SOURCES) * LASTS.as_secs_f64();
        assert_near(&what, passed, expected.iter().sum(), configured);
    }
}

#[test]
fn thousand_sources_from_one_cpu() {
    thousand_sources(1);
}

#[test]
fn thousand_sources_from_two_cpus() {
    thousand_sources(2);
}
