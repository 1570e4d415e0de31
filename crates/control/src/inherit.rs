//! Takes over the descriptor that the keeper left for this process.

use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::Channel;

/// The descriptor a child finds its end of the control channel at.
pub const CHILD_FD: RawFd = 3;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// The control channel this process was started with. Panics when called twice.
pub fn child_channel() -> Channel {
    assert!(!TAKEN.swap(true, Ordering::SeqCst), "the control channel was taken already");
    // SAFETY: the keeper put the channel at CHILD_FD before exec and nothing else in this process owns it:
    // TAKEN lets only one caller reach this line.
    Channel::new(unsafe { OwnedFd::from_raw_fd(CHILD_FD) })
}
