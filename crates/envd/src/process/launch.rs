//! From a request to a running program with its pipes or its terminal.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::pipe::{PipeFlags, pipe_with};
use tokio::net::unix::pipe::{Receiver, Sender};

use super::spawn::{Child, Plan, spawn};
use super::terminal::{self, Size};
use crate::user::User;

pub struct Launch {
    pub cmd: String,
    pub args: Vec<String>,
    pub env: BTreeMap<String, String>,
    pub cwd: PathBuf,
    pub user: User,
    pub stdio: Stdio,
}

#[derive(Clone, Copy)]
pub enum Stdio {
    /// Output by two pipes; input by a third, or /dev/null.
    Pipes {
        stdin: bool,
    },
    Terminal(Size),
}

pub struct Launched {
    pub child: Child,
    pub input: Option<Sender>,
    /// Standard output, or what the terminal shows.
    pub output: Receiver,
    pub stderr: Option<Receiver>,
    pub terminal: Option<OwnedFd>,
}

/// Blocks until the program was executed, or failed to.
pub fn launch(request: &Launch, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Launched> {
    match request.stdio {
        Stdio::Pipes { stdin } => {
            let (output, stdout) = pipe_with(PipeFlags::CLOEXEC)?;
            let (errors, stderr) = pipe_with(PipeFlags::CLOEXEC)?;
            let (stdin, input) = match stdin {
                true => pipe_with(PipeFlags::CLOEXEC).map(|(stdin, input)| (stdin, Some(input)))?,
                false => (File::open("/dev/null")?.into(), None),
            };
            let input = input.map(Sender::from_owned_fd).transpose()?;
            let (output, errors) = (Receiver::from_owned_fd(output)?, Receiver::from_owned_fd(errors)?);
            let stdio = [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()];
            let child = spawn(&plan(request, stdio, false, cgroup)?)?;
            Ok(Launched { child, input, output, stderr: Some(errors), terminal: None })
        }
        Stdio::Terminal(size) => {
            let (agent, program) = terminal::open(size, &request.user)?;
            // The two know pipes only by their names: reading, writing and waiting are those of any file.
            let input = Sender::from_owned_fd_unchecked(agent.try_clone()?)?;
            let output = Receiver::from_owned_fd_unchecked(agent.try_clone()?)?;
            let child = spawn(&plan(request, [program.as_fd(); 3], true, cgroup)?)?;
            Ok(Launched { child, input: Some(input), output, stderr: None, terminal: Some(agent) })
        }
    }
}

fn plan<'a>(
    request: &'a Launch,
    [stdin, stdout, stderr]: [BorrowedFd<'a>; 3],
    has_terminal: bool,
    cgroup: Option<BorrowedFd<'a>>,
) -> io::Result<Plan<'a>> {
    let mut argv = vec![CString::new(request.cmd.as_str())?];
    for arg in &request.args {
        argv.push(CString::new(arg.as_str())?);
    }
    let env: Result<Vec<CString>, _> =
        request.env.iter().map(|(name, value)| CString::new(format!("{name}={value}"))).collect();
    Ok(Plan {
        programs: programs(request)?,
        argv,
        env: env?,
        cwd: CString::new(request.cwd.as_os_str().as_bytes())?,
        user: &request.user,
        stdin,
        stdout,
        stderr,
        has_terminal,
        cgroup,
    })
}

/// The files that a command may mean: itself if it has a slash, else one in the directories of the program's PATH.
fn programs(request: &Launch) -> io::Result<Vec<CString>> {
    if request.cmd.contains('/') {
        return Ok(vec![CString::new(request.cmd.as_str())?]);
    }
    let directories = request.env.get("PATH").map(String::as_str).unwrap_or_default().split(':');
    // An empty one is the working directory.
    let found = directories.map(|directory| match directory {
        "" => Path::new(".").join(&request.cmd),
        directory => Path::new(directory).join(&request.cmd),
    });
    Ok(found.map(|path| CString::new(path.as_os_str().as_bytes())).collect::<Result<_, _>>()?)
}
