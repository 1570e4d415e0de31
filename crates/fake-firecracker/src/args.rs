//! The command line.

use std::path::PathBuf;

/// What the program is to do.
pub enum Order {
    Serve(Args),
    Version,
    SnapshotVersion,
    DescribeSnapshot(PathBuf),
}

pub struct Args {
    pub api_socket: PathBuf,
    pub id: String,
    pub pci: bool,
    pub body_bytes_max: usize,
    /// As of PUT /metrics.
    pub metrics_path: Option<PathBuf>,
}

const BODY_BYTES_MAX: usize = 51_200;

impl Args {
    /// Errors are for the terminal.
    pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Order, String> {
        let mut args = Args {
            api_socket: "/run/firecracker.socket".into(),
            id: "anonymous-instance".into(),
            pci: false,
            body_bytes_max: BODY_BYTES_MAX,
            metrics_path: None,
        };
        while let Some(word) = words.next() {
            let mut value = || {
                words.next().ok_or(format!("The argument '{word}' requires a value, but none was supplied."))
            };
            match word.as_str() {
                "--version" => return Ok(Order::Version),
                "--snapshot-version" => return Ok(Order::SnapshotVersion),
                "--describe-snapshot" => return Ok(Order::DescribeSnapshot(value()?.into())),
                "--api-sock" => args.api_socket = value()?.into(),
                "--id" => args.id = checked_id(value()?)?,
                "--http-api-max-payload-size" => {
                    let text = value()?;
                    args.body_bytes_max =
                        text.parse().map_err(|_| format!("Invalid value '{text}' for '{word}'."))?;
                }
                "--metrics-path" => args.metrics_path = Some(value()?.into()),
                "--log-path" | "--level" | "--module" => drop(value()?),
                // From a jailer.
                "--start-time-us" | "--start-time-cpu-us" | "--parent-cpu-time-us" => drop(value()?),
                "--enable-pci" => args.pci = true,
                "--no-seccomp" | "--boot-timer" | "--show-level" | "--show-log-origin" => {}
                "--no-api" => {
                    return Err(
                        "The argument '--no-api' is not supported by this stand-in: it is its API.".into()
                    );
                }
                _ => {
                    return Err(format!(
                        "Found argument '{word}' which wasn't expected, or isn't valid in this context."
                    ));
                }
            }
        }
        Ok(Order::Serve(args))
    }
}

/// An instance's id takes `-` and not `_`; ids in the API are the other way round.
fn checked_id(id: String) -> Result<String, String> {
    let valid = (1..=64).contains(&id.len()) && id.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    valid.then_some(id).ok_or("Invalid instance ID: only letters, digits and '-', 1 to 64 of them.".into())
}
