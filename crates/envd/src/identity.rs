//! Who the VM is, and how the agent remembers it if it has to start again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// What `/init` gave the VM. Replaced as a whole, so a request sees one identity from its start to its end.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Identity {
    /// Of the last `/init` that was applied.
    pub counter: Option<u64>,
    /// Required from callers of 49983 when set.
    pub token: Option<String>,
    /// Given to every process, the protected `E2B_*` included.
    pub env: BTreeMap<String, String>,
    pub default_user: Option<String>,
    pub default_workdir: Option<String>,
}

/// As it is kept below `run`, which is memory: an agent that was killed goes on as the same VM. The boot's id tells
/// a file that came from a disk.
#[derive(Deserialize, Serialize)]
struct Kept {
    boot_id: String,
    identity: Identity,
}

fn directory(root: &Path) -> PathBuf {
    root.join("run/thaw")
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
}

impl Identity {
    /// The identity that this boot was given, if it was.
    pub fn recall(root: &Path) -> Option<Identity> {
        let text = fs::read(directory(root).join("identity.json")).ok()?;
        let kept: Kept = serde_json::from_slice(&text).ok()?;
        (kept.boot_id == boot_id().ok()?).then_some(kept.identity)
    }

    pub fn keep(&self, root: &Path) -> io::Result<()> {
        let directory = directory(root);
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let kept = Kept { boot_id: boot_id()?, identity: self.clone() };
        let new = directory.join("identity.new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(&serde_json::to_vec(&kept)?)?;
        fs::rename(new, directory.join("identity.json"))
    }
}
