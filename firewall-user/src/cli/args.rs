//! What there is to type, with help and examples.

use std::{net::IpAddr, path::PathBuf, time::Duration};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
use ipnet::IpNet;

use crate::{
    config::{Overrides, units},
    paths::InstanceName,
};

/// A firewall for APIs that drops in the kernel what should not reach them.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "portcullis",
    version,
    propagate_version = false,
    after_help = "\
Examples:
  portcullis check                         see whether the configuration is right, and what it needs
  portcullis run --confirm 60s             filter; undo it after a minute unless confirmed
  portcullis confirm                       keep it
  portcullis status                        what is filtered, and what is not

Exit codes:
  0  done
  1  failed
  2  the command line or the configuration is wrong
  3  no agent is running"
)]
pub struct Cli {
    /// Which of several agents on this host: its maps are in /sys/fs/bpf/NAME, its socket in /run/NAME
    #[arg(long, global = true, value_name = "NAME", env = "PORTCULLIS_INSTANCE", default_value = "portcullis")]
    pub instance: InstanceName,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Load the policy into the kernel and keep it up to date, in the foreground
    Run(RunArgs),
    /// Check the configuration and say what it needs, without changing anything
    Check(CheckArgs),
    /// Read the configuration again; if anything is wrong with it, the policy in force stays
    #[command(after_help = "\
Examples:
  portcullis reload
  portcullis reload --json")]
    Reload(Output),
    /// Say what is filtered, what is not, and what was dropped
    #[command(after_help = "\
Examples:
  portcullis status
  portcullis status --json | jq .packets.dropped")]
    Status(Output),
    /// Drop everything from an address or prefix for a while
    #[command(after_help = "\
Examples:
  portcullis ban 203.0.113.7
  portcullis ban 2001:db8:1::/48 --for 1d

A ban ends by itself. What should be blocked for good belongs into a list of the configuration.")]
    Ban {
        /// An address, or a prefix such as 203.0.113.0/24
        #[arg(value_parser = prefix)]
        prefix: IpNet,
        /// How long, such as 30s, 5m, 1h or 1d
        #[arg(long = "for", value_name = "DURATION", default_value = "1h", value_parser = duration)]
        duration: Duration,
        #[command(flatten)]
        output: Output,
    },
    /// Lift a ban
    #[command(after_help = "\
Examples:
  portcullis unban 203.0.113.7
  portcullis unban 2001:db8:1::/48

The prefix is that of the ban: see `portcullis bans`.")]
    Unban {
        /// The address or prefix as it was banned
        #[arg(value_parser = prefix)]
        prefix: IpNet,
        #[command(flatten)]
        output: Output,
    },
    /// Show the bans in force
    #[command(after_help = "\
Examples:
  portcullis bans
  portcullis bans --json | jq -r '.[].prefix'")]
    Bans(Output),
    /// Show the lists, or which of them hold an address
    #[command(after_help = "\
Examples:
  portcullis lists
  portcullis lists --lookup 203.0.113.7")]
    Lists {
        /// Show the prefix of each list that holds this address
        #[arg(long, value_name = "ADDRESS")]
        lookup: Option<IpAddr>,
        #[command(flatten)]
        output: Output,
    },
    /// Show the content rules that are loaded, or check rule files
    Rules(RulesArgs),
    /// Keep the policy of an agent that was started with --confirm
    #[command(after_help = "\
Examples:
  portcullis run --confirm 60s      in one terminal
  portcullis confirm                in another one that was opened since: it proves that you can still get in")]
    Confirm,
    /// Stop filtering: take the programs off the interfaces and remove everything from the kernel
    Detach(DetachArgs),
    /// Show the version
    #[command(after_help = "\
Examples:
  portcullis version
  portcullis version --json")]
    Version(Output),
    /// Print the completions of a shell
    #[command(after_help = "\
Examples:
  portcullis completions bash > /usr/share/bash-completion/completions/portcullis
  portcullis completions zsh > \"${fpath[1]}/_portcullis\"")]
    Completions { shell: Shell },
}

#[derive(Clone, Copy, Debug, Args)]
pub struct Output {
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Which configuration, and what of it to override.
#[derive(Clone, Debug, Args)]
pub struct Source {
    /// The configuration [default: /etc/portcullis/portcullis.toml, or built-in defaults where that file does not exist
    /// and --interface says where to filter]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// A network interface to guard, instead of those of the configuration; may be repeated
    #[arg(long = "interface", value_name = "IF", value_parser = interface)]
    pub interfaces: Vec<String>,
}

const CONFIG: &str = "/etc/portcullis/portcullis.toml";

impl Source {
    /// Path of the configuration.
    pub fn config(&self) -> PathBuf {
        self.config.clone().unwrap_or_else(|| CONFIG.into())
    }

    pub fn overrides(&self) -> Overrides {
        let file_is_optional = self.config.is_none() && !self.interfaces.is_empty();
        Overrides { interfaces: self.interfaces.clone(), file_is_optional }
    }
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis run
  portcullis run --config ./portcullis.toml --interface eth0
  portcullis run --confirm 60s
  portcullis run --replace          in the place of the one that runs, such as one of another version

What happens to the policy when the agent ends is up to `on_agent_exit` in the configuration.
See `portcullis detach` to stop filtering.")]
pub struct RunArgs {
    #[command(flatten)]
    pub source: Source,
    /// Take the policy back after this long unless `portcullis confirm` comes first
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub confirm: Option<Duration>,
    /// Take over from the agent that runs, if one does, without a gap: it goes on if this one cannot start; else it answers
    /// what it has accepted, within `drain` of `[gateway]`, and ends
    #[arg(long, conflicts_with = "confirm")]
    pub replace: bool,
    /// Log what the program in the kernel does with each packet; slow
    #[arg(long)]
    pub trace: bool,
}

#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis check
  portcullis check --config ./portcullis.toml --json

Exits with 2 if the configuration is wrong; every mistake is shown at once.")]
pub struct CheckArgs {
    #[command(flatten)]
    pub source: Source,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  portcullis rules
  portcullis rules --search 942100
  portcullis rules --api orders --search attack-sqli --json
  portcullis rules check crs-setup.conf 'rules/*.conf'"
)]
pub struct RulesArgs {
    #[command(subcommand)]
    pub command: Option<RulesCommand>,
    /// Only those of this API
    #[arg(long, value_name = "NAME")]
    pub api: Option<String>,
    /// Only those whose id, message, tags or file have this text in them, in any case
    #[arg(long, value_name = "TEXT")]
    pub search: Option<String>,
    #[command(flatten)]
    pub output: Output,
}

#[derive(Clone, Debug, Subcommand)]
pub enum RulesCommand {
    /// Read rule files as one rule set, and say what is wrong with them
    #[command(after_help = "\
Examples:
  portcullis rules check /etc/crs/crs-setup.conf '/etc/crs/rules/*.conf'

Needs no agent. Exits with 2 if anything is wrong.")]
    Check {
        /// A rule file, or a pattern in quotes; in the order in which they are to be read
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Clone, Copy, Debug, Args)]
#[command(after_help = "\
Examples:
  portcullis detach
  portcullis --instance edge-2 detach --json")]
pub struct DetachArgs {
    #[command(flatten)]
    pub output: Output,
}

/// A prefix without host bits; an address is one of full length.
fn prefix(text: &str) -> Result<IpNet, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let prefix: IpNet =
        text.parse().map_err(|_| "neither an address nor a prefix such as 203.0.113.0/24".to_owned())?;
    if prefix != prefix.trunc() {
        let length = prefix.max_prefix_len();
        let (network, address) = (prefix.trunc(), prefix.addr());
        return Err(format!(
            "it has host bits set; write {network} for the network or {address}/{length} for the host"
        ));
    }
    Ok(prefix)
}

/// A duration of at least one second, in the words of the configuration.
fn duration(text: &str) -> Result<Duration, String> {
    let duration = units::parse_duration(text).map_err(|invalid| invalid.to_string())?;
    if duration < Duration::from_secs(1) {
        return Err("at least one second".to_owned());
    }
    Ok(duration)
}

/// The name of a network interface, by the kernel's rules (`dev_valid_name`).
fn interface(text: &str) -> Result<String, &'static str> {
    let valid = (1..=15).contains(&text.len())
        && text != "."
        && text != ".."
        && !text.chars().any(|character| character == '/' || character == ':' || character.is_whitespace());
    if valid { Ok(text.to_owned()) } else { Err("not the name of an interface") }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    fn error(line: &str) -> String {
        let error = parse(line).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{line}");
        error.to_string()
    }

    #[test]
    fn is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_has_examples() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }

    #[test]
    fn run_has_its_defaults() {
        let Command::Run(args) = parse("portcullis run").unwrap().command else { panic!("not run") };
        assert_eq!(args.source.config(), PathBuf::from("/etc/portcullis/portcullis.toml"));
        assert!(!args.source.overrides().file_is_optional);
        assert!(args.source.interfaces.is_empty() && args.confirm.is_none() && !args.trace && !args.replace);
    }

    #[test]
    fn run_takes_interfaces_and_a_time_to_confirm() {
        let line = "portcullis run --config a.toml --interface eth0 --interface eth1 --confirm 1m --trace";
        let Command::Run(args) = parse(line).unwrap().command else { panic!("not run") };
        assert_eq!(args.source.interfaces, ["eth0", "eth1"]);
        assert_eq!(args.confirm, Some(Duration::from_secs(60)));
        assert!(args.trace);
        let Command::Run(args) = parse("portcullis run --replace").unwrap().command else { panic!("not run") };
        assert!(args.replace);
        for line in [
            "run --replace --confirm 1m",
            "run --interface a/b",
            "run --interface 0123456789abcdef",
            "run --confirm 0s",
            "run --confirm 60",
        ] {
            error(&format!("portcullis {line}"));
        }
    }

    #[test]
    fn the_instance_may_stand_anywhere() {
        for line in ["portcullis --instance edge-2 status", "portcullis status --instance edge-2"] {
            assert_eq!(parse(line).unwrap().instance.to_string(), "edge-2");
        }
        assert!(error("portcullis --instance ../etc status").contains("1 to 32"));
    }

    #[test]
    fn ban_takes_addresses_and_prefixes() {
        for (text, expected, seconds) in [
            ("203.0.113.7", "203.0.113.7/32", 3600),
            ("2001:db8::1 --for 1d", "2001:db8::1/128", 86400),
            ("203.0.113.0/24 --for 90s", "203.0.113.0/24", 90),
        ] {
            let Command::Ban { prefix, duration, .. } = parse(&format!("portcullis ban {text}")).unwrap().command
            else {
                panic!("not ban")
            };
            assert_eq!((prefix.to_string().as_str(), duration.as_secs()), (expected, seconds));
        }
        assert!(error("portcullis ban 203.0.113.7/24").contains("203.0.113.0/24"));
        assert!(error("portcullis ban 203.0.113.7/24").contains("203.0.113.7/32"));
        assert!(error("portcullis ban example.org").contains("neither an address nor a prefix"));
        assert!(error("portcullis ban 203.0.113.7 --for soon").contains("1h"));
    }

    #[test]
    fn help_is_no_failure() {
        assert_eq!(parse("portcullis --help").unwrap_err().kind(), ErrorKind::DisplayHelp);
        assert_eq!(parse("portcullis --version").unwrap_err().kind(), ErrorKind::DisplayVersion);
        error("portcullis frobnicate");
    }
}
