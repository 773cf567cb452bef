//! Content rules on a request's way: the bodies that they are to see are held meanwhile, and let go when they have judged.
//!
//! Fails closed: what should be looked at and cannot be is refused, with a reason of its own. Only an answer that comes too
//! slowly is looked at as far as it came, and one in a coding that we did not ask for and cannot read, not at all. Never held are
//! streams: gRPC, and `text/event-stream`.
//!
//! A request's body that was encoded goes on decoded: an application that does not look at Content-Encoding would otherwise
//! read other bytes than the rules did, and whoever sends it can choose both.

use std::time::Duration;

use bytes::Bytes;
use firewall_inspect::{
    encoding::{self, Coding, Problem},
    head::Head,
    reason::Reason,
    rules::BodySettings,
    seclang::LimitAction,
    transaction::{Answer, BodyProblem, Interruption},
};
use http::{HeaderValue, Response, Version, header};

use super::{
    body::{RequestBody, ResponseBody},
    exchange::Exchange,
};
use crate::events::request::Verdict;

/// Times its size that a body may decode to.
const RATIO: u32 = 100;
/// How long an answer's body is waited for: rules see what has come by then.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Why there is no answer but ours, and what that says.
pub(super) struct Refusal {
    pub(super) reason: Reason,
    /// 0: the connection ends without one.
    pub(super) status: u16,
    pub(super) location: Option<HeaderValue>,
}

impl From<Reason> for Refusal {
    fn from(reason: Reason) -> Self {
        Self { reason, status: reason.status(), location: None }
    }
}

impl Refusal {
    fn of_rule(reason: Reason, interruption: &Interruption) -> Self {
        let location = interruption.redirect.as_ref().and_then(|url| HeaderValue::from_bytes(url).ok());
        let known = |status: &u16| (200..600).contains(status) || *status == 0;
        let status = Some(interruption.status).filter(known).unwrap_or(reason.status());
        Self { reason, status, location }
    }
}

/// Phases 1 and 2 of a request that is refused in any case, without its body: for the record.
pub(super) fn explain(exchange: &Exchange, head: &Head) {
    exchange.inspect(|transaction, worker| {
        transaction.request_head(worker, head);
        transaction.request_body(worker, b"");
    });
}

/// Phases 1 and 2. The body is held where rules look into it; `endless`: it is a stream, and none does. Whether the body was
/// encoded, and is no longer.
///
/// # Errors
///
/// The request is to be refused.
pub(super) async fn request(
    exchange: &Exchange,
    head: &Head,
    body: &mut RequestBody,
    endless: bool,
) -> Result<bool, Refusal> {
    let Some((judgement, settings)) = exchange.inspect(|transaction, worker| {
        transaction.request_head(worker, head);
        (transaction.interruption().cloned(), transaction.request_body_settings())
    }) else {
        return Ok(false);
    };
    judge(exchange, Reason::ContentRule, judgement)?;
    let (mut seen, mut decoded) = (Bytes::new(), false);
    if let Some(settings) = settings.filter(|_| !endless && !body.is_over()) {
        let coding = Coding::of(head.values("content-encoding"));
        let limit = usize::try_from(settings.limit).unwrap_or(usize::MAX);
        let held = body.hold(limit).await?;
        if held.len() > limit && (settings.over_limit == LimitAction::Reject || coding != Ok(None)) {
            note(exchange, Reason::BodyTooLarge)?;
        }
        seen = held.slice(..held.len().min(limit));
        match decode(coding, &seen, settings) {
            Ok(None) => {}
            Ok(Some(plain)) => {
                seen = body.replace(plain)?;
                decoded = true;
            }
            Err(problem) if problem.is_limit() => note(exchange, Reason::BodyTooLarge)?,
            Err(_) => note(exchange, Reason::ContentEncoding)?,
        }
    }
    let run = exchange.inspect(|transaction, worker| {
        let problem = transaction.request_body(worker, &seen);
        (transaction.interruption().cloned(), problem, transaction.is_over_budget())
    });
    let Some((judgement, problem, over_budget)) = run else { return Ok(decoded) };
    judge(exchange, Reason::ContentRule, judgement)?;
    if over_budget {
        note(exchange, Reason::InspectionBudget)?;
    }
    match problem {
        Some(BodyProblem { limit: true, .. }) => note(exchange, Reason::BodyStructure)?,
        Some(_) => note(exchange, Reason::BodyMalformed)?,
        None => {}
    }
    Ok(decoded)
}

/// Phases 3 and 4.
///
/// # Errors
///
/// The client is not to get this answer.
pub(super) async fn answer(
    exchange: &Exchange,
    answer: &Response<()>,
    body: &mut ResponseBody,
    endless: bool,
) -> Result<(), Refusal> {
    let headers = answer.headers();
    let media = headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let Some((judgement, limit)) = exchange.inspect(|transaction, worker| {
        let fields: Vec<(&[u8], &[u8])> =
            headers.iter().map(|(name, value)| (name.as_str().as_bytes(), value.as_bytes())).collect();
        let protocol = if answer.version() == Version::HTTP_2 { "HTTP/2" } else { "HTTP/1.1" };
        let told = Answer { status: answer.status().as_u16(), protocol, fields: &fields };
        transaction.response_head(worker, &told);
        let limit = transaction.wants_response_body(media).then(|| transaction.response_body_settings());
        (transaction.interruption().cloned(), limit)
    }) else {
        return Ok(());
    };
    judge(exchange, Reason::AnswerRule, judgement)?;
    let mut seen = Bytes::new();
    if let Some(settings) = limit.filter(|_| !endless) {
        let limit = usize::try_from(settings.limit).unwrap_or(usize::MAX);
        let held = body.hold(limit, ANSWER_WITHIN).await?;
        if held.len() > limit && settings.over_limit == LimitAction::Reject {
            note(exchange, Reason::AnswerRule)?;
        }
        seen = held.slice(..held.len().min(limit));
        let coding = Coding::of(headers.get_all(header::CONTENT_ENCODING).iter().map(HeaderValue::as_bytes));
        match decode(coding, &seen, settings) {
            Ok(None) => {}
            Ok(Some(plain)) => seen = plain,
            Err(_) => seen = Bytes::new(),
        }
    }
    let run = exchange.inspect(|transaction, worker| {
        transaction.response_body(worker, &seen);
        (transaction.interruption().cloned(), transaction.is_over_budget())
    });
    let Some((judgement, over_budget)) = run else { return Ok(()) };
    judge(exchange, Reason::AnswerRule, judgement)?;
    if over_budget { note(exchange, Reason::AnswerRule) } else { Ok(()) }
}

/// What a body stands for; `None`: it is as it is.
fn decode(
    coding: Result<Option<Coding>, Problem>,
    body: &Bytes,
    settings: BodySettings,
) -> Result<Option<Bytes>, Problem> {
    let limits = encoding::Limits { size: settings.limit, ratio: RATIO };
    coding?.map(|coding| encoding::decode(coding, body, limits).map(Bytes::from)).transpose()
}

/// Follows a rule that ended the transaction; in monitor mode, takes note of it.
fn judge(exchange: &Exchange, reason: Reason, interruption: Option<Interruption>) -> Result<(), Refusal> {
    match interruption {
        None => Ok(()),
        Some(_) if exchange.policy().monitors() => {
            exchange.fail(Verdict::Monitor, reason);
            Ok(())
        }
        Some(interruption) => Err(Refusal::of_rule(reason, &interruption)),
    }
}

/// Refuses, but where nothing is enforced.
fn note(exchange: &Exchange, reason: Reason) -> Result<(), Refusal> {
    let enforces = exchange.inspect(|transaction, _| transaction.enforces()).unwrap_or(true);
    if enforces && !exchange.policy().monitors() {
        return Err(reason.into());
    }
    exchange.fail(Verdict::Monitor, reason);
    Ok(())
}
