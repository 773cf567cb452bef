//! What is known of a transaction beside its messages.

use std::{
    net::SocketAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{state::State, store::Store};
use crate::seclang::Variable;

/// Whom a request is from and to, and when it came. Times are UTC.
#[derive(Clone, Debug)]
pub struct About {
    pub client: SocketAddr,
    pub server: SocketAddr,
    pub time: SystemTime,
    /// 16 hexadecimal digits: UNIQUE_ID.
    pub id: u64,
}

impl About {
    /// The value of what is put together when it is asked for; `None` if it has none.
    pub(super) fn value(&self, variable: Variable, store: &Store, state: &State) -> Option<Vec<u8>> {
        let text = match variable {
            Variable::ArgsCombinedSize => {
                let sources = [Variable::ArgsGet, Variable::ArgsPost].map(crate::rules::rule::Source::of);
                let entries = sources.into_iter().flat_map(|source| store.range(source));
                entries.map(|entry| store.name(entry).len() + store.value(entry).len()).sum::<usize>().to_string()
            }
            // Rules are run without a clock.
            Variable::Duration => "0.000000".to_owned(),
            Variable::HighestSeverity => state.highest_severity.map_or(255, |severity| severity as u16).to_string(),
            Variable::ReqbodyProcessor => state.processor.map_or("", |processor| processor.name()).to_owned(),
            Variable::UniqueId => format!("{:016x}", self.id),
            Variable::RemoteAddr | Variable::RemoteHost => self.client.ip().to_string(),
            Variable::RemotePort => self.client.port().to_string(),
            Variable::ServerAddr => self.server.ip().to_string(),
            Variable::ServerPort => self.server.port().to_string(),
            Variable::FullRequestLength => self.full_request(store).len().to_string(),
            Variable::FullRequest => return Some(self.full_request(store)),
            other => return self.clock(other),
        };
        Some(text.into_bytes())
    }

    fn clock(&self, variable: Variable) -> Option<Vec<u8>> {
        let seconds = self.time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let (days, of_day) = (seconds / 86_400, seconds % 86_400);
        let (year, month, day) = civil(days);
        let text = match variable {
            Variable::TimeEpoch => seconds.to_string(),
            Variable::Time => format!("{:02}:{:02}:{:02}", of_day / 3600, of_day / 60 % 60, of_day % 60),
            Variable::TimeHour => (of_day / 3600).to_string(),
            Variable::TimeMin => (of_day / 60 % 60).to_string(),
            Variable::TimeSec => (of_day % 60).to_string(),
            Variable::TimeDay => day.to_string(),
            // As C counts them: from 0.
            Variable::TimeMon => (month - 1).to_string(),
            Variable::TimeYear => year.to_string(),
            // The epoch was a Thursday.
            Variable::TimeWday => ((days + 4) % 7).to_string(),
            _ => return None,
        };
        Some(text.into_bytes())
    }

    /// Request line, headers and body.
    fn full_request(&self, store: &Store) -> Vec<u8> {
        let one = |variable| store.first(variable, None).unwrap_or_default();
        let mut full = [one(Variable::RequestLine), b"\r\n"].concat();
        for entry in store.range(crate::rules::rule::Source::of(Variable::RequestHeaders)) {
            full.extend([store.name(entry), b": ", store.value(entry), b"\r\n"].concat());
        }
        full.extend_from_slice(b"\r\n");
        full.extend_from_slice(one(Variable::RequestBody));
        full
    }
}

/// Year, month from 1 and day from 1 of a number of days after 1970-01-01, of the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years begin in March here, so that the odd day is the last.
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year + era * 400 + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_have_dates() {
        for (days, date) in [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (20_783, (2026, 11, 26))] {
            assert_eq!(civil(days), date);
        }
    }
}
