//! The programs that the guest has.
//!
//! | command | |
//! |---|---|
//! | `echo`, `true`, `false`, `cat PATH`, `env`, `hostname`, `date +%s`, `sleep SECONDS`, `sync` | as everywhere |
//! | `random` | 64 hexadecimal digits from the random state |
//! | `ticks` | hundredths of a second that the machine ran |
//! | `generation` | the VM's generation id |
//! | `fill START_PAGE PAGES SEED`, `zero START_PAGE PAGES` | writes pages of memory, from page 4864 on |
//! | `sum START_PAGE PAGES` | a checksum of pages of memory |
//! | `reboot` | resets the machine |
//! | `sh -c SCRIPT` | all of these with `;`, `&&`, quotes, `> PATH`, `>> PATH`, and `exit [N]` |
//!
//! Files below /dev/shm are in memory. All others are on the root drive, once `sync` (or a `/prepare`) wrote them.

use std::collections::BTreeMap;
use std::time::Duration;

use super::kernel::Kernel;

/// What a command said and did.
#[derive(Default)]
pub struct Done {
    pub stdout: String,
    pub stderr: String,
    pub code: i32,
    /// It takes so long.
    pub sleep: Duration,
    /// The script ends with it.
    pub exit: bool,
}

const NAMES: &[&str] = &[
    "cat",
    "date",
    "echo",
    "env",
    "false",
    "fill",
    "generation",
    "hostname",
    "random",
    "reboot",
    "sh",
    "sleep",
    "sum",
    "sync",
    "ticks",
    "true",
    "zero",
];

/// The command of this name, which may be a path of where commands are.
pub fn find(cmd: &str) -> Option<&'static str> {
    let name = ["/bin/", "/usr/bin/"].iter().find_map(|folder| cmd.strip_prefix(folder)).unwrap_or(cmd);
    NAMES.iter().find(|known| **known == name).copied()
}

/// Runs any command but `sh`; `name` is one that `find` found, or `exit`.
pub fn run(kernel: &mut Kernel, name: &str, args: &[String], env: &BTreeMap<String, String>) -> Done {
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match (name, args.as_slice()) {
        ("echo", words) => said(words.join(" ")),
        ("true", _) => Done::default(),
        ("false", _) => Done { code: 1, ..Done::default() },
        ("exit", []) => Done { exit: true, ..Done::default() },
        ("exit", [code]) => Done { exit: true, code: code.parse().unwrap_or(2), ..Done::default() },
        ("env", []) => {
            said(env.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join("\n"))
        }
        ("hostname", []) => {
            said(kernel.facts().identity.and_then(|it| it.hostname).unwrap_or("localhost".into()))
        }
        ("date", ["+%s"]) => said((kernel.clock_ms() / 1000).to_string()),
        ("cat", paths) => cat(kernel, paths),
        ("sync", []) => sync(kernel)
            .map_or_else(|why| failed(format!("sync: error syncing: {why}")), |()| Done::default()),
        ("sleep", [seconds]) => {
            match seconds.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()) {
                Some(sleep) => Done { sleep, ..Done::default() },
                None => failed(format!("sleep: invalid time interval '{seconds}'")),
            }
        }
        ("random", []) => said(kernel.random().iter().map(|word| format!("{word:016x}")).collect()),
        ("ticks", []) => said(kernel.ticks().to_string()),
        ("generation", []) => said(format!("{:032x}", kernel.generation())),
        ("reboot", _) => kernel.reset(),
        ("fill" | "zero" | "sum", _) => pages(kernel, name, &args),
        _ => failed(format!("{name}: wrong usage")),
    }
}

fn said(line: String) -> Done {
    Done { stdout: line + "\n", ..Done::default() }
}

fn failed(line: String) -> Done {
    Done { stderr: line + "\n", code: 1, ..Done::default() }
}

fn pages(kernel: &mut Kernel, name: &str, args: &[&str]) -> Done {
    let numbers: Vec<Option<u64>> = args.iter().map(|arg| arg.parse().ok()).collect();
    let done = match (name, numbers.as_slice()) {
        ("fill", [Some(page), Some(pages), Some(seed)]) => {
            kernel.fill(*page, *pages, *seed).map(|()| Done::default())
        }
        ("zero", [Some(page), Some(pages)]) => kernel.zero(*page, *pages).map(|()| Done::default()),
        ("sum", [Some(page), Some(pages)]) => {
            kernel.sum(*page, *pages).map(|sum| said(format!("{sum:016x}")))
        }
        _ => return failed(format!("{name}: wrong usage")),
    };
    done.unwrap_or_else(|| failed(format!("{name}: no such pages")))
}

const SHM: &str = "/dev/shm/";

fn cat(kernel: &mut Kernel, paths: &[&str]) -> Done {
    let mut done = Done::default();
    for path in paths {
        match read(kernel, path) {
            Ok(Some(text)) => done.stdout.push_str(&text),
            Ok(None) => done.stderr.push_str(&format!("cat: {path}: No such file or directory\n")),
            Err(error) => done.stderr.push_str(&format!("cat: {path}: {error}\n")),
        }
    }
    done.code = i32::from(!done.stderr.is_empty());
    done
}

fn read(kernel: &mut Kernel, path: &str) -> std::io::Result<Option<String>> {
    let mut facts = kernel.facts();
    let path = absolute(path);
    if path.starts_with(SHM) {
        return Ok(facts.shm.remove(&path));
    }
    match facts.unsynced.remove(&path) {
        Some(text) => Ok(Some(text)),
        None => kernel.root.read(&path),
    }
}

/// Errors are a message.
pub fn write(kernel: &mut Kernel, path: &str, text: &str, append: bool) -> Result<(), String> {
    let failed = |why: &str| format!("cannot create {path}: {why}");
    let before = if append { read(kernel, path).map_err(|error| failed(&error.to_string()))? } else { None };
    let text = before.unwrap_or_default() + text;
    let mut facts = kernel.facts();
    let path_in_guest = absolute(path);
    let files = if path_in_guest.starts_with(SHM) { &mut facts.shm } else { &mut facts.unsynced };
    files.insert(path_in_guest, text);
    kernel.set_facts(&facts).then_some(()).ok_or_else(|| failed("No space left on device"))
}

/// Writes to the root drive what only memory has; without a drive memory keeps it. Errors are a message.
pub fn sync(kernel: &mut Kernel) -> Result<(), String> {
    let mut facts = kernel.facts();
    if facts.unsynced.is_empty() {
        return Ok(());
    }
    if kernel.root.write(facts.unsynced.iter()).map_err(|error| error.to_string())? {
        facts.unsynced.clear();
        kernel.set_facts(&facts);
    }
    Ok(())
}

fn absolute(path: &str) -> String {
    if path.starts_with('/') { path.into() } else { format!("/root/{path}") }
}
