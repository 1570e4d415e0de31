//! Waiting for descriptors that are neither sockets nor pipes.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

pub type Readable = AsyncFd<Arc<OwnedFd>>;

pub fn readable(fd: Arc<OwnedFd>) -> io::Result<Readable> {
    // SAFETY: an owned descriptor is open and the same for as long as it lives, and the Arc keeps it alive.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}
