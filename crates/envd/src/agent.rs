//! What every request sees: who the VM is, its processes, and whether anyone may ask at all.

use std::fs::File;
use std::sync::{Arc, Mutex, OnceLock};

use crate::args::Args;
use crate::cgroup::Cgroup;
use crate::files::Turns;
use crate::filesystem::Watchers;
use crate::gate::Gate;
use crate::identity::{Identity, Memo};
use crate::kernel;
use crate::metrics::Cpu;
use crate::process::Processes;
use crate::user::{User, Users};

pub struct Agent {
    pub args: Args,
    pub gate: Gate,
    pub processes: Processes,
    pub uploads: Turns,
    pub watchers: Watchers,
    /// None where the kernel has no cgroup v2: then nothing is ever frozen.
    pub cgroup: Option<Cgroup>,
    /// From the first rehearsal on.
    pub rehearsal_cgroup: OnceLock<Option<Cgroup>>,
    pub cpu: Mutex<Cpu>,
    users: Users,
    /// Held open for `/init`.
    pub random: Option<File>,
    memo: Option<Memo>,
    identity: Mutex<Arc<Identity>>,
    /// One `/init`, `/prepare` or `/thaw` at a time.
    /// The number of the last `/thaw` or `/init`: a `/prepare` numbered below it comes too late and is passed over.
    pub transition: tokio::sync::Mutex<u64>,
}

impl Agent {
    pub fn new(args: Args) -> Agent {
        let cgroup = args.cgroup.as_deref().and_then(|path| {
            Cgroup::open(path)
                .inspect_err(|error| eprintln!("thaw-envd: no freezing, {}: {error}", path.display()))
                .ok()
        });
        // After a crash of the agent; one in the middle of a snapshot is thawed by the host first.
        let memo = Memo::open(&args.root)
            .inspect_err(|error| eprintln!("thaw-envd: an identity will not be kept: {error}"))
            .ok();
        let recalled = memo.as_ref().and_then(Memo::recall);
        let frozen = cgroup.as_ref().is_some_and(Cgroup::is_freezing);
        Agent {
            gate: Gate::new(args.open || recalled.is_some() && !frozen),
            args,
            processes: Processes::default(),
            uploads: Turns::default(),
            watchers: Watchers::default(),
            cgroup,
            rehearsal_cgroup: OnceLock::new(),
            cpu: Mutex::default(),
            users: Users::default(),
            random: kernel::random().ok(),
            memo,
            identity: Mutex::new(Arc::new(recalled.unwrap_or_default())),
            transition: tokio::sync::Mutex::default(),
        }
    }

    pub fn identity(&self) -> Arc<Identity> {
        self.identity.lock().unwrap().clone()
    }

    pub fn set_identity(&self, identity: Identity) {
        if let Some(Err(error)) = self.memo.as_ref().map(|memo| memo.write(&identity, &self.identity())) {
            eprintln!("thaw-envd: the identity is not kept: {error}");
        }
        *self.identity.lock().unwrap() = Arc::new(identity);
    }

    /// All that `set_identity` does but the change.
    pub fn rehearse_identity(&self, identity: &Identity) {
        // One that somebody has must not be lost, whatever happens to the agent meanwhile.
        if self.identity().counter.is_none()
            && let Some(Err(error)) = self.memo.as_ref().map(|memo| memo.rehearse(identity))
        {
            eprintln!("thaw-envd: an identity could not be kept: {error}");
        }
    }

    /// The user with this name, or the default one when `name` is empty. `Err` is the name that nobody has.
    pub fn user(&self, name: &str) -> Result<User, String> {
        let identity = self.identity();
        let name = match name {
            "" => identity.default_user.as_deref().unwrap_or("root"),
            name => name,
        };
        self.users.find(name).ok_or_else(|| name.to_string())
    }
}
