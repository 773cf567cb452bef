//! Sends a probe and holds what became of it against what was expected: counters, events, and the witness or the client.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use firewall_user::control::api::Status;
use tests::agent::{Event, dropped, monitored};

use crate::{
    bench::Bench,
    probe::{Expect, Probe, Sent},
};

/// For counters, events and frames to show up.
const DEADLINE: Duration = Duration::from_secs(3);
const POLL: Duration = Duration::from_millis(20);
/// A frame that was counted as dropped is not on its way any more; this is for one that was wrongly passed as well.
const AFTERMATH: Duration = Duration::from_millis(30);

/// A line of the table.
pub(crate) struct Line {
    pub(crate) family: &'static str,
    pub(crate) stage: &'static str,
    pub(crate) what: String,
    pub(crate) expected: String,
    pub(crate) happened: String,
    pub(crate) by: String,
    pub(crate) counter: String,
    /// What was not as expected.
    pub(crate) complaints: Vec<String>,
}

impl Line {
    pub(crate) fn summary(&self) -> String {
        if self.complaints.is_empty() {
            format!("ok: {} [{}]", self.happened, self.counter)
        } else {
            format!("NOT AS EXPECTED ({}): {} [{}]", self.expected, self.complaints.join("; "), self.counter)
        }
    }
}

pub(crate) fn run(bench: &mut Bench, probe: Probe) -> Result<Line> {
    let before = bench.agent.status()?;
    let mark = bench.agent.mark();
    bench.witness.clear();
    let sent = (probe.send)(bench).with_context(|| probe.what.clone())?;
    let trial = Trial { bench, before, mark, sent, expect: probe.expect, by: probe.by, complaints: Vec::new() };
    trial.judge(probe.family, probe.stage, probe.what, probe.tally, probe.also)
}

struct Trial<'a> {
    bench: &'a Bench,
    before: Status,
    /// Events there were before.
    mark: usize,
    sent: Sent,
    expect: Expect,
    by: Option<&'static str>,
    complaints: Vec<String>,
}

impl Trial<'_> {
    fn judge(
        mut self,
        family: &'static str,
        stage: &'static str,
        what: String,
        tally: Option<&'static str>,
        also: &[&str],
    ) -> Result<Line> {
        let expect = self.expect.clone();
        let expected = expect.to_string();
        let (happened, event, reason) = match expect {
            Expect::Passes => (self.arrival(), None, None),
            Expect::Drops { reason, source } => {
                self.wait_for_drops(reason)?;
                let event = self.event("drop", reason, source);
                (self.absence(), event, Some(reason))
            }
            Expect::Monitors { reason, source } => {
                let happened = self.arrival();
                (happened, self.event("monitor", reason, Some(source)), Some(reason))
            }
            Expect::Limits { reason, source, least, most } => {
                self.wait_for_limit(reason)?;
                let event = self.event("drop", reason, Some(source));
                (self.part(reason, least, most)?, event, Some(reason))
            }
        };
        let after = self.bench.agent.status()?;
        let counter = self.counters(&after, reason, tally)?;
        self.no_other_reason(&after, reason, also)?;
        if let Some(name) = self.by {
            let count =
                |status: &Status| status.rules.iter().find(|rule| rule.name == name).map(|rule| rule.matched.packets);
            match (count(&self.before), count(&after)) {
                (Some(before), Some(after)) if after > before => {}
                (before, after) => self.complain(format!("rule {name} counted {before:?} → {after:?}")),
            }
        }
        let happened = if event.is_some() { happened + ", reported" } else { happened };
        let by = event.as_ref().and_then(Event::by).or(self.by).unwrap_or("—").to_owned();
        Ok(Line { family, stage, what, expected, happened, by, counter, complaints: self.complaints })
    }

    fn complain(&mut self, complaint: impl Into<String>) {
        self.complaints.push(complaint.into());
    }

    /// It must have arrived.
    fn arrival(&mut self) -> String {
        match &self.sent {
            Sent::Frames(frames) => {
                let (all, seen) = (frames.len(), self.bench.witness.count_arrivals(frames, DEADLINE / 3));
                if seen < all {
                    self.complain(format!("the witness saw {seen} of {all}"));
                }
                format!("arrived: {seen} of {all}")
            }
            Sent::Client(Ok(got)) => format!("client: {got}"),
            Sent::Client(Err(error)) => {
                let error = error.clone();
                self.complain(format!("the client failed: {error}"));
                format!("client: {error}")
            }
        }
    }

    /// It must not have arrived.
    fn absence(&mut self) -> String {
        match &self.sent {
            Sent::Frames(frames) => {
                let (all, seen) = (frames.len(), self.bench.witness.count_arrivals(frames, AFTERMATH));
                if seen > 0 {
                    self.complain(format!("the witness saw {seen} of {all}"));
                }
                format!("arrived: {seen} of {all}")
            }
            Sent::Client(Err(error)) => format!("client: {error}"),
            Sent::Client(Ok(got)) => {
                let got = got.clone();
                self.complain(format!("the client got {got}"));
                format!("client: {got}")
            }
        }
    }

    /// Some must have arrived, and the others been counted.
    fn part(&mut self, reason: &'static str, least: usize, most: usize) -> Result<String> {
        let Sent::Frames(frames) = &self.sent else { anyhow::bail!("only frames can be counted") };
        let (all, seen) = (frames.len(), self.bench.witness.count_arrivals(frames, AFTERMATH));
        let lost = self.growth(reason)? as usize;
        if !(least..=most).contains(&seen) || seen + lost != all {
            self.complain(format!("of {all} the witness saw {seen}, and {lost} were dropped"));
        }
        Ok(format!("arrived: {seen} of {all}"))
    }

    fn wait_for_drops(&mut self, reason: &'static str) -> Result<()> {
        // A client may try again; frames are as many as they are.
        let (least, most) = match &self.sent {
            Sent::Frames(frames) => (frames.len() as u64, frames.len() as u64),
            Sent::Client(_) => (1, u64::MAX),
        };
        let grown = self.wait_for_growth(reason, least)?;
        if !(least..=most).contains(&grown) {
            self.complain(format!("{reason} grew by {grown}"));
        }
        Ok(())
    }

    fn wait_for_limit(&mut self, reason: &'static str) -> Result<()> {
        // How many are dropped depends on the clock; it is counted once the witness has seen the others.
        thread::sleep(DEADLINE / 30);
        self.wait_for_growth(reason, 1).map(drop)
    }

    fn wait_for_growth(&self, reason: &str, least: u64) -> Result<u64> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let grown = self.growth(reason)?;
            if grown >= least || Instant::now() > deadline {
                return Ok(grown);
            }
            thread::sleep(POLL);
        }
    }

    fn growth(&self, reason: &str) -> Result<u64> {
        Ok(dropped(&self.bench.agent.status()?, reason)?.packets - dropped(&self.before, reason)?.packets)
    }

    fn event(&mut self, action: &str, reason: &str, source: Option<IpAddr>) -> Option<Event> {
        let by = self.by;
        let wanted = |event: &Event| {
            let known = event.source.filter(|address| !address.is_unspecified());
            event.action == action
                && event.reason == reason
                && known == source
                && by.is_none_or(|by| event.by() == Some(by))
        };
        let event = self.bench.agent.wait_event_since(self.mark, wanted, DEADLINE);
        if event.is_none() {
            let source = source.map_or("nobody".to_owned(), |source| source.to_string());
            self.complain(format!(
                "no event {action} {reason} from {source}{}",
                by.map(|by| format!(" by {by}")).unwrap_or_default()
            ));
        }
        event
    }

    /// The counters that this probe is about, before and after. Each must have grown.
    fn counters(&mut self, after: &Status, reason: Option<&str>, tally: Option<&str>) -> Result<String> {
        let pair = |count: fn(&Status, &str) -> Result<u64>, name: &str| -> Result<(u64, u64)> {
            Ok((count(&self.before, name)?, count(after, name)?))
        };
        let mut shown = Vec::new();
        match (reason, &self.expect) {
            (Some(reason), Expect::Monitors { .. }) => {
                let count = |status: &Status, name: &str| Ok(monitored(status, name)?.packets);
                shown.push((format!("monitored {reason}"), pair(count, reason)?));
            }
            (Some(reason), _) => {
                let count = |status: &Status, name: &str| Ok(dropped(status, name)?.packets);
                shown.push((reason.to_owned(), pair(count, reason)?));
            }
            (None, _) if tally.is_none() => {
                shown.push(("passed".to_owned(), pair(|status, _| Ok(status.packets.passed.packets), "")?));
            }
            (None, _) => {}
        }
        if let Some(tally) = tally {
            let count = |status: &Status, name: &str| {
                let count = status.packets.tallies.get(name).with_context(|| format!("no tally {name}"))?;
                Ok(count.packets)
            };
            shown.push((tally.to_owned(), pair(count, tally)?));
        }
        for (name, (before, after)) in &shown {
            if after <= before {
                self.complaints.push(format!("{name} did not grow"));
            }
        }
        let texts: Vec<String> =
            shown.iter().map(|(name, (before, after))| format!("{name} {before} → {after}")).collect();
        Ok(texts.join(", "))
    }

    /// Nothing else may have been dropped meanwhile.
    fn no_other_reason(&mut self, after: &Status, reason: Option<&str>, also: &[&str]) -> Result<()> {
        for entry in &after.reasons {
            let name = entry.reason.as_str();
            if Some(name) == reason || also.contains(&name) {
                continue;
            }
            let grown = entry.dropped.packets - dropped(&self.before, name)?.packets;
            let noted = entry.monitored.packets - monitored(&self.before, name)?.packets;
            if grown + noted > 0 {
                self.complain(format!("{name} grew by {grown} dropped, {noted} monitored"));
            }
        }
        Ok(())
    }
}
