//! Removing a tree, however deep: what a user can make, the agent can remove, with a stack of its own size.

use std::ffi::CString;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, fstat, openat, unlinkat};
use rustix::io::Errno;

const READ_BYTES: usize = 8 * 1024;
const DIRECTORY: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// A directory that is being emptied, above the one where the work is now.
struct Above {
    /// Of the directory below it.
    name: CString,
    identity: (u64, u64),
}

/// Removes the directory and all below it; links are removed, not followed. One directory is open at a time: the way
/// back is by `..`, which must lead to where it came from. Fails with `ResourceBusy` where somebody moved it meanwhile.
pub fn remove(root: &Path) -> io::Result<()> {
    let mut directory = openat(CWD, root, DIRECTORY, Mode::empty())?;
    let mut way: Vec<Above> = Vec::new();
    loop {
        if let Some(name) = empty(&directory)? {
            let below = match openat(&directory, &name, DIRECTORY, Mode::empty()) {
                Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => continue,
                below => below?,
            };
            way.push(Above { name, identity: identity(&directory)? });
            directory = below;
            continue;
        }
        let Some(above) = way.pop() else { break };
        directory = openat(&directory, c"..", DIRECTORY, Mode::empty())?;
        if identity(&directory)? != above.identity {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        match unlinkat(&directory, &above.name, AtFlags::REMOVEDIR) {
            // Filled again, or gone already: looked at once more.
            Err(Errno::NOTEMPTY | Errno::NOENT) => {}
            removed => removed?,
        }
    }
    Ok(unlinkat(CWD, root, AtFlags::REMOVEDIR)?)
}

fn identity(directory: &OwnedFd) -> io::Result<(u64, u64)> {
    let found = fstat(directory)?;
    Ok((found.st_dev, found.st_ino))
}

/// Removes what is no directory; the first directory that it meets is for the caller.
fn empty(directory: &OwnedFd) -> io::Result<Option<CString>> {
    // From its first entry again: the same directory may have been read before.
    let directory = openat(directory, c".", DIRECTORY, Mode::empty())?;
    let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
    let mut entries = RawDir::new(&directory, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        if entry.file_type() == FileType::Directory {
            return Ok(Some(name.to_owned()));
        }
        match unlinkat(&directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => return Ok(Some(name.to_owned())),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(None)
}
