//! Reading calls and framing their answers.

use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use hyper::{Request, Response};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::envelopes::Envelopes;
use super::error::{Code, RpcError};
use crate::body::{self, Body};

/// The largest request of a call.
pub const MESSAGE_BYTES_MAX: usize = 16 << 20;
pub const ENVELOPE_BYTES: usize = 5;
pub const END_OF_STREAM: u8 = 0x02;
const STREAM_TYPE: &str = "application/connect+json";

fn content_type(headers: &HeaderMap) -> &str {
    let value = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}

pub fn is_stream(headers: &HeaderMap) -> bool {
    content_type(headers) == STREAM_TYPE
}

pub fn is_call(headers: &HeaderMap) -> bool {
    is_stream(headers) || content_type(headers) == "application/json"
}

/// `Connect-Timeout-Ms`; absent and 0 are no limit.
pub fn timeout(headers: &HeaderMap) -> Result<Option<Duration>, RpcError> {
    let Some(value) = headers.get("connect-timeout-ms") else { return Ok(None) };
    let ms = value.to_str().ok().filter(|text| text.len() <= 10).and_then(|text| text.parse().ok());
    let ms: u64 = ms.ok_or_else(|| Code::InvalidArgument.error("connect-timeout-ms is not a number"))?;
    Ok((ms > 0).then_some(Duration::from_millis(ms)))
}

pub fn too_large() -> RpcError {
    Code::ResourceExhausted.error(format!("a message has at most {MESSAGE_BYTES_MAX} bytes"))
}

async fn collect(request: &mut Request<Incoming>) -> Result<Bytes, RpcError> {
    let body = Limited::new(request.body_mut(), MESSAGE_BYTES_MAX).collect().await;
    match body {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Err(_) => Err(Code::InvalidArgument.error("the body cannot be read")),
    }
}

pub fn parse<T: DeserializeOwned>(message: &[u8]) -> Result<T, RpcError> {
    let message = if message.is_empty() { b"{}" } else { message };
    serde_json::from_slice(message)
        .map_err(|error| Code::InvalidArgument.error(format!("bad message: {error}")))
}

pub async fn read_unary<T: DeserializeOwned>(request: &mut Request<Incoming>) -> Result<T, RpcError> {
    parse(&collect(request).await?)
}

/// The one message of a server stream's request.
pub async fn read_stream<T: DeserializeOwned>(request: &mut Request<Incoming>) -> Result<T, RpcError> {
    let mut messages = Envelopes::new(request.body_mut());
    let message = messages.next().await?;
    message.ok_or_else(|| Code::InvalidArgument.error("the request has no envelope"))
}

/// One JSON message as a frame of a stream, built in place by `write`.
pub fn envelope(capacity: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    framed(0, capacity, write)
}

fn framed(flags: u8, capacity: usize, write: impl FnOnce(&mut BytesMut)) -> Bytes {
    let mut frame = BytesMut::with_capacity(ENVELOPE_BYTES + capacity);
    frame.put_u8(flags);
    frame.put_u32(0);
    write(&mut frame);
    let length = (frame.len() - ENVELOPE_BYTES) as u32;
    frame[1..ENVELOPE_BYTES].copy_from_slice(&length.to_be_bytes());
    frame.freeze()
}

pub fn message(value: &impl Serialize) -> Bytes {
    let json = serde_json::to_vec(value).expect("messages serialise");
    envelope(json.len(), |frame| frame.put_slice(&json))
}

fn end(error: Option<&RpcError>) -> Bytes {
    let json = match error {
        Some(error) => serde_json::json!({ "error": error.json() }).to_string(),
        None => "{}".into(),
    };
    framed(END_OF_STREAM, json.len(), |frame| frame.put_slice(json.as_bytes()))
}

/// What a stream's answer is made of.
pub struct Stream;

impl Stream {
    /// The last frame of every stream.
    pub fn end(error: Option<&RpcError>) -> Bytes {
        end(error)
    }

    pub fn response(body: Body) -> Response<Body> {
        let mut response = Response::new(body);
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(STREAM_TYPE));
        response
    }
}

/// An error in the form of the call: a stream carries it in its last frame, with status 200.
pub fn refuse(request: &Request<impl Sized>, error: RpcError) -> Response<Body> {
    match is_stream(request.headers()) {
        true => Stream::response(body::bytes(end(Some(&error)))),
        false => error.into_response(),
    }
}
