//! Who the VM is, and how the agent remembers it if it has to start again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

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
    /// What the VM was told to call itself; its users may have changed it since.
    pub hostname: Option<String>,
    pub machine_id: Option<String>,
}

impl Identity {
    /// Of the same sandbox, which was only started again.
    fn is_again(&self, before: &Identity) -> bool {
        let Identity { counter, token, env, default_user, default_workdir, hostname, machine_id } = self;
        (counter.is_some() && before.counter.is_some())
            && (token, env) == (&before.token, &before.env)
            && (default_user, default_workdir) == (&before.default_user, &before.default_workdir)
            && (hostname, machine_id) == (&before.hostname, &before.machine_id)
    }
}

/// What follows the counter, which most starts change and nothing else.
#[derive(Serialize)]
struct Kept<'a> {
    boot_id: &'a str,
    identity: &'a Identity,
}

#[derive(Deserialize)]
struct Found {
    boot_id: String,
    identity: Identity,
}

/// As many digits as the largest counter has.
const COUNTER_BYTES: usize = 20;

/// The file by which an agent that was killed goes on as the same VM; below `run`, which is memory. It is held open
/// and written in place, because a VM that wakes up has better things to do than to look up paths. An agent that is
/// killed while it writes has not answered its `/init`, which the host then repeats.
pub struct Memo {
    file: File,
    boot_id: String,
    /// It holds an identity of this boot.
    is_kept: AtomicBool,
}

fn boot_id() -> io::Result<String> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")
}

impl Memo {
    pub fn open(root: &Path) -> io::Result<Memo> {
        let directory = root.join("run/thaw");
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        let mut options = File::options();
        options.read(true).write(true).create(true).truncate(false).mode(0o600);
        let file = options.open(directory.join("identity.json"))?;
        Ok(Memo { file, boot_id: boot_id()?, is_kept: AtomicBool::new(false) })
    }

    /// The identity that this boot was given, if it was. The boot's id tells a file that came from a disk.
    pub fn recall(&self) -> Option<Identity> {
        let mut text = vec![0; self.file.metadata().ok()?.len() as usize];
        self.file.read_exact_at(&mut text, 0).ok()?;
        let (counter, rest) = text.split_at_checked(COUNTER_BYTES)?;
        let counter = std::str::from_utf8(counter).ok()?.trim_start();
        let found: Found = serde_json::from_slice(rest).ok()?;
        let identity = Identity { counter: counter.parse().ok(), ..found.identity };
        (found.boot_id == self.boot_id).then_some(identity)
    }

    /// `before`: what was written last.
    pub fn write(&self, identity: &Identity, before: &Identity) -> io::Result<()> {
        if self.is_kept.load(Ordering::Relaxed) && identity.is_again(before) {
            return self.file.write_all_at(&counter_of(identity), 0);
        }
        self.put(&self.boot_id, identity)?;
        self.is_kept.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Does the work of `write` for nobody: of no boot, it is never recalled.
    pub fn rehearse(&self, identity: &Identity) -> io::Result<()> {
        self.put("none", identity)
    }

    fn put(&self, boot_id: &str, identity: &Identity) -> io::Result<()> {
        self.is_kept.store(false, Ordering::Relaxed);
        let mut text = counter_of(identity).to_vec();
        serde_json::to_writer(&mut text, &Kept { boot_id, identity })?;
        // White space over what a longer one left.
        let length = self.file.metadata()?.len() as usize;
        text.resize(text.len().max(length), b' ');
        self.file.write_all_at(&text, 0)
    }
}

/// Blank where there is none.
fn counter_of(identity: &Identity) -> [u8; COUNTER_BYTES] {
    let mut text = [b' '; COUNTER_BYTES];
    let Some(mut left) = identity.counter else { return text };
    for digit in text.iter_mut().rev() {
        *digit = b'0' + (left % 10) as u8;
        left /= 10;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_identity_of_this_boot_is_recalled() {
        let root = std::env::temp_dir().join(format!("thaw-envd-memo-{}", std::process::id()));
        let memo = Memo::open(&root).unwrap();
        assert_eq!(memo.recall(), None);
        memo.rehearse(&Identity { hostname: Some("nobody".into()), ..Identity::default() }).unwrap();
        assert_eq!(memo.recall(), None);
        let mut before = Identity::default();
        for (counter, name) in
            [(7, "a-long-hostname"), (u64::MAX, "a-long-hostname"), (8, "short"), (9, "short")]
        {
            let identity =
                Identity { counter: Some(counter), hostname: Some(name.into()), ..Identity::default() };
            memo.write(&identity, &before).unwrap();
            assert_eq!(Memo::open(&root).unwrap().recall(), Some(identity.clone()));
            before = identity;
        }
        let path = root.join("run/thaw/identity.json");
        let other_boot = fs::read_to_string(&path).unwrap().replace(&memo.boot_id[..8], "00000000");
        fs::write(&path, other_boot).unwrap();
        assert_eq!(memo.recall(), None);
        fs::write(&path, "{").unwrap();
        assert_eq!(memo.recall(), None);
        fs::remove_dir_all(root).unwrap();
    }
}
