//! The operations, one newline-terminated JSON object each:
//! request `{"id":n,"op":"…",…}`, answer `{"id":n,"ok":true,"result":…}` or
//! `{"id":n,"ok":false,"error":{"kind","message"}}`. Requests may overlap; answers come in the order of completion.
//!
//! | op | fields | result |
//! |---|---|---|
//! | `jail` | `JailSpec` | `{}` |
//! | `spawn` | `role` + `ChildSpec` | `{pid, start_time}` |
//! | `ask` | role, request, fds, timeout_ms | the child's result |
//! | `run` | `ChildSpec` + timeout_ms | `{code, signal, output}` |
//! | `receive` | socket, file, uid | `{}` once it listens |
//! | `received` | timeout_ms | `{size_bytes}` once the stream has ended |
//! | `wait` | role, timeout_ms | `{code, signal}` |
//! | `signal` | role, signal (`KILL`, `TERM`, `STOP`, `CONT`) | `{}` |
//! | `logs` | role | `{text, dropped_bytes}` |
//! | `status` | | `{pid, roles: {role: {pid, start_time, running, exit}}, kept: [name]}` |
//! | `end` | | `{}`, then the keeper leaves |
//!
//! Events, to every connection: `{"event":"exit","role","code","signal"}` and
//! `{"event":"child","role","body"}`.

use std::collections::BTreeMap;

use rustix::process::{Resource, Signal};
use rustix::thread::CapabilitySet;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use thaw_control::ControlError;

use crate::source::{Inherited, Source};

pub struct Request {
    pub id: Value,
    pub op: String,
    body: Value,
}

impl Request {
    pub fn parse(line: &[u8]) -> Result<Self, ControlError> {
        let value: Value =
            serde_json::from_slice(line).map_err(|error| ControlError::invalid(error.to_string()))?;
        let Value::Object(mut object) = value else {
            return Err(ControlError::invalid("a request is a JSON object"));
        };
        let id = object.remove("id").unwrap_or(Value::Null);
        let Some(Value::String(op)) = object.remove("op") else {
            return Err(ControlError::invalid("a request has an op"));
        };
        Ok(Self { id, op, body: Value::Object(object) })
    }

    pub fn body<T: DeserializeOwned>(&mut self) -> Result<T, ControlError> {
        serde_json::from_value(self.body.take())
            .map_err(|error| ControlError::invalid(format!("{}: {error}", self.op)))
    }
}

#[derive(Clone, Copy, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
pub enum Root {
    Jail,
    Host,
}

#[derive(Deserialize)]
pub struct ChildSpec {
    pub argv: Vec<String>,
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    pub uid: u32,
    pub gid: u32,
    #[serde(default)]
    pub caps: Vec<Capability>,
    pub root: Root,
    /// A jailer of the VMM's own: it stays root with all of root's rights, and gives them up before it becomes the VMM.
    #[serde(default)]
    pub jailer: bool,
    /// Path of a network namespace.
    pub netns: Option<String>,
    #[serde(default)]
    pub fds: Vec<Inherited>,
    /// Give the child a control channel as descriptor 3.
    #[serde(default)]
    pub control: bool,
    pub nice: Option<i32>,
    #[serde(default)]
    pub rlimits: Rlimits,
    #[serde(default = "default_log_bytes")]
    pub log_bytes: usize,
}

const LOG_BYTES_MAX: usize = 16 << 20;

fn default_log_bytes() -> usize {
    64 << 10
}

impl ChildSpec {
    pub fn check(&self) -> Result<(), ControlError> {
        if self.argv.first().is_none_or(|program| !program.starts_with('/')) {
            return Err(ControlError::invalid("argv: the program is an absolute path"));
        }
        let strings = self.argv.iter().chain(self.env.keys()).chain(self.env.values());
        if strings.into_iter().any(|text| text.contains('\0')) || self.env.keys().any(|key| key.contains('='))
        {
            return Err(ControlError::invalid("argv, env: NUL, or = in a name"));
        }
        if self.log_bytes > LOG_BYTES_MAX {
            return Err(ControlError::invalid(format!("log_bytes: at most {LOG_BYTES_MAX}")));
        }
        let first = if self.control { 4 } else { 3 };
        let mut numbers: Vec<i32> = self.fds.iter().map(|fd| fd.number).collect();
        numbers.sort_unstable();
        let fits = numbers.iter().all(|number| (first..crate::exec::CHILD_FDS_END).contains(number));
        if !fits || numbers.windows(2).any(|pair| pair[0] == pair[1]) {
            let last = crate::exec::CHILD_FDS_END - 1;
            return Err(ControlError::invalid(format!(
                "fds: each `as` is used once, from 3 (4 with control) to {last}"
            )));
        }
        Ok(())
    }
}

/// The only capability any child ever needs: the pager reads its VMM's memory.
#[derive(Clone, Copy, Deserialize)]
pub enum Capability {
    #[serde(rename = "SYS_PTRACE")]
    SysPtrace,
}

impl Capability {
    pub fn set(list: &[Self]) -> CapabilitySet {
        list.iter().fold(CapabilitySet::empty(), |set, capability| match capability {
            Self::SysPtrace => set | CapabilitySet::SYS_PTRACE,
        })
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rlimits {
    nofile: Option<u64>,
    fsize: Option<u64>,
    nproc: Option<u64>,
    memlock: Option<u64>,
    #[serde(rename = "as")]
    address_space: Option<u64>,
}

impl Rlimits {
    /// A core file would hold guest memory, so there is never one.
    pub fn list(&self) -> Vec<(Resource, u64)> {
        let chosen = [
            (Resource::Nofile, self.nofile),
            (Resource::Fsize, self.fsize),
            (Resource::Nproc, self.nproc),
            (Resource::Memlock, self.memlock),
            (Resource::As, self.address_space),
        ];
        let mut list = vec![(Resource::Core, 0)];
        list.extend(chosen.into_iter().filter_map(|(resource, limit)| Some((resource, limit?))));
        list
    }
}

#[derive(Deserialize)]
pub struct Spawn {
    pub role: String,
    #[serde(flatten)]
    pub child: ChildSpec,
}

#[derive(Deserialize)]
pub struct Run {
    pub timeout_ms: u64,
    #[serde(flatten)]
    pub child: ChildSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ask {
    pub role: String,
    pub request: serde_json::Map<String, Value>,
    #[serde(default)]
    pub fds: Vec<Source>,
    pub timeout_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Receive {
    pub socket: String,
    pub file: String,
    pub uid: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Received {
    pub timeout_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    pub role: String,
    pub timeout_ms: u64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Role {
    pub role: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    pub role: String,
    pub signal: SignalName,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum SignalName {
    Kill,
    Term,
    Stop,
    Cont,
}

impl SignalName {
    pub fn signal(self) -> Signal {
        match self {
            Self::Kill => Signal::KILL,
            Self::Term => Signal::TERM,
            Self::Stop => Signal::STOP,
            Self::Cont => Signal::CONT,
        }
    }
}
