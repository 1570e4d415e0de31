//! A file, link or tree that goes to another file system: copied as it is, then removed where it was (as mv does it).

use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, StatxFlags, Timespec, Timestamps, mknodat, statx, utimensat};

use super::tree;
use crate::files::metadata;

/// Takes the place of what is at `destination`, by a rename: nobody sees half of it, and nothing is lost when it fails.
pub fn carry_over(source: &Path, destination: &Path) -> io::Result<()> {
    let beside = beside(destination)?;
    let found = fs::symlink_metadata(source)?;
    // What a rename would refuse is refused before anything is copied.
    match fs::symlink_metadata(destination) {
        Ok(there) if there.is_dir() && !found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(there) if found.is_dir() && !there.is_dir() => return Err(io::ErrorKind::NotADirectory.into()),
        Ok(there) if there.is_dir() && fs::read_dir(destination)?.next().is_some() => {
            return Err(io::ErrorKind::DirectoryNotEmpty.into());
        }
        _ => {}
    }
    let copied = copy(source, &beside, &found).and_then(|()| fs::rename(&beside, destination));
    if let Err(error) = copied {
        let _ = remove(&beside);
        return Err(error);
    }
    remove(source)
}

/// A name in the same directory that nobody has.
fn beside(destination: &Path) -> io::Result<PathBuf> {
    let mut random = [0u8; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())?;
    Ok(destination.with_file_name(format!(".moving-{:016x}", u64::from_ne_bytes(random))))
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path)?.is_dir() {
        true => tree::remove(path),
        false => fs::remove_file(path),
    }
}

/// Without recursion: how deep a tree is, is up to the user. A mount below the source is not entered: its files belong
/// to another file system.
fn copy(source: &Path, destination: &Path, found: &Metadata) -> io::Result<()> {
    let mount = mount_of(source)?;
    let mut left = vec![(source.to_path_buf(), destination.to_path_buf(), found.clone())];
    let mut directories = Vec::new();
    while let Some((from, to, found)) = left.pop() {
        if !found.is_dir() {
            copy_one(&from, &to, &found)?;
            describe(&to, &found)?;
            continue;
        }
        if mount_of(&from)? != mount {
            return Err(io::ErrorKind::ResourceBusy.into());
        }
        fs::create_dir(&to)?;
        for entry in fs::read_dir(&from)? {
            let entry = entry?;
            let below = fs::symlink_metadata(entry.path())?;
            left.push((entry.path(), to.join(entry.file_name()), below));
        }
        directories.push((to, found));
    }
    // The times of a directory change with what is made in it.
    directories.iter().rev().try_for_each(|(path, found)| describe(path, found))
}

/// Not the device's number: an overlay has several.
fn mount_of(path: &Path) -> io::Result<u64> {
    let found = statx(CWD, path, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::MNT_ID)?;
    Ok(found.stx_mnt_id)
}

fn copy_one(source: &Path, destination: &Path, found: &Metadata) -> io::Result<()> {
    if found.is_symlink() {
        return std::os::unix::fs::symlink(fs::read_link(source)?, destination);
    }
    if !found.is_file() {
        let node = FileType::from_raw_mode(found.mode());
        return Ok(mknodat(CWD, destination, node, Mode::empty(), found.rdev())?);
    }
    let (mut from, mut to) = (File::open(source)?, File::create_new(destination)?);
    io::copy(&mut from, &mut to)?;
    metadata::replace(&to, &metadata::read(source))
}

/// Owner, permissions and times; the owner first, because it takes some permissions away.
fn describe(path: &Path, found: &Metadata) -> io::Result<()> {
    std::os::unix::fs::lchown(path, Some(found.uid()), Some(found.gid()))?;
    if !found.is_symlink() {
        fs::set_permissions(path, fs::Permissions::from_mode(found.mode() & 0o7777))?;
    }
    let time = |seconds, nanoseconds| Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps {
        last_access: time(found.atime(), found.atime_nsec()),
        last_modification: time(found.mtime(), found.mtime_nsec()),
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}
