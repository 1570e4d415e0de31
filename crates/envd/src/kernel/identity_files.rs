//! The files that tell one VM from another: `etc/hostname`, `etc/hosts`, `etc/machine-id`.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rustix::fs::OFlags;

/// Writes what is given below `root`. A file that cannot be written is reported on the console only: a full disk
/// must not keep a sandbox from being resumed.
pub fn write_identity_files(root: &Path, hostname: Option<&str>, machine_id: Option<&str>) {
    let etc = root.join("etc");
    let mut results = Vec::new();
    if let Some(hostname) = hostname {
        results.push(("hostname", put(&etc.join("hostname"), &format!("{hostname}\n"))));
        let path = etc.join("hosts");
        let hosts = with_own_name(&read(&path).unwrap_or_default(), hostname);
        results.push(("hosts", put(&path, &hosts)));
    }
    if let Some(id) = machine_id {
        results.push(("machine-id", put(&etc.join("machine-id"), &format!("{id}\n"))));
    }
    for (name, result) in results {
        if let Err(error) = result {
            eprintln!("thaw-envd: etc/{name}: {error}");
        }
    }
}

/// 127.0.1.1 is the line for the machine's own name, as Debian has it.
fn with_own_name(hosts: &str, hostname: &str) -> String {
    let kept = hosts.lines().filter(|line| line.split_whitespace().next() != Some("127.0.1.1"));
    let mut text: String = kept.flat_map(|line| [line, "\n"]).collect();
    if text.is_empty() {
        text.push_str("127.0.0.1\tlocalhost\n");
    }
    text + "127.0.1.1\t" + hostname + "\n"
}

/// Opens a regular file; a pipe put in its place must not hold up the agent.
fn open(options: &mut fs::OpenOptions, path: &Path) -> io::Result<File> {
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits() as i32;
    let file = options.custom_flags(flags).open(path)?;
    match file.metadata()?.is_file() {
        true => Ok(file),
        false => Err(io::Error::other("not a regular file")),
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    open(File::options().read(true), path)?.take(1 << 20).read_to_string(&mut text)?;
    Ok(text)
}

/// In place, because that works on a full disk as well. What is not a regular file is replaced. A resume changes
/// nothing here, and the guest then need not touch its file system before it answers.
fn put(path: &Path, text: &str) -> io::Result<()> {
    if read(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let create = || open(File::options().write(true).create(true).mode(0o644), path);
    let mut file = create().or_else(|_| fs::remove_file(path).and_then(|()| create()))?;
    file.write_all(text.as_bytes())?;
    file.set_len(text.len() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_own_name_changes_in_hosts() {
        let first = with_own_name("127.0.0.1 localhost\n::1 ip6-localhost\n", "one");
        assert_eq!(first, "127.0.0.1 localhost\n::1 ip6-localhost\n127.0.1.1\tone\n");
        assert_eq!(with_own_name(&first, "two"), first.replace("one", "two"));
        assert_eq!(with_own_name("", "one"), "127.0.0.1\tlocalhost\n127.0.1.1\tone\n");
    }
}
