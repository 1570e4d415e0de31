//! Descriptors that the keeper opens as root for its children.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, MemfdFlags, Mode, OFlags, chownat, fchmod, memfd_create, open};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, listen, socket_with};
use rustix::thread::{Gid, Uid};
use serde::Deserialize;
use thaw_control::ControlError;

use crate::child::Child;
use crate::jail::Jail;

/// Where a descriptor comes from. Paths are the host's (as the keeper sees it), the FUSE mount point is the jail's.
#[derive(Deserialize)]
#[serde(untagged)]
pub enum Source {
    Open {
        open: String,
        flags: OpenFlags,
    },
    /// A listening Unix stream socket, owned by `uid`.
    Listen {
        listen: String,
        uid: u32,
        mode: u32,
    },
    /// A FUSE session mounted at this path of the jail, for the jail's user alone. A duplicate is kept as `fuse`.
    Fuse {
        fuse: String,
    },
    /// Anonymous memory of this many bytes.
    Tmpfile {
        tmpfile: u64,
    },
    /// /proc/PID/pagemap of a running child, which other users cannot open.
    Pagemap {
        pagemap: String,
    },
    /// /proc/PID/clear_refs of a running child, likewise.
    ClearRefs {
        clear_refs: String,
    },
    /// A descriptor that came with an earlier event, see `forward.rs`.
    Kept {
        kept: String,
    },
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OpenFlags {
    R,
    W,
    Rw,
    /// Read and write, made new with mode 0600; an existing file is an error.
    Create,
    Dir,
}

#[derive(Deserialize)]
pub struct Inherited {
    #[serde(rename = "as")]
    pub number: i32,
    #[serde(flatten)]
    pub source: Source,
}

pub type Kept = BTreeMap<String, OwnedFd>;

/// What the keeper has that a source may refer to.
pub struct Stock<'a> {
    pub jail: Option<&'a Jail>,
    pub kept: &'a mut Kept,
    pub children: &'a BTreeMap<u64, Child>,
}

impl Source {
    pub fn open(&self, stock: &mut Stock<'_>) -> Result<OwnedFd, ControlError> {
        match self {
            Self::Open { open: path, flags } => open_path(path, *flags).map_err(|error| failed(path, error)),
            Self::Listen { listen: path, uid, mode } => {
                listen_at(Path::new(path), *uid, *mode).map_err(|error| failed(path, error))
            }
            Self::Fuse { fuse: target } => {
                let jail = stock
                    .jail
                    .ok_or_else(|| ControlError::new("invalid_state", "fuse: there is no jail yet"))?;
                let fd = jail.mount_fuse(target).map_err(|error| failed(target, error))?;
                stock.kept.insert("fuse".to_owned(), fd.try_clone()?);
                Ok(fd)
            }
            Self::Tmpfile { tmpfile: size_bytes } => Ok(memory_file(*size_bytes)?),
            Self::Pagemap { pagemap: role } => open_of_child(stock, role, "pagemap", OpenFlags::R),
            Self::ClearRefs { clear_refs: role } => open_of_child(stock, role, "clear_refs", OpenFlags::W),
            Self::Kept { kept: name } => match stock.kept.get(name) {
                Some(fd) => Ok(fd.try_clone()?),
                None => Err(ControlError::new("not_found", format!("no descriptor is kept as {name}"))),
            },
        }
    }
}

/// A file of /proc/PID.
fn open_of_child(
    stock: &Stock<'_>,
    role: &String,
    name: &str,
    flags: OpenFlags,
) -> Result<OwnedFd, ControlError> {
    let running = |child: &&Child| child.is_running() && child.role.as_ref() == Some(role);
    let child = stock.children.values().find(running);
    let child = child.ok_or_else(|| ControlError::new("unavailable", format!("no {role} runs")))?;
    let path = format!("/proc/{}/{name}", child.pid);
    open_path(&path, flags).map_err(|error| failed(&path, error))
}

fn failed(path: &str, error: io::Error) -> ControlError {
    let kind = match error.raw_os_error() {
        Some(2) => "not_found",
        Some(28) => "exhausted",
        _ => "internal",
    };
    ControlError::new(kind, format!("{path}: {error}"))
}

fn open_path(path: &str, flags: OpenFlags) -> io::Result<OwnedFd> {
    let flags = match flags {
        OpenFlags::R => OFlags::RDONLY,
        OpenFlags::W => OFlags::WRONLY,
        OpenFlags::Rw => OFlags::RDWR,
        OpenFlags::Create => OFlags::RDWR | OFlags::CREATE | OFlags::EXCL,
        OpenFlags::Dir => OFlags::RDONLY | OFlags::DIRECTORY,
    };
    Ok(open(path, flags | OFlags::CLOEXEC | OFlags::NOCTTY, Mode::from_raw_mode(0o600))?)
}

/// The folder may belong to an untrusted child, so nothing here follows a link it could put at `path`: the mode
/// is set before the bind (the keeper's umask is 0), the owner without following.
pub fn listen_at(path: &Path, uid: u32, mode: u32) -> io::Result<OwnedFd> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    fchmod(&socket, Mode::from_raw_mode(mode & 0o777))?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    let (owner, group) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(uid)));
    chownat(CWD, path, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
    listen(&socket, 16)?;
    Ok(socket)
}

fn memory_file(size_bytes: u64) -> io::Result<OwnedFd> {
    let fd = memfd_create("thaw", MemfdFlags::CLOEXEC)?;
    rustix::fs::ftruncate(&fd, size_bytes)?;
    Ok(fd)
}
