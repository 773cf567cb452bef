//! The command line: what can be asked of Portcullis, and how the answers look.
//!
//! `args` says what there is to type, `print` how answers read, and this module carries one out: `run`, `check` and
//! `detach` go to [`crate::agent`], everything else to the running agent over its control socket.

mod args;
mod print;
mod table;

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use serde::Serialize;

pub use self::args::{CheckArgs, Cli, Command, DetachArgs, RulesArgs, RulesCommand, RunArgs};
use crate::{
    agent,
    config::api::RuleSet,
    control::{
        api::BanRequest,
        client::{Client, ClientError},
    },
    dmz::link::pinned_interfaces,
    paths::Paths,
};

/// Exit code of a command that failed.
pub const FAILURE: u8 = 1;
/// Exit code where the command line or the configuration is wrong.
pub const BAD_INPUT: u8 = 2;
/// Exit code where no agent is running.
pub const NO_AGENT: u8 = 3;

/// Reads the command line and carries it out.
pub fn main() -> ExitCode {
    // Answers a wrong command line itself, with exit code 2.
    let cli = Cli::parse();
    match execute(cli) {
        Ok(code) => code,
        Err(error) if is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            // Nobody is left to tell if this fails, too.
            let _ = writeln!(io::stderr(), "portcullis: {error:#}");
            exit_code(&error)
        }
    }
}

fn execute(cli: Cli) -> anyhow::Result<ExitCode> {
    let paths = Paths::new(cli.instance);
    let client = Client::new(paths.socket());
    match cli.command {
        Command::Run(args) => return agent::run(&paths, args),
        Command::Check(args) => return agent::check(&paths, args),
        Command::Detach(args) => return agent::detach(&paths, args),
        Command::Reload(output) => show(output.json, &client.reload()?, print::reloaded)?,
        Command::Status(output) => {
            let status = client.status().map_err(|error| without_agent(error, &paths))?;
            show(output.json, &status, print::status)?;
        }
        Command::Ban { prefix, duration, output } => {
            let request = BanRequest { prefix, seconds: crate::control::api::ceil_seconds(duration) };
            show(output.json, &client.ban(&request)?, print::banned)?;
        }
        Command::Unban { prefix, output } => show(output.json, &client.unban(prefix)?, print::unbanned)?,
        Command::Bans(output) => show(output.json, client.bans()?.as_slice(), print::bans)?,
        Command::Lists { lookup, output } => {
            show(output.json, client.lists(lookup)?.as_slice(), |out, lists| print::lists(out, lists, lookup))?;
        }
        Command::Rules(args) => return rules(&client, args),
        Command::Confirm => {
            client.confirm()?;
            writeln!(io::stdout(), "confirmed: the policy stays in force")?;
        }
        Command::Version(output) => show(output.json, &print::Version::current(), print::version)?,
        Command::Completions { shell } => {
            // Not straight to standard output: the generator panics where it cannot write.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "portcullis", &mut script);
            io::stdout().write_all(&script)?;
        }
    }
    io::stdout().flush()?;
    Ok(ExitCode::SUCCESS)
}

fn rules(client: &Client, args: RulesArgs) -> anyhow::Result<ExitCode> {
    if let Some(RulesCommand::Check { files, output }) = args.command {
        let checked = RuleSet::load(&files);
        let errors = checked.as_ref().err();
        if let Some(errors) = errors.filter(|_| !output.json) {
            write!(io::stderr(), "{errors}")?;
            return Ok(BAD_INPUT.into());
        }
        let result = print::Checked {
            rules: checked.as_ref().map_or(0, |set| set.rules().len()),
            errors: errors.map(|errors| errors.problems().to_vec()).unwrap_or_default(),
        };
        show(output.json, &result, print::checked)?;
        return Ok(if errors.is_some() { BAD_INPUT.into() } else { ExitCode::SUCCESS });
    }
    let mut rules = client.rules()?;
    if let Some(api) = &args.api {
        rules.retain(|rule| rule.api == *api);
    }
    if let Some(text) = &args.search {
        rules.retain(|rule| print::has_text(rule, text));
    }
    show(args.output.json, rules.as_slice(), print::content_rules)?;
    Ok(ExitCode::SUCCESS)
}

/// Says of an agent that is dead what its links still do.
fn without_agent(error: ClientError, paths: &Paths) -> anyhow::Error {
    let left = pinned_interfaces(&paths.pins());
    let error_is_all = left.is_empty() || !matches!(error, ClientError::NoAgent { .. });
    let error = anyhow::Error::from(error);
    if error_is_all {
        return error;
    }
    error.context(format!("the last policy goes on without its agent on {}", left.join(", ")))
}

/// Prints `value` as JSON or, with `print`, for a person.
pub(crate) fn show<T: Serialize + ?Sized>(
    json: bool,
    value: &T,
    print: impl FnOnce(&mut dyn Write, &T) -> io::Result<()>,
) -> anyhow::Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
    if json {
        serde_json::to_writer_pretty(&mut out, value).map_err(io::Error::from)?;
        writeln!(out)?;
    } else {
        print(&mut out, value)?;
    }
    out.flush()?;
    Ok(())
}

/// Whether whoever read the output has gone, as in `portcullis status | head`.
fn is_closed_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

fn exit_code(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(match error.downcast_ref::<ClientError>() {
        Some(ClientError::NoAgent { .. }) => NO_AGENT,
        Some(ClientError::BadRequest(_)) => BAD_INPUT,
        Some(ClientError::Denied { .. } | ClientError::Refused(_) | ClientError::Broken { .. }) | None => FAILURE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::api::Refusal;

    #[test]
    fn exit_codes_tell_what_is_wrong() {
        let refusal = || Refusal { message: "no".to_owned() };
        for (error, code) in [
            (ClientError::NoAgent { path: "/run/x".into() }, NO_AGENT),
            (ClientError::Denied { path: "/run/x".into(), message: None }, FAILURE),
            (ClientError::BadRequest(refusal()), BAD_INPUT),
            (ClientError::Refused(refusal()), FAILURE),
            (ClientError::Broken { path: "/run/x".into(), error: "x".to_owned() }, FAILURE),
        ] {
            // `ExitCode` has no equality.
            let shown = format!("{:?}", exit_code(&error.into()));
            assert_eq!(shown, format!("{:?}", ExitCode::from(code)));
        }
    }

    #[test]
    fn a_closed_pipe_is_recognised() {
        assert!(is_closed_pipe(&io::Error::from(io::ErrorKind::BrokenPipe).into()));
        assert!(!is_closed_pipe(&io::Error::from(io::ErrorKind::StorageFull).into()));
    }
}
