//! xdp-filter (xdp-tools), on the same packets: attached to a link in a namespace, where the kernel tells which program it
//! is.

use std::{net::Ipv4Addr, os::fd::OwnedFd, process::Command};

use anyhow::{Context as _, Result, bail, ensure};
use tests::{
    frame::{ACK, Frame},
    loaded::{program_by_id, test_run},
    netns::World,
};

use super::dmz::Contender;

/// Addresses it is given.
const ADDRESSES: u8 = 250;

pub(crate) struct XdpFilter {
    program: OwnedFd,
    _world: World,
}

impl XdpFilter {
    /// Attaches it, with as many addresses blocked.
    pub(crate) fn start() -> Result<Self> {
        ensure!(
            Command::new("xdp-filter").arg("--version").output().is_ok(),
            "it is not installed (Debian: xdp-tools)"
        );
        let world = World::new()?;
        let host = &world.host;
        host.run("xdp-filter", &["load", "eth0", "--mode", "native", "--features", "ipv4"])?;
        for last in 1..=ADDRESSES {
            host.run("xdp-filter", &["ip", &Ipv4Addr::new(203, 0, 113, last).to_string(), "--mode", "src"])?;
        }
        let link = host.run("ip", &["-json", "link", "show", "eth0"])?;
        let link: serde_json::Value = serde_json::from_str(&link)?;
        let id = link[0]["xdp"]["prog"]["id"].as_u64().context("no program on the link")?;
        Ok(Self { program: program_by_id(u32::try_from(id)?)?, _world: world })
    }

    /// Its drop and its pass.
    pub(crate) fn cases(&self) -> Result<Vec<Contender>> {
        let drop = Frame::v4("203.0.113.7", "192.0.2.1").tcp(4000, 443).flags(ACK).build();
        let pass = Frame::v4("198.51.100.7", "192.0.2.1").tcp(4000, 443).flags(ACK).build();
        for (frame, action) in [(&drop, 1), (&pass, 2)] {
            let run = test_run(std::os::fd::AsFd::as_fd(&self.program), frame, 1)?;
            if run.action != action {
                bail!("xdp-filter gives action {}, expected {action}", run.action);
            }
        }
        let case = |name, frame| -> Result<Contender> {
            Ok(Contender::peer(name, u32::from(ADDRESSES), self.program.try_clone()?, frame))
        };
        Ok(vec![case("xdp_filter_drop", drop)?, case("xdp_filter_pass", pass)?])
    }
}
