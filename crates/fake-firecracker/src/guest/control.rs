//! Port 49982: identity after a boot or a restore, standing still before a snapshot.

use std::collections::BTreeMap;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::clock::parse_ms;
use super::command;
use super::facts::Identity;
use super::kernel::Kernel;
use crate::http::Request;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Init {
    counter: u64,
    timestamp: String,
    entropy: String,
    sandbox_id: String,
    template_id: String,
    access_token: Option<String>,
    env_vars: Option<BTreeMap<String, String>>,
    hostname: Option<String>,
    machine_id: Option<String>,
    default_user: Option<String>,
    default_workdir: Option<String>,
    sequence: Option<u64>,
}

#[derive(Deserialize)]
struct Prepare {
    sequence: Option<u64>,
}

#[derive(Deserialize)]
struct Thaw {
    timestamp: String,
    sequence: Option<u64>,
}

/// A status and a body (null for none).
pub type Answer = (u16, Value);

/// What a request brought about.
pub struct Changed {
    pub answer: Answer,
    /// Connections of the life before must end.
    pub new_life: bool,
}

const ENTROPY_BYTES: usize = 64;

pub fn answer(kernel: &mut Kernel, request: &Request) -> Changed {
    let changed = match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/init") => read(request).and_then(|body| init(kernel, body)),
        ("POST", "/prepare") => read(request).map(|body| same_life(prepare(kernel, &body))),
        ("POST", "/thaw") => read(request).and_then(|body| thaw(kernel, &body)).map(same_life),
        _ => Err(error(404, "no such path")),
    };
    changed.unwrap_or_else(same_life)
}

fn same_life(answer: Answer) -> Changed {
    Changed { answer, new_life: false }
}

pub fn error(status: u16, message: &str) -> Answer {
    (status, json!({ "code": status, "message": message }))
}

fn read<T: DeserializeOwned>(request: &Request) -> Result<T, Answer> {
    serde_json::from_slice(&request.body).map_err(|why| error(400, &format!("bad body: {why}")))
}

/// Once for each counter.
fn init(kernel: &mut Kernel, init: Init) -> Result<Changed, Answer> {
    let mut facts = kernel.facts();
    facts.undone = facts.undone.max(init.sequence.unwrap_or(0));
    if facts.identity.as_ref().is_some_and(|before| init.counter <= before.counter) {
        kernel.set_facts(&facts);
        return Ok(same_life((204, Value::Null)));
    }
    let time_ms = parse_ms(&init.timestamp).ok_or_else(|| error(400, "timestamp is not RFC 3339"))?;
    let entropy = BASE64_STANDARD.decode(&init.entropy).ok().filter(|bytes| bytes.len() == ENTROPY_BYTES);
    let entropy = entropy.ok_or_else(|| error(400, "entropy is not 64 bytes in base64"))?;
    if init.hostname.as_ref().is_some_and(|name| !is_hostname(name)) {
        return Err(error(400, "hostname is not a host name"));
    }
    if init.machine_id.as_ref().is_some_and(|id| !is_machine_id(id)) {
        return Err(error(400, "machineId is not 32 hexadecimal digits"));
    }
    let words: Vec<u64> = entropy.as_chunks::<8>().0.iter().map(|word| u64::from_le_bytes(*word)).collect();
    kernel.stir(&words);
    facts.clock_offset_ms = time_ms - kernel.raw_clock_ms();
    for (path, text) in [("/etc/hostname", &init.hostname), ("/etc/machine-id", &init.machine_id)] {
        if let Some(text) = text {
            facts.unsynced.insert(path.into(), format!("{text}\n"));
        }
    }
    facts.identity = Some(identity(init));
    facts.open = true;
    match kernel.set_facts(&facts) {
        true => Ok(Changed { answer: (204, Value::Null), new_life: true }),
        false => Err(error(500, "init failed")),
    }
}

fn identity(init: Init) -> Identity {
    let mut env = init.env_vars.unwrap_or_default();
    env.insert("E2B_SANDBOX".into(), "true".into());
    env.insert("E2B_SANDBOX_ID".into(), init.sandbox_id);
    env.insert("E2B_TEMPLATE_ID".into(), init.template_id);
    Identity {
        counter: init.counter,
        token: init.access_token.filter(|token| !token.is_empty()),
        env,
        default_user: init.default_user.unwrap_or_default(),
        default_workdir: init.default_workdir.unwrap_or_default(),
        hostname: init.hostname,
        machine_id: init.machine_id,
    }
}

fn is_hostname(name: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '.';
    (1..=64).contains(&name.len()) && name.chars().all(letters) && !name.starts_with(['-', '.'])
}

fn is_machine_id(id: &str) -> bool {
    id.len() == 32 && id.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'))
}

/// Nobody is served, commands stand still, the drive is written.
fn prepare(kernel: &mut Kernel, prepare: &Prepare) -> Answer {
    let mut facts = kernel.facts();
    if prepare.sequence.is_some_and(|sequence| sequence <= facts.undone) {
        return (200, json!({ "frozen": false, "ms": 0 }));
    }
    facts.open = false;
    kernel.set_facts(&facts);
    match command::sync(kernel) {
        Ok(()) => (200, json!({ "frozen": true, "ms": 0 })),
        Err(_) => error(500, "sync failed"),
    }
}

/// The same life goes on; one that never had an identity stays closed.
fn thaw(kernel: &mut Kernel, thaw: &Thaw) -> Result<Answer, Answer> {
    let time_ms = parse_ms(&thaw.timestamp).ok_or_else(|| error(400, "timestamp is not RFC 3339"))?;
    let mut facts = kernel.facts();
    facts.undone = facts.undone.max(thaw.sequence.unwrap_or(0));
    facts.clock_offset_ms = time_ms - kernel.raw_clock_ms();
    facts.open = facts.identity.is_some();
    kernel.set_facts(&facts);
    Ok((204, Value::Null))
}
