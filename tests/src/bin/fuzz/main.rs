//! Hostile input for whatever reads it, as `cargo xtask fuzz` runs it: for so long each, mutations of seeds go into one reader
//! after the other. A finding is a panic, a broken promise, or more time than a body may cost; its input is written to a file.
//!
//! Inputs after which a reader behaves as after none before (see [`targets::Target::run`]) are mutated further.

mod mutate;
mod targets;

use std::{
    collections::HashSet,
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use clap::Parser;
use nix::{
    sys::time::TimeValLike as _,
    time::{ClockId, clock_gettime},
};

use self::{mutate::Mutator, targets::Target};

/// Bytes of an input, at most.
const LARGEST: usize = 128 << 10;
/// CPU time that an input may take.
const AT_MOST: Duration = Duration::from_millis(250);
/// Inputs that are kept for further mutation.
const POOL: usize = 4096;

#[derive(Parser)]
struct Cli {
    /// How long for each
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// Where inputs of findings go
    #[arg(long, value_name = "DIRECTORY", default_value = "fuzz-findings")]
    findings: PathBuf,
    /// Another seed, other mutations
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// The folder of CRS 4, for whole requests: with its set-up example and `rules` in it
    #[arg(long, value_name = "DIRECTORY", default_value = "../shared/crs-4.28")]
    crs: PathBuf,
    /// These alone: seclang, urlencoded, cookies, json, multipart, xml, gzip, deflate, br, zstd, transformations, request
    targets: Vec<String>,
}

fn main() -> Result<ExitCode> {
    let cli = Cli::parse();
    let targets = targets::all(&cli.crs);
    for name in &cli.targets {
        ensure!(targets.iter().any(|target| target.name == name), "there is no target {name}");
    }
    let mut findings = 0;
    for mut target in targets {
        if cli.targets.is_empty() || cli.targets.iter().any(|name| name == target.name) {
            findings += fuzz(&mut target, &cli)?;
        }
    }
    Ok(if findings == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// How many findings there are: it ends with the first.
fn fuzz(target: &mut Target, cli: &Cli) -> Result<usize> {
    let mut mutator = Mutator::new(cli.seed, target.words);
    let mut pool: Vec<Vec<u8>> = target.seeds.clone();
    let (mut seen, mut count, mut slowest) = (HashSet::new(), 0_u64, Duration::ZERO);
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(cli.seconds) {
        let input = match target.seeds.get(count as usize) {
            Some(seed) => seed.clone(),
            None => mutator.mutated(&pool, LARGEST),
        };
        count += 1;
        let before = clock()?;
        let result = catch_unwind(AssertUnwindSafe(|| (target.run)(&input)));
        let took = clock()? - before;
        slowest = slowest.max(took);
        let what = match result {
            Err(_) => "it panics".to_owned(),
            Ok(Err(promise)) => promise,
            Ok(Ok(_)) if took > AT_MOST => format!("it takes {} ms", took.as_millis()),
            Ok(Ok(behaviour)) => {
                if seen.insert(behaviour) {
                    if pool.len() < POOL { pool.push(input) } else { mutator.replace(&mut pool, input) }
                }
                continue;
            }
        };
        std::fs::create_dir_all(&cli.findings)?;
        let file = cli.findings.join(format!("{}-{count}", target.name));
        std::fs::write(&file, &input).with_context(|| file.display().to_string())?;
        println!("{}: {what}, of {}", target.name, file.display());
        return Ok(1);
    }
    println!(
        "{}: {count} inputs, {} behaviours, the slowest took {} µs of CPU, no finding",
        target.name,
        seen.len(),
        slowest.as_micros()
    );
    Ok(0)
}

/// CPU time of this thread: others do not count.
fn clock() -> Result<Duration> {
    let time = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
    Ok(Duration::from_nanos(u64::try_from(time.num_nanoseconds())?))
}
