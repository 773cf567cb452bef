//! `cargo xtask test`: every test of the workspace, and a sum of what their runners report.

use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

use anyhow::{Context, Result, bail};

use crate::{
    process::{cargo, root_prefix},
    programs::{AGENT_VARIABLE, Programs},
    setup,
};

#[derive(Debug, Default, clap::Args)]
pub(crate) struct Args {
    /// Passed on to `cargo test`: a filter by name, options such as `-p firewall-common`, and after `--` options for the
    /// test runner
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    args: Vec<String>,
}

pub(crate) fn test(args: &Args) -> Result<()> {
    setup::all()?;
    let agent = Programs::build()?.agent()?;
    let mut command = cargo();
    command.args(["test", "--release", "--no-fail-fast"]);
    // cargo itself stays with the user, so that no file in its target directory becomes root's.
    let prefix = root_prefix()?;
    if !prefix.is_empty() {
        let words: Vec<String> = prefix.iter().map(|word| format!("{:?}", word.display().to_string())).collect();
        command.arg(format!("--config=target.'cfg(unix)'.runner=[{}]", words.join(", ")));
    }
    command.args(&args.args).env(AGENT_VARIABLE, agent).stdout(Stdio::piped());

    let mut child = command.spawn().context("cargo could not be started")?;
    let mut total = Total::default();
    let output = child.stdout.take().context("cargo has no output")?;
    for line in BufReader::new(output).split(b'\n') {
        let line = line.context("the output of cargo could not be read")?;
        let line = String::from_utf8_lossy(&line);
        println!("{line}");
        total.add(&line);
    }
    let status = child.wait().context("cargo did not end")?;
    println!("{total}");
    if !status.success() {
        bail!("the tests failed");
    }
    Ok(())
}

/// The sum over the closing lines of the test runners.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Total {
    runners: u32,
    passed: u32,
    failed: u32,
    ignored: u32,
}

impl Total {
    /// Counts a line such as `test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; …`.
    pub(crate) fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix("test result: ") else { return };
        self.runners += 1;
        for part in result.split([';', '.']) {
            let mut words = part.split_whitespace();
            let Some(number) = words.next().and_then(|number| number.parse::<u32>().ok()) else { continue };
            match words.next() {
                Some("passed") => self.passed += number,
                Some("failed") => self.failed += number,
                Some("ignored") => self.ignored += number,
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Total {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { runners, passed, failed, ignored } = self;
        write!(f, "total of {runners} test runners: {passed} passed; {failed} failed; {ignored} ignored")
    }
}

#[cfg(test)]
mod tests {
    use super::Total;

    #[test]
    fn sums_the_closing_lines() {
        let mut total = Total::default();
        total.add("test result: ok. 3 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; finished in 0.00s");
        total.add("test a_test_that_says ... test result: 9 passed");
        total.add("test result: FAILED. 2 passed; 4 failed; 0 ignored; 0 measured; 7 filtered out; finished in 1.00s");
        assert_eq!(total, Total { runners: 2, passed: 5, failed: 4, ignored: 1 });
    }
}
