//! A real block store process behind a real FUSE mount that only the calling test sees.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod header;
pub mod random;
pub mod world;

use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::fs::{FallocateFlags, OFlags};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};
use rustix::process::Signal;
use rustix::thread::UnshareFlags;
use serde_json::{Value, json};
use thaw_control::{CHILD_FD, Channel};

pub const BLOCK: usize = 4096;

/// Detaches the calling thread, and what it starts from now on, from the machine's mounts. They end with it.
pub fn private_mounts() {
    // SAFETY: a mount namespace has no file descriptors or memory that other threads could be relying on.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }.expect("needs root");
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC).unwrap();
}

/// A directory that goes away with the value.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("blockstore-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn create(&self, name: &str) -> File {
        open_rw().create(true).truncate(true).open(self.path(name)).unwrap()
    }

    pub fn open(&self, name: &str) -> File {
        open_rw().open(self.path(name)).unwrap()
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // A mount left inside belongs to the test's own namespace.
        let _ = rustix::mount::unmount(self.path("mount"), UnmountFlags::DETACH);
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// An error answer: its kind and message.
pub type Refusal = (String, String);

/// The process and its end of the control channel; killed when dropped.
pub struct Server {
    child: Child,
    channel: Option<Channel>,
    mount: PathBuf,
    mounted: bool,
    next_id: u64,
}

impl Server {
    /// Mounts DIR/mount and starts the process; `fuse` is what `start` takes.
    pub fn spawn(directory: &Directory) -> (Self, OwnedFd) {
        let mount = directory.path("mount");
        let _ = std::fs::create_dir(&mount);
        let fuse: OwnedFd = open_rw().open("/dev/fuse").unwrap().into();
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other\0", fuse.as_raw_fd());
        let options = std::ffi::CStr::from_bytes_with_nul(options.as_bytes()).unwrap();
        rustix::mount::mount("thaw-test", &mount, "fuse", MountFlags::NOSUID | MountFlags::NODEV, options)
            .unwrap();
        let (ours, theirs) = Channel::pair().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_thaw-blockstore"));
        // SAFETY: only system calls between fork and exec; the new descriptor 3 is the child's alone.
        unsafe {
            command.pre_exec(move || {
                rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
                let mut target = std::mem::ManuallyDrop::new(OwnedFd::from_raw_fd(CHILD_FD));
                rustix::io::dup2(&theirs, &mut target)?;
                rustix::io::fcntl_setfd(&*target, rustix::io::FdFlags::empty())?;
                Ok(())
            });
        }
        let child = command.spawn().unwrap();
        drop(command);
        (Self { child, channel: Some(ours), mount, mounted: true, next_id: 1 }, fuse)
    }

    /// Mounts and starts a disk over one build; the files are top, zeros, header and the build's.
    pub fn over_build(directory: &Directory, size_bytes: u64, build: &[u8; 16], files: [&File; 4]) -> Self {
        let (mut server, fuse) = Self::spawn(directory);
        let request = json!({
            "op": "start", "size_bytes": size_bytes, "fuse": 0, "top": 1, "zeros": 2, "header": 3,
            "builds": {header::name(build): 4},
        });
        let [top, zeros, header, build] = files;
        server.ask(request, &[&fuse, top, zeros, header, build]).unwrap();
        server
    }

    pub fn ask(&mut self, mut request: Value, fds: &[&dyn AsFd]) -> Result<Value, Refusal> {
        let id = self.next_id;
        self.next_id += 1;
        request["id"] = json!(id);
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let channel = self.channel.as_ref().unwrap();
        channel.send(&request, &fds).unwrap();
        loop {
            let answer = channel.recv().unwrap().expect("the block store is gone").json;
            if answer.get("event").is_some() {
                continue;
            }
            assert_eq!(answer["id"], json!(id));
            if answer["ok"] == json!(true) {
                return Ok(answer["result"].clone());
            }
            let text = |key: &str| answer["error"][key].as_str().unwrap().to_owned();
            return Err((text("kind"), text("message")));
        }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The served file, through the page cache or past it.
    pub fn file(&self, direct: bool) -> File {
        let flags = if direct { OFlags::DIRECT.bits() as i32 } else { 0 };
        open_rw().custom_flags(flags).open(self.mount.join("rootfs.ext4")).unwrap()
    }

    /// kill -9; the mount goes too.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::mem::take(&mut self.mounted) {
            let _ = rustix::mount::unmount(&self.mount, UnmountFlags::DETACH);
        }
    }

    /// Closes the control channel and waits for the process to leave by itself.
    pub fn hang_up(mut self) -> std::process::ExitStatus {
        self.channel = None;
        self.child.wait().unwrap()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

pub fn open_rw() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    options
}

pub fn read(file: &File, offset: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0x5a; length];
    file.read_exact_at(&mut bytes, offset).unwrap();
    bytes
}

pub fn write(file: &File, offset: u64, bytes: &[u8]) {
    file.write_all_at(bytes, offset).unwrap();
}

pub fn punch(file: &File, offset: u64, length: u64) {
    let mode = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    rustix::fs::fallocate(file, mode, offset, length).unwrap();
}

/// Indices of the allocated blocks of a sparse file.
pub fn allocated(file: &File) -> Vec<u64> {
    let mut blocks = Vec::new();
    let mut position = 0;
    while let Ok(start) = rustix::fs::seek(file, rustix::fs::SeekFrom::Data(position)) {
        position = rustix::fs::seek(file, rustix::fs::SeekFrom::Hole(start)).unwrap();
        blocks.extend(start / BLOCK as u64..position.div_ceil(BLOCK as u64));
    }
    blocks
}
