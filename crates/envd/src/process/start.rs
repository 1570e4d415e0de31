//! `Start`: runs a program and streams what it does.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use hyper::body::Incoming;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::Answer;
use super::events::Events;
use super::launch::{Launch, Launched, Stdio, launch};
use super::output::{self, Output};
use super::table::Process;
use super::terminal::Pty;
use crate::agent::Agent;
use crate::caller;
use crate::cgroup::Cgroup;
use crate::files::path::resolve;
use crate::gate::Rehearsal;
use crate::rpc::{self, Code, RpcError, or_default};
use crate::task;
use crate::user::User;

#[derive(Debug, Default, Deserialize, Serialize)]
pub struct Config {
    #[serde(default, deserialize_with = "or_default")]
    pub cmd: String,
    #[serde(default, deserialize_with = "or_default")]
    pub args: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub envs: BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Request {
    #[serde(default, deserialize_with = "or_default")]
    process: Config,
    pty: Option<Pty>,
    tag: Option<String>,
    stdin: Option<bool>,
}

const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

pub async fn start(agent: Arc<Agent>, request: &mut hyper::Request<Incoming>) -> Answer {
    let user = caller::user(&agent, request)?;
    let deadline = rpc::timeout(request.headers())?.map(|limit| Instant::now() + limit);
    let life = *agent.gate.life().borrow();
    let headers = request.headers().clone();
    let is_rehearsal = request.extensions().get::<Rehearsal>().is_some();
    let message: Request = rpc::read_stream(request).await?;

    let launch = describe(&agent, &message, user)?;
    let starting = task::spawn(async move {
        let (process, exit) = spawn(&agent, launch, message, deadline, is_rehearsal).await?;
        let mut events = Events::new(process.clone(), &headers, deadline);
        if headers.get("thaw-kill-on-disconnect").is_some_and(|value| value == "1") {
            events = events.kill_when_dropped(agent.clone(), life);
        }
        task::spawn(output::pump(agent, process, exit));
        Ok(events.into_body())
    });
    // A task of its own: a caller who leaves now still leaves a process that is known, or killed as asked.
    starting.await.unwrap_or_else(|error| Err(Code::Internal.error(error.to_string())))
}

async fn spawn(
    agent: &Arc<Agent>,
    launch: Launch,
    message: Request,
    deadline: Option<Instant>,
    is_rehearsal: bool,
) -> Result<(Arc<Process>, Output), RpcError> {
    let spawning = agent.clone();
    let spawned = tokio::task::spawn_blocking(move || {
        let cgroup = match is_rehearsal {
            true => spawning.rehearsal_cgroup.get().and_then(Option::as_ref),
            false => spawning.cgroup.as_ref(),
        };
        launch_checked(&launch, cgroup.map(Cgroup::procs))
    });
    let launched = spawned.await.unwrap_or_else(|error| Err(Code::Internal.error(error.to_string())))?;
    let (process, output) = output::adopt(launched, message.process, message.tag, deadline);
    agent.processes.insert(&process);
    Ok((process, output))
}

fn describe(agent: &Agent, message: &Request, user: User) -> Result<Launch, RpcError> {
    let config = &message.process;
    let identity = agent.identity();
    if config.cmd.is_empty() {
        return Err(Code::InvalidArgument.error("process.cmd is empty"));
    }
    let cwd = resolve(config.cwd.as_deref().unwrap_or(""), &user, identity.default_workdir.as_deref())
        .map_err(|message| Code::InvalidArgument.error(message))?;
    let mut env: BTreeMap<String, String> = BTreeMap::from([
        ("PATH".into(), std::env::var("PATH").ok().filter(|path| !path.is_empty()).unwrap_or(PATH.into())),
        ("HOME".into(), user.home.to_string_lossy().into_owned()),
        ("USER".into(), user.name.clone()),
        ("LOGNAME".into(), user.name.clone()),
    ]);
    if message.pty.is_some() {
        env.insert("TERM".into(), "xterm-256color".into());
    }
    for (name, value) in identity.env.iter().chain(&config.envs) {
        if name.is_empty() || name.contains(['=', '\0']) || value.contains('\0') {
            return Err(Code::InvalidArgument.error(format!("bad environment variable {name:?}")));
        }
        env.insert(name.clone(), value.clone());
    }
    if config.cmd.contains('\0') || config.args.iter().any(|arg| arg.contains('\0')) {
        return Err(Code::InvalidArgument.error("the command has a zero byte"));
    }
    let (cmd, args) = (config.cmd.clone(), config.args.clone());
    let stdio = match message.pty {
        Some(pty) => Stdio::Terminal(pty.size.unwrap_or_default()),
        None => Stdio::Pipes { stdin: message.stdin.unwrap_or(true) },
    };
    Ok(Launch { cmd, args, env, cwd, user, stdio })
}

fn launch_checked(
    request: &Launch,
    cgroup: Option<std::os::fd::BorrowedFd<'_>>,
) -> Result<Launched, RpcError> {
    let cwd = request.cwd.display();
    match std::fs::metadata(&request.cwd) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(Code::InvalidArgument.error(format!("cwd '{cwd}' is not a directory"))),
        Err(_) => return Err(Code::InvalidArgument.error(format!("cwd '{cwd}' does not exist"))),
    }
    launch(request, cgroup).map_err(|error| {
        let cmd = &request.cmd;
        match error.kind() {
            io::ErrorKind::NotFound => Code::InvalidArgument.error(format!("command '{cmd}' not found")),
            io::ErrorKind::PermissionDenied => Code::InvalidArgument
                .error(format!("user '{}' may not run '{cmd}' in '{cwd}'", request.user.name)),
            io::ErrorKind::OutOfMemory | io::ErrorKind::WouldBlock => {
                Code::ResourceExhausted.error(format!("'{cmd}' cannot be started: {error}"))
            }
            _ => Code::InvalidArgument.error(format!("'{cmd}' cannot be started: {error}")),
        }
    })
}
