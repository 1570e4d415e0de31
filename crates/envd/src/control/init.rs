//! `POST /init`: the identity of a VM that was booted or restored. Everything is applied before any process of the
//! VM's users runs again, and before port 49983 answers.

use std::collections::BTreeMap;
use std::io::ErrorKind;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper::{Response, StatusCode};
use serde::Deserialize;

use super::{explain, timestamp};
use crate::agent::Agent;
use crate::body::{self, Body};
use crate::http_error::HttpError;
use crate::identity::Identity;
use crate::kernel::{self, Timestamp};

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Init {
    /// Grows with each start of the VM. One that is not above the last changes nothing.
    counter: u64,
    /// RFC 3339.
    timestamp: String,
    /// The same in microseconds since 1970: what a guest that wakes up reads in fewer steps.
    unix_us: Option<u64>,
    /// 64 bytes in base64.
    entropy: String,
    sandbox_id: String,
    template_id: String,
    access_token: Option<String>,
    env_vars: Option<BTreeMap<String, String>>,
    hostname: Option<String>,
    machine_id: Option<String>,
    default_user: Option<String>,
    default_workdir: Option<String>,
    /// As in `/prepare`.
    sequence: Option<u64>,
}

/// 204, or 400 for a body that makes no sense; after 500 the VM stays closed and frozen.
pub async fn init(agent: &Agent, init: Init) -> Result<Response<Body>, HttpError> {
    let mut undone = agent.transition.lock().await;
    *undone = (*undone).max(init.sequence.unwrap_or(0));
    if agent.identity().counter.is_some_and(|last| init.counter <= last) {
        return Ok(body::empty(StatusCode::NO_CONTENT));
    }
    let told = Told::of(&init, &agent.identity())?;
    agent.gate.renew();
    take_on(agent, &init, &told)?;
    agent.set_identity(identity(init));
    if let Some(cgroup) = &agent.cgroup {
        cgroup.thaw().map_err(explain("thaw"))?;
    }
    agent.gate.open();
    Ok(body::empty(StatusCode::NO_CONTENT))
}

/// What of an identity had to be read.
pub struct Told {
    time: Timestamp,
    entropy: [u8; 64],
}

impl Told {
    /// 400 for an identity that makes no sense. What is as `before` was found good then.
    pub fn of(init: &Init, before: &Identity) -> Result<Told, HttpError> {
        let time = timestamp(&init.timestamp, init.unix_us)?;
        let entropy = BASE64_STANDARD.decode(&init.entropy).ok().and_then(|bytes| bytes.try_into().ok());
        let entropy = entropy.ok_or_else(|| HttpError::bad_request("entropy is not 64 bytes in base64"))?;
        if init.hostname != before.hostname
            && init.hostname.as_deref().is_some_and(|name| !kernel::is_hostname(name))
        {
            return Err(HttpError::bad_request("hostname is not a host name"));
        }
        if init.machine_id != before.machine_id
            && init.machine_id.as_deref().is_some_and(|id| !kernel::is_machine_id(id))
        {
            return Err(HttpError::bad_request("machineId is not 32 hexadecimal digits"));
        }
        Ok(Told { time, entropy })
    }
}

/// Tells the kernel and writes the files.
pub fn take_on(agent: &Agent, init: &Init, Told { time, entropy }: &Told) -> Result<(), HttpError> {
    // A VM that wakes up as itself has its name: nothing is touched that need not be.
    let before = agent.identity();
    let hostname = init.hostname.as_deref().filter(|name| before.hostname.as_deref() != Some(name));
    let machine_id = init.machine_id.as_deref().filter(|id| before.machine_id.as_deref() != Some(id));
    if !agent.args.dev {
        let random = agent.random.as_ref().ok_or_else(|| explain("entropy")(ErrorKind::NotFound.into()))?;
        kernel::add_entropy(random, entropy).map_err(explain("entropy"))?;
        kernel::set_clock(*time).map_err(explain("clock"))?;
        if let Some(name) = hostname {
            rustix::system::sethostname(name.as_bytes()).map_err(|e| explain("hostname")(e.into()))?;
        }
    }
    kernel::write_identity_files(&agent.args.root, hostname, machine_id);
    Ok(())
}

/// What the agent is told by it.
pub fn identity(init: Init) -> Identity {
    let mut env = init.env_vars.unwrap_or_default();
    env.insert("E2B_SANDBOX".into(), "true".into());
    env.insert("E2B_SANDBOX_ID".into(), init.sandbox_id);
    env.insert("E2B_TEMPLATE_ID".into(), init.template_id);
    let some = |text: Option<String>| text.filter(|text| !text.is_empty());
    Identity {
        counter: Some(init.counter),
        token: some(init.access_token),
        env,
        default_user: some(init.default_user),
        default_workdir: some(init.default_workdir),
        hostname: init.hostname,
        machine_id: init.machine_id,
    }
}
