//! The Connect protocol over HTTP/1.1 with JSON (connectrpc.com/docs/protocol): unary calls and streams.
//!
//! Written out rather than taken from a framework: a stream's chunk must be read from the process only when the
//! last one was taken by the client, and a client's leaving must be seen at once.

mod call;
mod envelopes;
mod error;
mod json;
mod serve;

pub use call::{Stream, envelope, is_call, is_stream, message, read_stream, read_unary, refuse, timeout};
pub use envelopes::Envelopes;
pub use error::{Code, RpcError};
pub use json::{Bytes64, Number, or_default};
pub use serve::{keepalive_every, procedure, stream, unary, within};
