//! The guest agent: runs programs and moves files for the host, inside the VM.
//!
//! Two ports. 49983 speaks the E2B guest protocol (Connect with JSON, and plain HTTP for files); it is closed until
//! the host has given the VM an identity. 49982 is the host's alone: identity after a boot or a restore, freezing
//! before a snapshot. One thread, and nothing that ticks: an idle agent dirties no memory.

mod agent;
mod args;
mod body;
mod caller;
mod cgroup;
mod control;
mod files;
mod filesystem;
mod gate;
mod guest;
mod http_error;
mod identity;
mod kernel;
mod listen;
mod loopback;
mod metrics;
mod process;
mod readable;
mod rpc;
mod task;
mod token;
mod user;

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use agent::Agent;
use args::Args;
use loopback::Outside;

/// The C library's maps and unmaps memory for almost every request, and each new page of an emulated guest is a fault.
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

const KEEP_ALIVE: Duration = Duration::from_secs(24 * 3600);

fn main() -> ExitCode {
    let args = match Args::parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(message) => {
            eprintln!("thaw-envd: {message}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(32)
        // One that waits in a snapshot need not be made again by the first command after it.
        .thread_keep_alive(KEEP_ALIVE)
        .thread_stack_size(256 * 1024)
        .build();
    let result = runtime.and_then(|runtime| runtime.block_on(run(args)));
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("thaw-envd: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Before anyone is served, so that it is in the memory of every VM that is restored.
fn loopback(agent: &Agent, ports: [u16; 2]) -> Option<loopback::Links> {
    let (Some(interface), Some(cgroup)) = (&agent.args.outside, &agent.cgroup) else { return None };
    let names = (!agent.args.dev).then(|| agent.args.root.join("run/thaw/reach"));
    let address = agent.args.control_listen;
    loopback::reach(&Outside { cgroup: cgroup.path(), interface, address, ports, names })
        .inspect_err(|error| eprintln!("thaw-envd: loopback is not reached from outside: {error}"))
        .ok()
}

async fn run(args: Args) -> std::io::Result<()> {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    kernel::protect_from_oom(args.dev);
    if !args.dev {
        kernel::allow_many_connections();
        kernel::allow_many_watches();
    }
    let guest = listen::guest(&args)?;
    let control = listen::control(&args)?;
    // Tests start the agent on ports of the kernel's choice and read them here.
    println!("listening {} {}", guest.local_addr()?.port(), control.local_addr()?.port());

    let _ = tokio::task::spawn_blocking(|| ()).await;
    let ports = [guest.local_addr()?.port(), control.local_addr()?.port()];
    let agent = Arc::new(Agent::new(args));
    let _reached = loopback(&agent, ports);
    let control = task::spawn(control::serve(control, agent.clone()));
    guest::serve(guest, agent).await;
    control.abort();
    Ok(())
}
