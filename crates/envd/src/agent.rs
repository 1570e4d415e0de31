//! What every request sees: who the VM is, its processes, and whether anyone may ask at all.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use crate::args::Args;
use crate::cgroup::Cgroup;
use crate::gate::Gate;
use crate::metrics::Cpu;
use crate::process::Processes;
use crate::user::User;

/// What `/init` gave the VM. Replaced as a whole, so a request sees one identity from its start to its end.
#[derive(Debug, Default)]
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

pub struct Agent {
    pub args: Args,
    pub gate: Gate,
    pub processes: Processes,
    /// None where the kernel has no cgroup v2: then nothing is ever frozen.
    pub cgroup: Option<Cgroup>,
    pub cpu: Mutex<Cpu>,
    identity: Mutex<Arc<Identity>>,
    /// One `/init`, `/prepare` or `/thaw` at a time.
    pub transition: tokio::sync::Mutex<()>,
}

impl Agent {
    pub fn new(args: Args) -> Agent {
        let cgroup = args.cgroup.as_deref().and_then(|path| {
            Cgroup::open(path)
                .inspect_err(|error| eprintln!("thaw-envd: no freezing, {}: {error}", path.display()))
                .ok()
        });
        Agent {
            gate: Gate::new(args.open),
            args,
            processes: Processes::default(),
            cgroup,
            cpu: Mutex::default(),
            identity: Mutex::default(),
            transition: tokio::sync::Mutex::default(),
        }
    }

    pub fn identity(&self) -> Arc<Identity> {
        self.identity.lock().unwrap().clone()
    }

    pub fn set_identity(&self, identity: Identity) {
        *self.identity.lock().unwrap() = Arc::new(identity);
    }

    /// The user with this name, or the default one when `name` is empty. `Err` is the name that nobody has.
    pub fn user(&self, name: &str) -> Result<User, String> {
        let identity = self.identity();
        let name = match name {
            "" => identity.default_user.as_deref().unwrap_or("root"),
            name => name,
        };
        User::find(name).ok_or_else(|| name.to_string())
    }
}
