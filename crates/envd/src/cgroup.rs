//! The cgroup of the users' processes, and its freezer (kernel: admin-guide/cgroup-v2, "cgroup.freeze").

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

pub struct Cgroup {
    path: PathBuf,
    procs: File,
    freeze: File,
}

impl Cgroup {
    /// Makes the cgroup when it is missing. Fails where `path` is not on a cgroup v2 hierarchy.
    pub fn open(path: &Path) -> io::Result<Cgroup> {
        if let Err(error) = fs::create_dir(path)
            && error.kind() != io::ErrorKind::AlreadyExists
        {
            return Err(error);
        }
        let freeze = File::options().write(true).open(path.join("cgroup.freeze"))?;
        let procs = File::options().write(true).open(path.join("cgroup.procs"))?;
        Ok(Cgroup { path: path.into(), procs, freeze })
    }

    /// A second one beside it, where a rehearsal's processes are: users' stand still meanwhile.
    pub fn rehearsal(&self) -> io::Result<Cgroup> {
        let mut name = self.path.clone().into_os_string();
        name.push("-rehearsal");
        Cgroup::open(Path::new(&name))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Where a process writes `0` to join.
    pub fn procs(&self) -> BorrowedFd<'_> {
        self.procs.as_fd()
    }

    /// Asks for the freeze and waits up to `limit` for it. False: some process is in a call that cannot be
    /// interrupted; it will freeze when that ends, the others are frozen.
    pub async fn freeze(&self, limit: Duration) -> io::Result<bool> {
        self.freeze.write_all_at(b"1", 0)?;
        let start = Instant::now();
        let mut nap = Duration::from_micros(500);
        while !self.is_frozen()? {
            if start.elapsed() >= limit {
                return Ok(false);
            }
            tokio::time::sleep(nap).await;
            nap = (nap * 2).min(Duration::from_millis(8));
        }
        Ok(true)
    }

    pub fn thaw(&self) -> io::Result<()> {
        self.freeze.write_all_at(b"0", 0)
    }

    /// Whether a freeze was asked for and not taken back.
    pub fn is_freezing(&self) -> bool {
        fs::read_to_string(self.path.join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
    }

    fn is_frozen(&self) -> io::Result<bool> {
        let events = fs::read_to_string(self.path.join("cgroup.events"))?;
        Ok(events.lines().any(|line| line == "frozen 1"))
    }
}
