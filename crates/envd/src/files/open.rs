//! Opening files for others: never a pipe or a device, and new directories belong to the user.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::OFlags;

use crate::user::User;

/// A regular file for reading, and what it is. Its size is 0 for files that the kernel makes up.
pub fn for_reading(path: &Path) -> io::Result<(File, fs::Metadata)> {
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits() as i32).open(path)?;
    let found = file.metadata()?;
    check_kind(&found)?;
    Ok((file, found))
}

/// A regular file for writing and whether it is new, with the directories above it. One that was there is as it was.
pub fn for_writing(path: &Path, user: &User) -> io::Result<(File, bool)> {
    if let Some(parent) = path.parent() {
        make_directories(parent, user)?;
    }
    // Looked at first: opening a device can have effects, and a missing reader of a pipe is an odd error.
    let found = fs::metadata(path);
    if let Ok(found) = &found {
        check_kind(found)?;
    }
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o666)
        .custom_flags(OFlags::NONBLOCK.bits() as i32)
        .open(path)?;
    check_kind(&file.metadata()?)?;
    Ok((file, found.is_err()))
}

fn check_kind(found: &fs::Metadata) -> io::Result<()> {
    if found.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    match found.is_file() {
        true => Ok(()),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file")),
    }
}

/// Makes the missing ones of `directory` and those above it, for the user.
pub fn make_directories(directory: &Path, user: &User) -> io::Result<()> {
    let mut missing = Vec::new();
    for ancestor in directory.ancestors() {
        match fs::metadata(ancestor) {
            Ok(found) if found.is_dir() => break,
            Ok(_) => return Err(io::ErrorKind::NotADirectory.into()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            Err(_) => missing.push(ancestor),
        }
    }
    for directory in missing.into_iter().rev() {
        match fs::DirBuilder::new().mode(0o755).create(directory) {
            Ok(()) => rustix::fs::chown(directory, Some(user.uid), Some(user.gid))?,
            // Another upload was faster.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
