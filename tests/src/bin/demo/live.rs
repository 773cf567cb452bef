//! What an operator does while traffic flows: bans, edits of lists and policy, and a dead agent.

use std::{net::IpAddr, thread, time::Duration};

use tests::{
    frame::{FIN, PSH, URG},
    netns::{HOST_V4, HOST_V6},
};

use crate::{
    bench::DROP_LIST,
    probe::{Expect, Family, Probe, Step, act},
};

const CONFIG: &str = "portcullis.toml";

pub(crate) fn steps(family: &Family) -> Vec<Step> {
    let mut steps = bans(family);
    steps.extend(list_edit(family));
    steps.extend(policy_edit(family));
    steps
}

fn dropped(reason: &'static str, source: IpAddr) -> Expect {
    Expect::Drops { reason, source: Some(source) }
}

fn bans(family: &Family) -> Vec<Step> {
    let one = family.near();
    let prefix = if family.is_v4() { "100.0.16.0/20" } else { "2001:db8:cc00::/40" };
    let [first, last, behind] = [
        ("100.0.16.0", "2001:db8:cc00::"),
        ("100.0.31.255", "2001:db8:ccff:ffff:ffff:ffff:ffff:ffff"),
        ("100.0.32.0", "2001:db8:cd00::"),
    ]
    .map(|(v4, v6)| family.pick(v4, v6));
    let ban = move |text: String| {
        act(format!("the operator bans {text} for a minute"), move |bench| bench.agent.ban(&text, "60s"))
    };
    let syn = |source| family.from(source).tcp(40000, 80);
    vec![
        ban(one.to_string()),
        family.curl("ban", "curl from a banned address", dropped("ban", one), one).into(),
        act(format!("… and lifts the ban on {one}"), move |bench| bench.agent.unban(&one.to_string())),
        family.curl("ban", "curl from the same address again", Expect::Passes, one).into(),
        ban(prefix.to_owned()),
        family.drops("ban", "the first address of a banned prefix", first, "ban", syn(first)).into(),
        family.drops("ban", "its last address", last, "ban", syn(last)).into(),
        family.passes("ban", "the first address behind it", syn(behind)).into(),
        act(format!("… and lifts the ban on {prefix}"), move |bench| bench.agent.unban(prefix)),
    ]
}

/// A line more in a list file, and a line less.
fn list_edit(family: &Family) -> Vec<Step> {
    let source = family.near();
    let line = format!("{source}   # added while the demo runs\n");
    let added = line.clone();
    vec![
        family.curl("reload", "curl from a client on no list", Expect::Passes, source).into(),
        act(format!("the operator adds {source} to {DROP_LIST}"), move |bench| {
            bench.edit(DROP_LIST, |text| text + &added).map(drop)
        }),
        family
            .curl("reload", "curl from it, now on the block list", dropped("block-list", source), source)
            .by("drop-list")
            .into(),
        act(format!("… and removes {source} again"), move |bench| {
            bench.edit(DROP_LIST, |text| text.replace(&line, "")).map(drop)
        }),
        family.curl("reload", "curl from it, on no list again", Expect::Passes, source).into(),
    ]
}

/// The whole layer to monitor mode, and back.
fn policy_edit(family: &Family) -> Vec<Step> {
    let mode = |from: &'static str, to: &'static str| {
        act(format!("the operator sets `mode = \"{to}\"` for the whole layer"), move |bench| {
            let from = format!("[dmz]\nmode = \"{from}\"");
            bench.edit(CONFIG, |text| text.replacen(&from, &format!("[dmz]\nmode = \"{to}\""), 1)).map(drop)
        })
    };
    let monitored = |reason, source| Expect::Monitors { reason, source };
    let blocked = family.pick("203.0.113.9", "2001:db8:bad::9");
    let (scanner, prober) = (family.far(), family.far());
    let xmas = |source| vec![family.from(source).tcp(40000, 80).flags(FIN | PSH | URG).build()];
    let hidden = vec![family.from(prober).tcp(40000, 3306).build()];
    let scan = |source, expect| family.frames("monitor", "a Xmas scan", expect, xmas(source));
    let later = family.far();
    vec![
        mode("enforce", "monitor"),
        family
            .curl("monitor", "curl from a blocked network", monitored("block-list", blocked), blocked)
            .by("drop-list")
            .into(),
        scan(scanner, monitored("tcp-flags", scanner)).into(),
        family.frames("monitor", "SYN to port 3306", monitored("not-exposed", prober), hidden).into(),
        mode("monitor", "enforce"),
        scan(later, dropped("tcp-flags", later)).into(),
    ]
}

/// An edit with an error changes nothing; a killed agent leaves the kernel's part at work.
pub(crate) fn death() -> Vec<Step> {
    let mut steps = Vec::new();
    let (v4, v6) = (Family::v4(), Family::v6());
    steps.push(act("the operator writes nonsense into the list file", |bench| {
        let before = bench.agent.status()?;
        let good = bench.agent.read(DROP_LIST)?;
        bench.agent.write(DROP_LIST, "203.0.113.0/24\n203.0.114.1/24 # host bits\n")?;
        let after = bench.agent.wait_reload(&before)?;
        anyhow::ensure!(after.reloads.failed > before.reloads.failed, "it was accepted");
        anyhow::ensure!(after.generation == before.generation, "it changed the policy");
        println!("{}", after.reloads.last_error.unwrap_or_default());
        bench.agent.write(DROP_LIST, &good)?;
        bench.agent.wait_until("mended", |status| status.reloads.last_error.is_none())
    }));
    for family in [&v4, &v6] {
        let source = family.pick("203.0.113.77", "2001:db8:bad::77");
        steps.push(blocked(family, "a blocked network, after the refused edit", source, |_| Ok(())).into());
    }
    for family in [&v4, &v6] {
        let source = family.pick("203.0.113.78", "2001:db8:bad::78");
        steps.push(
            blocked(family, "a blocked network, while the agent is dead (kill -9)", source, |bench| {
                bench.agent.kill9()
            })
            .into(),
        );
    }
    for (family, host) in [(&v4, HOST_V4), (&v6, HOST_V6)] {
        let what = "the operator's session from the office, open all the while";
        let index = usize::from(host == HOST_V6);
        steps.push(
            family
                .client("allow list", what, Expect::Passes, move |bench| {
                    bench.sessions[index].say("still there?")?;
                    Ok("echo".into())
                })
                .by("office")
                .tally("allowed")
                .into(),
        );
    }
    steps
}

/// A frame from a blocked source, after `first`; an agent that is dead by then is started again, to tell what it finds.
fn blocked(
    family: &Family,
    what: &str,
    source: IpAddr,
    first: impl FnOnce(&mut crate::bench::Bench) -> anyhow::Result<()> + 'static,
) -> Probe {
    let frames = vec![family.from(source).tcp(40000, 80).build()];
    family
        .special("death", what, dropped("block-list", source), move |bench| {
            first(bench)?;
            let sent = bench.send(frames)?;
            if bench.agent.pid().is_none() {
                thread::sleep(Duration::from_millis(200));
                bench.agent.launch(&[])?;
            }
            Ok(sent)
        })
        .by("drop-list")
}
