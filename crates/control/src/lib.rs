//! The control channel between a keeper and its children: a SOCK_SEQPACKET pair, one JSON message a packet,
//! file descriptors beside it (SCM_RIGHTS). A child inherits its end as descriptor 3 and leaves when it closes.
//!
//! Frames: request `{"id":n,"op":"…",…}`, answer `{"id":n,"ok":true,"result":…}` or
//! `{"id":n,"ok":false,"error":{"kind":"…","message":"…"}}`, event `{"event":"…",…}`.
//! A request names the descriptors it carries by their index: `"memfile": 1`.

mod channel;
mod inherit;
mod serve;

pub use channel::{Channel, Message, PACKET_BYTES_MAX};
pub use inherit::{CHILD_FD, child_channel};
pub use serve::{ControlError, Request, serve};
