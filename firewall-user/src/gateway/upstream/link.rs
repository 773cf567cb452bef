//! HTTP/1.1 towards an upstream: one request at a time, and its answer, over a connection.
//!
//! In: a head that was written for the upstream, and the client's body. Out: the head of the answer, and its body as it comes.
//! Both bodies may move at once: whoever waits for the answer sends the request on. An answer whose end is not beyond doubt
//! (RFC 9112 section 6.3), for us or for whoever reads it after us, is none.

use std::{
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, Waker, ready},
    time::Duration,
};

use bytes::{Buf as _, Bytes, BytesMut};
use firewall_inspect::{
    chunk::{Chunks, Limits, Step},
    fields::elements,
    reason::Reason,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use http_body::{Body as _, Frame};
use tokio::{
    io::{AsyncRead as _, ReadBuf},
    time::Instant,
};
use tokio_util::io::poll_read_buf;

use super::super::{
    body::RequestBody,
    exchange::Exchange,
    outbox::Outbox,
    stream::{Deadline, Transport},
};

/// Bytes and headers of an answer's head, at most.
const HEAD: usize = 256 << 10;
const HEADERS: usize = 100;
/// Bytes asked of the upstream at once: for a head, and for a long body.
const READ: usize = 4 << 10;
const READ_LONG: usize = 64 << 10;
const TRAILERS: Limits = Limits { trailers: 64 << 10, trailer_count: 128 };

/// A connection, and how far the exchange over it has come.
pub(in super::super) struct Link {
    io: Transport,
    input: BytesMut,
    outbox: Outbox,
    /// Of the exchange at hand; kept, since its timer is dear to set up.
    deadline: Deadline,
    /// What is still to be sent of the request.
    request: Option<RequestBody>,
    request_framing: RequestFraming,
    /// Nothing more is sent: that failed, or the request broke off. What the upstream said before, it said.
    unsendable: bool,
    answer: AnswerFraming,
    /// It may serve again.
    reusable: bool,
}

/// How the body of a request goes out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) enum RequestFraming {
    /// So many bytes are left.
    Length(u64),
    Chunked,
}

enum AnswerFraming {
    /// The head is still to come.
    Head,
    Length(u64),
    Chunked(Box<Chunks>),
    /// Until the connection ends.
    Close,
    End,
}

impl Link {
    pub(super) fn new(io: Transport) -> Box<Self> {
        Box::new(Self {
            io,
            input: BytesMut::new(),
            outbox: Outbox::default(),
            deadline: Deadline::none(),
            request: None,
            request_framing: RequestFraming::Length(0),
            unsendable: false,
            answer: AnswerFraming::End,
            reusable: true,
        })
    }

    /// Whether it may serve again: the answer came whole and no byte more, and the request was sent whole.
    pub(super) fn is_reusable(&self) -> bool {
        self.reusable
            && self.is_end_stream()
            && self.request.is_none()
            && self.outbox.is_empty()
            && self.input.is_empty()
    }

    /// Whether nothing has come since. The end of the connection and bytes that nobody asked for both count as something.
    pub(super) fn is_quiet(&mut self) -> bool {
        let mut byte = [0];
        let mut buffer = ReadBuf::new(&mut byte);
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(&mut self.io).poll_read(&mut cx, &mut buffer).is_pending()
    }

    /// The answer's body is over.
    pub(in super::super) fn is_end_stream(&self) -> bool {
        matches!(self.answer, AnswerFraming::End)
    }

    /// Bytes that are still to come of the answer's body, where that is known.
    pub(in super::super) fn length(&self) -> Option<u64> {
        match self.answer {
            AnswerFraming::Length(left) => Some(left),
            AnswerFraming::End => Some(0),
            _ => None,
        }
    }

    /// Memory that only a busy connection needs.
    pub(super) fn rest(&mut self) {
        self.outbox.shrink();
        if self.input.capacity() > 2 * READ {
            self.input = BytesMut::new();
        }
    }

    /// The bare connection, after a switch of protocols, and what came behind the answer's head.
    pub(in super::super) fn into_parts(self) -> (Transport, Bytes) {
        (self.io, self.input.freeze())
    }

    /// Where the head of the next request is written.
    pub(super) fn head(&mut self) -> &mut BytesMut {
        self.outbox.head()
    }

    /// Begins an exchange: the head is written, this is its body.
    pub(super) fn begin(&mut self, body: RequestBody, framing: RequestFraming) {
        self.request = Some(body);
        self.request_framing = framing;
        self.answer = AnswerFraming::Head;
        self.reusable = false;
    }

    /// The head of the answer to a request with this method; so long after the request's body last moved at most.
    pub(super) async fn answer(
        &mut self,
        method: &Method,
        exchange: &Exchange,
        patience: Duration,
    ) -> Result<Response<()>, Reason> {
        self.deadline.set(Some(Instant::now() + patience));
        let answer = std::future::poll_fn(|cx| {
            if let Poll::Ready(answer) = self.poll_answer(cx, method) {
                return Poll::Ready(answer);
            }
            loop {
                ready!(self.deadline.poll(cx));
                let still = exchange.still_for();
                if still >= patience {
                    return Poll::Ready(Err(Reason::UpstreamTimeout));
                }
                self.deadline.set(Some(Instant::now() + (patience - still)));
            }
        })
        .await;
        self.deadline.set(None);
        answer
    }

    /// Ready when the upstream has sent nothing for so long.
    pub(in super::super) fn poll_stalled(&mut self, cx: &mut Context<'_>, patience: Duration) -> Poll<()> {
        self.deadline.within(patience);
        self.deadline.poll(cx)
    }

    pub(in super::super) fn moved(&mut self) {
        self.deadline.set(None);
    }

    fn poll_answer(&mut self, cx: &mut Context<'_>, method: &Method) -> Poll<Result<Response<()>, Reason>> {
        self.poll_request(cx)?;
        loop {
            while let Some(answer) = self.parse(method)? {
                if !answer.status().is_informational() || answer.status() == StatusCode::SWITCHING_PROTOCOLS {
                    return Poll::Ready(Ok(answer));
                }
            }
            if self.input.len() > HEAD {
                return Poll::Ready(Err(Reason::UpstreamProtocol));
            }
            if !matches!(ready!(self.poll_fill(cx, READ)), Ok(1..)) {
                return Poll::Ready(Err(Reason::UpstreamProtocol));
            }
        }
    }

    /// Sends the request on, as far as it goes now.
    fn poll_request(&mut self, cx: &mut Context<'_>) -> Result<(), Reason> {
        if self.unsendable || (self.request.is_none() && self.outbox.is_empty()) {
            return Ok(());
        }
        loop {
            while let Some(body) = &mut self.request
                && self.outbox.has_room()
            {
                match Pin::new(body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        // Over HTTP/1, trailers stay here.
                        let Ok(data) = frame.into_data() else { continue };
                        match &mut self.request_framing {
                            RequestFraming::Chunked => self.outbox.push_chunk(data),
                            RequestFraming::Length(left) => {
                                *left = left.checked_sub(data.len() as u64).ok_or(Reason::FramingMismatch)?;
                                self.outbox.push(data);
                            }
                        }
                    }
                    Poll::Ready(Some(Err(broken))) => {
                        // Asked again, the body would be over. What broke off must never look whole.
                        self.unsendable = true;
                        return Err(broken.0);
                    }
                    Poll::Ready(None) => {
                        match self.request_framing {
                            RequestFraming::Chunked => self.outbox.push_last_chunk(),
                            RequestFraming::Length(0) => {}
                            RequestFraming::Length(_) => return Err(Reason::FramingMismatch),
                        }
                        self.request = None;
                    }
                    Poll::Pending => break,
                }
            }
            let more = self.request.is_some() && !self.outbox.has_room();
            match self.outbox.poll_send(cx, Pin::new(&mut self.io)) {
                Poll::Ready(Ok(())) if more => {}
                Poll::Ready(Ok(())) | Poll::Pending => return Ok(()),
                Poll::Ready(Err(error)) => {
                    tracing::debug!("sending to the upstream: {error}");
                    self.unsendable = true;
                    return Ok(());
                }
            }
        }
    }

    /// Reads more of the upstream into `input`; 0 at its end.
    fn poll_fill(&mut self, cx: &mut Context<'_>, most: usize) -> Poll<io::Result<usize>> {
        self.input.reserve(most);
        poll_read_buf(Pin::new(&mut self.io), cx, &mut self.input)
    }

    /// The next head in `input`, if it is whole.
    fn parse(&mut self, method: &Method) -> Result<Option<Response<()>>, Reason> {
        if self.input.is_empty() {
            return Ok(None);
        }
        let mut headers = [const { MaybeUninit::uninit() }; HEADERS];
        let mut parsed = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let length = match parser.parse_response_with_uninit_headers(&mut parsed, &self.input, &mut headers) {
            Ok(httparse::Status::Complete(length)) => length,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(error) => {
                tracing::debug!("the upstream's head: {error}");
                return Err(Reason::UpstreamProtocol);
            }
        };
        let mut answer = Response::new(());
        *answer.status_mut() = StatusCode::from_u16(parsed.code.unwrap_or(0)).map_err(|_| Reason::UpstreamProtocol)?;
        let http11 = parsed.version == Some(1);
        // Values share the head's memory; where they lie in it is all that outlives the parser.
        let base = self.input.as_ptr().addr();
        let mut spans = [[0; 4]; HEADERS];
        let count = parsed.headers.len();
        for (span, header) in spans.iter_mut().zip(parsed.headers.iter()) {
            let [name, value] = [header.name.as_bytes(), header.value].map(|part| {
                // An empty part may lie anywhere.
                let start = if part.is_empty() { 0 } else { part.as_ptr().addr() - base };
                [start, start + part.len()]
            });
            *span = [name[0], name[1], value[0], value[1]];
        }
        let raw = self.input.split_to(length).freeze();
        let headers = answer.headers_mut();
        headers.reserve(count + 2);
        for [name, name_end, value, value_end] in spans.into_iter().take(count) {
            let name = HeaderName::from_bytes(&raw[name..name_end]).map_err(|_| Reason::UpstreamProtocol)?;
            let value = HeaderValue::from_maybe_shared(raw.slice(value..value_end));
            let value = value.map_err(|_| Reason::UpstreamProtocol)?;
            headers.append(name, value);
        }
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            self.answer = AnswerFraming::End;
        } else if !answer.status().is_informational() {
            self.answer = framing(method, &answer, http11).ok_or(Reason::UpstreamProtocol)?;
            self.reusable = !matches!(self.answer, AnswerFraming::Close) && keeps_alive(answer.headers(), http11);
        }
        Ok(Some(answer))
    }

    /// The next piece of the answer's body. The request is sent on meanwhile.
    pub(in super::super) fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Reason>>> {
        if let Err(reason) = self.poll_request(cx) {
            return Poll::Ready(Some(Err(reason)));
        }
        loop {
            match &mut self.answer {
                AnswerFraming::Head | AnswerFraming::End => return Poll::Ready(None),
                AnswerFraming::Length(0) => self.answer = AnswerFraming::End,
                AnswerFraming::Length(left) if !self.input.is_empty() => {
                    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(self.input.len());
                    *left -= count as u64;
                    if *left == 0 {
                        self.answer = AnswerFraming::End;
                    }
                    return Poll::Ready(Some(Ok(Frame::data(self.input.split_to(count).freeze()))));
                }
                AnswerFraming::Close if !self.input.is_empty() => {
                    return Poll::Ready(Some(Ok(Frame::data(self.input.split().freeze()))));
                }
                AnswerFraming::Chunked(chunks) => match chunks.advance(&self.input, 0) {
                    Ok(Step::Data(range)) => {
                        let mut data = self.input.split_to(range.end);
                        data.advance(range.start);
                        return Poll::Ready(Some(Ok(Frame::data(data.freeze()))));
                    }
                    Ok(Step::End(end)) => {
                        self.input.advance(end);
                        let trailers = trailers(chunks);
                        self.answer = AnswerFraming::End;
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                    Ok(Step::More) => self.input.clear(),
                    Err(_) => return Poll::Ready(Some(Err(Reason::UpstreamProtocol))),
                },
                AnswerFraming::Length(_) | AnswerFraming::Close => {}
            }
            if !matches!(self.answer, AnswerFraming::End) && self.input.is_empty() {
                let most = match self.answer {
                    AnswerFraming::Length(left) => usize::try_from(left).unwrap_or(READ_LONG).clamp(READ, READ_LONG),
                    _ => READ_LONG / 4,
                };
                match (ready!(self.poll_fill(cx, most)), &self.answer) {
                    (Ok(1..), _) => {}
                    (Ok(_), AnswerFraming::Close) => self.answer = AnswerFraming::End,
                    (Ok(_) | Err(_), _) => return Poll::Ready(Some(Err(Reason::UpstreamProtocol))),
                }
            }
        }
    }
}

/// What delimits the body of an answer (RFC 9112 section 6.3). `None`: nothing that is beyond doubt.
fn framing(method: &Method, answer: &Response<()>, http11: bool) -> Option<AnswerFraming> {
    let headers = answer.headers();
    let mut lengths = headers.get_all(header::CONTENT_LENGTH).iter();
    let mut codings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let told = match (lengths.next(), codings.next()) {
        (None, None) => AnswerFraming::Close,
        (Some(length), None) => {
            let digits = length.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))?;
            AnswerFraming::Length(digits.parse().ok()?)
        }
        (None, Some(coding)) if http11 && coding.as_bytes().eq_ignore_ascii_case(b"chunked") => {
            AnswerFraming::Chunked(Box::new(Chunks::new(TRAILERS)))
        }
        _ => return None,
    };
    if lengths.next().is_some() || codings.next().is_some() {
        return None;
    }
    let bodiless = method == Method::HEAD
        || matches!(answer.status(), StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
        || matches!(told, AnswerFraming::Length(0));
    Some(if bodiless { AnswerFraming::End } else { told })
}

fn keeps_alive(headers: &HeaderMap, http11: bool) -> bool {
    let says = |option: &str| {
        let values = headers.get_all(header::CONNECTION).iter().map(HeaderValue::as_bytes);
        values.flat_map(elements).any(|element| element.eq_ignore_ascii_case(option.as_bytes()))
    };
    !says("close") && (http11 || says("keep-alive"))
}

fn trailers(chunks: &Chunks) -> Option<HeaderMap> {
    let mut map = HeaderMap::new();
    for (name, value) in chunks.trailers().iter() {
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
            map.append(name, value);
        }
    }
    (!map.is_empty()).then_some(map)
}
