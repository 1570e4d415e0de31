//! The host's end of a network interface.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;

use crate::refusal::reason;

/// Attached until dropped. Reads and writes are whole Ethernet frames, and never wait.
pub struct Tap {
    file: File,
}

impl Tap {
    /// Attaches to the tap of this name in the process's network namespace. For root the kernel makes one that is
    /// missing. Errors are a message.
    pub fn open(name: &str) -> Result<Tap, String> {
        if name.is_empty() || name.len() >= libc::IFNAMSIZ {
            return Err("Invalid interface name".into());
        }
        let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun");
        let file = file.map_err(|error| format!("Couldn't open /dev/net/tun: {}", reason(&error)))?;
        // SAFETY: all-zero bytes are a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: the structure this request takes, with a name that ends in a zero.
        if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF as _, &raw mut request) } != 0 {
            let error = reason(&io::Error::last_os_error());
            return Err(format!(
                "Error while creating ifreq structure: {error}. Invalid TUN/TAP Backend provided by {name}. \
                 Check our documentation on setting up the network devices."
            ));
        }
        Ok(Tap { file })
    }

    /// The length of the frame that came; `None` if none did.
    pub fn receive(&self, into: &mut [u8]) -> Option<usize> {
        (&self.file).read(into).ok()
    }

    /// Lost where the host's end is down or full, as on any wire.
    pub fn send(&self, frame: &[u8]) {
        let _ = (&self.file).write(frame);
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}
