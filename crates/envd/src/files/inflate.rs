//! The body of an upload as plain bytes, whatever its encoding.

use std::io::{self, Write};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use flate2::write::GzDecoder;
use futures_core::Stream;
use hyper::body::{Body, Incoming};

/// Compressed bytes that are taken at once: they can grow about a thousandfold.
const INPUT_BYTES: usize = 1024;
pub struct Chunks<'a> {
    body: &'a mut Incoming,
    gzip: Option<GzDecoder<Vec<u8>>>,
    /// Compressed bytes not yet decoded.
    input: Bytes,
}

pub fn chunks(body: &mut Incoming, gzip: bool) -> Chunks<'_> {
    Chunks { body, gzip: gzip.then(|| GzDecoder::new(Vec::new())), input: Bytes::new() }
}

impl Chunks<'_> {
    fn poll_body(&mut self, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        loop {
            return Poll::Ready(match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                None => None,
                Some(Err(error)) => Some(Err(io::Error::other(error))),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) => Some(Ok(data)),
                    Err(_trailers) => continue,
                },
            });
        }
    }
}

impl Stream for Chunks<'_> {
    type Item = io::Result<Bytes>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Bytes>>> {
        let this = self.get_mut();
        loop {
            if this.gzip.is_none() {
                return this.poll_body(context);
            }
            if this.input.is_empty() {
                match ready!(this.poll_body(context)) {
                    Some(Ok(data)) => this.input = data,
                    Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                    None => {
                        let rest = this.gzip.take().map(GzDecoder::finish);
                        return Poll::Ready(
                            rest.filter(|rest| !matches!(rest, Ok(rest) if rest.is_empty()))
                                .map(|rest| rest.map(Bytes::from)),
                        );
                    }
                }
            }
            let Some(decoder) = &mut this.gzip else { continue };
            let taken = this.input.len().min(INPUT_BYTES);
            if let Err(error) = decoder.write_all(&this.input[..taken]).and_then(|()| decoder.flush()) {
                return Poll::Ready(Some(Err(error)));
            }
            this.input.advance(taken);
            let plain = std::mem::take(decoder.get_mut());
            if !plain.is_empty() {
                return Poll::Ready(Some(Ok(plain.into())));
            }
        }
    }
}
