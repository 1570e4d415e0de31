//! From a fresh process to a listening keeper.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock};

use crate::keeper::Keeper;
use crate::{exec, sys};

/// Serves until `end`. Fails at once when another keeper has this folder.
pub fn run(run_dir: PathBuf) -> io::Result<()> {
    sys::close_inherited()?;
    let _reserved = exec::reserve_child_fds()?;
    rustix::process::umask(Mode::empty());
    rustix::process::chdir("/")?;
    // Fails for a process group's leader, which then has a session already.
    let _ = rustix::process::setsid();
    let run_dir = run_dir.canonicalize()?;
    let _lock = lock(&run_dir)?;
    sys::own_mount_namespace()?;
    let listener = listen(&run_dir.join("keeper.sock"))?;
    Keeper::new(run_dir).serve(&listener)
}

/// One keeper per folder; the kernel drops the lock with the process.
fn lock(run_dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = rustix::fs::open(run_dir, flags, Mode::empty())?;
    flock(&dir, FlockOperation::NonBlockingLockExclusive).map_err(|error| {
        io::Error::new(error.kind(), format!("{}: another keeper is there ({error})", run_dir.display()))
    })?;
    Ok(dir)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if UnixStream::connect(path).is_ok() {
        return Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            format!("{}: somebody listens", path.display()),
        ));
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Bound under another name first: whoever can connect to the final one finds it with its final mode.
    let unfinished = path.with_extension("new");
    let _ = std::fs::remove_file(&unfinished);
    let listener = UnixListener::bind(&unfinished)?;
    std::fs::set_permissions(&unfinished, std::fs::Permissions::from_mode(0o600))?;
    std::fs::rename(&unfinished, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}
