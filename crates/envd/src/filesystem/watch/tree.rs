//! A watched directory and, when asked for, all directories below it (inotify(7)).

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::inotify::{self, CreateFlags, ReadFlags, Reader, WatchFlags};
use rustix::io::Errno;

use super::event::{Event, Kind};
use super::nodes::{Nodes, Watched};
use super::{Watch, is_network_mount};
use crate::filesystem::entry::Entry;
use crate::user::Names;

const EVENTS: WatchFlags = WatchFlags::CREATE
    .union(WatchFlags::MODIFY)
    .union(WatchFlags::ATTRIB)
    .union(WatchFlags::DELETE)
    .union(WatchFlags::DELETE_SELF)
    .union(WatchFlags::MOVE)
    .union(WatchFlags::MOVE_SELF)
    .union(WatchFlags::ONLYDIR);

const READ_BYTES: usize = 16 * 1024;
/// Of events that nobody has taken yet.
const EVENT_BYTES_MAX: usize = 8 << 20;

/// All of it blocks.
pub struct Tree {
    queue: Arc<OwnedFd>,
    root: PathBuf,
    recursive: bool,
    include_entry: bool,
    allow_network_mounts: bool,
    nodes: Nodes,
    /// What a new directory held when it was first looked at, and was told: the kernel may tell some of it again.
    told: HashSet<(Watched, OsString)>,
    events: Vec<Event>,
    event_bytes: usize,
    /// For the entries of events, if they have any. As of the last time that there was news.
    names: Option<Names>,
    /// Some events did not come to be told.
    lost: bool,
}

impl Tree {
    pub fn open(root: &Path, watch: &Watch) -> io::Result<Tree> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let watched = inotify::add_watch(&queue, root, EVENTS)?;
        let mut tree = Tree {
            queue: Arc::new(queue),
            root: root.into(),
            recursive: watch.recursive,
            include_entry: watch.include_entry,
            allow_network_mounts: watch.allow_network_mounts,
            nodes: Nodes::default(),
            told: HashSet::new(),
            events: Vec::new(),
            event_bytes: 0,
            names: None,
            lost: false,
        };
        tree.nodes.insert_root(watched);
        if tree.recursive {
            let found = tree.names_in(root)?;
            tree.follow(found.into_iter().map(|name| (watched, name)).collect(), false);
            if tree.lost {
                return Err(Errno::NOSPC.into());
            }
        }
        Ok(tree)
    }

    /// Readable when something happened.
    pub fn queue(&self) -> Arc<OwnedFd> {
        self.queue.clone()
    }

    /// Takes in what the kernel has to tell, about `limit` pieces of news. False: there may be more.
    pub fn drain(&mut self, limit: usize) -> io::Result<bool> {
        let queue = self.queue.clone();
        let mut buffer = [MaybeUninit::uninit(); READ_BYTES];
        let mut reader = Reader::new(&*queue, &mut buffer);
        self.names = self.include_entry.then(Names::read);
        let mut count = 0;
        loop {
            if reader.is_buffer_empty() && count >= limit {
                return Ok(false);
            }
            match reader.next() {
                Ok(event) => {
                    let name = event.file_name().map(|name| OsStr::from_bytes(name.to_bytes()));
                    self.take_in(event.wd(), event.events(), name);
                    count += 1;
                }
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        self.told.clear();
        for watched in self.nodes.settle() {
            self.nodes.remove(watched);
            let _ = inotify::remove_watch(&*queue, watched);
        }
        Ok(true)
    }

    /// What happened since the last time, and whether all of it.
    pub fn take(&mut self) -> (Vec<Event>, bool) {
        self.event_bytes = 0;
        (std::mem::take(&mut self.events), !std::mem::take(&mut self.lost))
    }

    fn take_in(&mut self, watched: Watched, what: ReadFlags, name: Option<&OsStr>) {
        if what.contains(ReadFlags::QUEUE_OVERFLOW) {
            self.lost = true;
            return;
        }
        if what.contains(ReadFlags::IGNORED) {
            self.nodes.remove(watched);
            return;
        }
        let Some(directory) = self.nodes.path(watched) else { return };
        let Some(name) = name else {
            // Of the others the directory above tells.
            if self.nodes.is_root(watched)
                && let Some(kind) = kind(what)
            {
                self.tell(Path::new("."), kind);
            }
            return;
        };
        let path = directory.join(name);
        let key = || (watched, name.to_os_string());
        let is_directory = what.contains(ReadFlags::ISDIR) && self.recursive;
        if what.intersects(ReadFlags::CREATE | ReadFlags::MOVED_TO) {
            if !self.told.remove(&key()) || what.contains(ReadFlags::MOVED_TO) {
                self.tell(&path, Kind::Create);
            }
            if is_directory {
                self.follow(vec![key()], true);
            }
            return;
        }
        if what.intersects(ReadFlags::DELETE | ReadFlags::MOVED_FROM) {
            self.told.remove(&key());
        }
        if let Some(kind) = kind(what) {
            self.tell(&path, kind);
        }
        if is_directory && what.contains(ReadFlags::MOVED_FROM) {
            self.nodes.move_away(watched, name.to_os_string());
        }
    }

    /// Watches these of the tree that are directories, and those below them. They are looked at after they are
    /// watched: what was in them before is told as made now, so that nothing falls between.
    fn follow(&mut self, found: Vec<(Watched, OsString)>, is_new: bool) {
        let mut left = found;
        while let Some((parent, name)) = left.pop() {
            let Some(path) = self.nodes.path(parent).map(|above| above.join(&name)) else { continue };
            let full = self.root.join(&path);
            if !self.is_followed(&full) {
                continue;
            }
            let watched = match inotify::add_watch(&*self.queue, &full, EVENTS | WatchFlags::DONT_FOLLOW) {
                Ok(watched) => watched,
                Err(Errno::NOSPC) => {
                    self.lost = true;
                    continue;
                }
                // Gone already, or made anew as something else.
                Err(_) => continue,
            };
            if self.nodes.is_root(watched) {
                continue;
            }
            let was_known = self.nodes.contains(watched);
            self.nodes.place(watched, parent, name);
            if was_known {
                continue;
            }
            for name in self.names_in(&full).unwrap_or_default() {
                if is_new && self.told.insert((watched, name.clone())) {
                    self.tell(&path.join(&name), Kind::Create);
                }
                left.push((watched, name));
            }
        }
    }

    /// A directory, not a link to one, and not one of another machine, nor one that the kernel makes up.
    fn is_followed(&self, path: &Path) -> bool {
        let (Ok(found), Ok(root)) = (fs::symlink_metadata(path), fs::metadata(&self.root)) else {
            return false;
        };
        found.is_dir()
            && (found.dev() == root.dev()
                || (self.allow_network_mounts || !is_network_mount(path).unwrap_or(true))
                    && !is_made_up(path).unwrap_or(true))
    }

    fn names_in(&self, directory: &Path) -> io::Result<Vec<OsString>> {
        let mut names: Vec<OsString> =
            fs::read_dir(directory)?.filter_map(|entry| Some(entry.ok()?.file_name())).collect();
        names.sort_unstable();
        Ok(names)
    }

    fn tell(&mut self, path: &Path, kind: Kind) {
        let is_there = matches!(kind, Kind::Create | Kind::Write | Kind::Chmod);
        let full = if path == Path::new(".") { self.root.clone() } else { self.root.join(path) };
        let entry = self.names.as_ref().filter(|_| is_there).and_then(|names| Entry::read(&full, names).ok());
        let event = Event { name: path.to_string_lossy().into_owned(), kind, entry };
        if self.event_bytes > EVENT_BYTES_MAX {
            self.lost = true;
            return;
        }
        self.event_bytes += event.bytes();
        self.events.push(event);
    }
}

/// What clients are told; None for what they are not.
fn kind(what: ReadFlags) -> Option<Kind> {
    let kinds = [
        (ReadFlags::MODIFY, Kind::Write),
        (ReadFlags::ATTRIB, Kind::Chmod),
        (ReadFlags::DELETE | ReadFlags::DELETE_SELF, Kind::Remove),
        (ReadFlags::MOVED_FROM | ReadFlags::MOVE_SELF, Kind::Rename),
    ];
    kinds.into_iter().find_map(|(flags, kind)| what.intersects(flags).then_some(kind))
}

const PROC: u64 = 0x9fa0;
const SYSFS: u64 = 0x6265_6572;

/// Nothing happens there that inotify would tell.
fn is_made_up(path: &Path) -> io::Result<bool> {
    Ok(matches!(rustix::fs::statfs(path)?.f_type as u64, PROC | SYSFS))
}
