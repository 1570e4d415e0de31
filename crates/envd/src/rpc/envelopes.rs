//! The messages of a request that has several, one after the other.

use bytes::{Buf, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::de::DeserializeOwned;

use super::call::{END_OF_STREAM, ENVELOPE_BYTES, MESSAGE_BYTES_MAX, parse, too_large};
use super::error::{Code, RpcError};

/// Reads no further than the message that is asked for: who sends faster than it is taken has to wait.
pub struct Envelopes<'a> {
    body: &'a mut Incoming,
    buffer: BytesMut,
}

impl Envelopes<'_> {
    pub fn new(body: &mut Incoming) -> Envelopes<'_> {
        Envelopes { body, buffer: BytesMut::new() }
    }

    /// None at the end of the request.
    pub async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<T>, RpcError> {
        if !self.fill(ENVELOPE_BYTES).await? {
            return match self.buffer.is_empty() {
                true => Ok(None),
                false => Err(Code::InvalidArgument.error("the envelope is cut off")),
            };
        }
        let flags = self.buffer.get_u8();
        let length = self.buffer.get_u32() as usize;
        if flags & 1 != 0 {
            return Err(Code::Unimplemented.error("compressed messages are not understood"));
        }
        if length > MESSAGE_BYTES_MAX {
            return Err(too_large());
        }
        if !self.fill(length).await? {
            return Err(Code::InvalidArgument.error("the envelope is cut off"));
        }
        let message = self.buffer.split_to(length);
        match flags & END_OF_STREAM {
            0 => parse(&message).map(Some),
            _ => Ok(None),
        }
    }

    /// False: the request ends before it has so many bytes.
    async fn fill(&mut self, length: usize) -> Result<bool, RpcError> {
        while self.buffer.len() < length {
            match self.body.frame().await {
                None => return Ok(false),
                Some(Err(_)) => return Err(Code::InvalidArgument.error("the body cannot be read")),
                Some(Ok(frame)) => self.buffer.extend_from_slice(frame.data_ref().map_or(&[], |data| data)),
            }
        }
        Ok(true)
    }
}
