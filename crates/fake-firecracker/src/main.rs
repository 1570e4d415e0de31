//! A stand-in for Firecracker, for tests on machines without KVM: the same API, texts, exit codes and quirks on a Unix
//! socket, over guest memory that is really mapped, and really faulted in through userfaultfd.
//!
//! There is no processor. The "guest" is a thread that keeps everything it knows inside guest memory and on its root
//! drive, answers on the network as a guest agent does, and runs a few commands of its own (see `guest/command.rs`):
//! what it says after a restore proves or disproves the way its memory and disk took.
//!
//! `--version` names 1.17.0-dev, or what `FAKE_FIRECRACKER_VERSION` says; fields and paths that are newer than that
//! version are unknown.
//!
//! A file `faults.json` beside the API socket makes it misbehave. It is read at the start and at each snapshot/load
//! and snapshot/create; all fields are optional:
//!
//! | field | |
//! |---|---|
//! | `version` | the version to be, as above (goes before the environment; read at the start only) |
//! | `die_in_load` | true: ends in the middle of snapshot/load, after the handshake, without an answer |
//! | `fail_load` | snapshot/load fails with this text, after the handshake, and with it the process |
//! | `hang_in_load` | true: snapshot/load never returns, after the handshake |
//! | `hang_on` | `"METHOD /path"`: this call never returns, and with it the whole API |
//! | `slow_ms` | `{"METHOD /path": ms}`: these calls take so much longer |
//! | `fail_create` | snapshot/create fails with this text, before it writes anything |
//! | `no_space` | true: snapshot/create fails when half of the memory file is written |
//! | `silent_tap` | true: the guest hears and says nothing on its network |
//! | `never_answer_init` | true: the guest takes `/init` and does not answer |
//! | `exit_after_ms` | ends by itself so long after the file was read |
//! | `exit_code` | what `exit_after_ms` and `die_in_load` end with (default 1) |

mod api;
mod args;
mod devices;
mod dirty_pages;
mod dump;
mod faults;
mod guest;
mod guest_memory;
mod handshake;
mod http;
mod refusal;
mod state_file;
mod tap;
mod uffd;
mod version;
mod vmm;

use std::os::unix::net::UnixListener;
use std::process::ExitCode;

use args::{Args, Order};
use devices::observe::Serial;
use version::Version;
use vmm::Vmm;

const EXIT_BAD_ARGUMENTS: u8 = 153;
const EXIT_PANIC: i32 = 101;

fn main() -> ExitCode {
    let report = std::panic::take_hook();
    // A machine that lost a part of itself proves nothing.
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::exit(EXIT_PANIC);
    }));
    match Args::parse(std::env::args().skip(1)) {
        Ok(Order::Serve(args)) => serve(args),
        Ok(Order::Version) => {
            show(Version::of_environment().map(|version| format!("Firecracker v{version}")))
        }
        Ok(Order::SnapshotVersion) => show(Ok(state_file::FORMAT_VERSION.into())),
        Ok(Order::DescribeSnapshot(path)) => show(state_file::describe(&path)),
        Err(text) => {
            eprintln!("Arguments parsing error: {text} \n\nFor more information try --help.");
            ExitCode::from(EXIT_BAD_ARGUMENTS)
        }
    }
}

/// Prints a version, with a line of the log behind it as the real one does.
fn show(version: Result<String, String>) -> ExitCode {
    match version {
        Ok(version) => {
            Serial::Stdout.print(&format!("{version}\n"));
            log("Firecracker exiting successfully. exit_code=0");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("Error: {text}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Args) -> ExitCode {
    let vmm = match Vmm::new(&args) {
        Ok(vmm) => vmm,
        Err(text) => {
            eprintln!("Error: {text}");
            return ExitCode::FAILURE;
        }
    };
    log(&format!("Running Firecracker v{}", vmm.version));
    let path = args.api_socket.display();
    let Ok(listener) = UnixListener::bind(&args.api_socket) else {
        log(&format!(
            "RunWithApiError error: Failed to open the API socket at: {path}. Check that it is not already used."
        ));
        Serial::Stdout.print(&format!("Error: RunWithApi(FailedToBindSocket(\"{path}\"))\n"));
        return ExitCode::FAILURE;
    };
    let code = api::serve(&listener, vmm, args.body_bytes_max);
    log(&format!("Firecracker exiting. exit_code={code}"));
    ExitCode::from(code)
}

/// A line of the VMM's own log, which goes where the guest's console goes as well.
fn log(line: &str) {
    Serial::Stdout.print(&format!("[fake-firecracker:main] {line}\n"));
}
