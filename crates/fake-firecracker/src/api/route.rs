//! From a method and a path to the verb that does it.

use serde::Deserialize;
use serde_json::Value;

use super::body::parse;
use crate::devices::drive::{Drive, DriveUpdate};
use crate::devices::hotplug::Pmem;
use crate::devices::machine::{Machine, MachineUpdate};
use crate::devices::network::{Network, NetworkUpdate};
use crate::devices::observe::{Logger, Metrics, SerialConfig};
use crate::http::Request;
use crate::refusal::{Outcome, refuse};
use crate::vmm::Vmm;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Action {
    action_type: ActionType,
}

#[derive(Deserialize)]
enum ActionType {
    InstanceStart,
    FlushMetrics,
    SendCtrlAltDel,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Vm {
    state: VmState,
}

#[derive(Deserialize)]
enum VmState {
    Paused,
    Resumed,
}

/// What a GET shows; `None` for what was done.
pub fn route(vmm: &mut Vmm, request: &Request) -> Outcome<Option<Value>> {
    let mut parts = request.path.trim_start_matches('/').split_terminator('/');
    let path = [parts.next(), parts.next(), parts.next()].map(Option::unwrap_or_default);
    if !vmm.version.has_path(path[0]) {
        return unknown(request);
    }
    match (request.method.as_str(), request.body.is_empty()) {
        ("GET", false) => refuse("GET request cannot have a body."),
        ("GET", true) => get(vmm, request, path).map(Some),
        ("PUT", true) => refuse("Empty PUT request."),
        ("PUT", false) => put(vmm, request, path).map(|()| None),
        ("PATCH", true) => refuse("Empty PATCH request."),
        ("PATCH", false) => patch(vmm, request, path).map(|()| None),
        _ => delete(vmm, request, path).map(|()| None),
    }
}

fn get(vmm: &mut Vmm, request: &Request, path: [&str; 3]) -> Outcome<Value> {
    match path {
        ["", _, _] => Ok(vmm.instance()),
        ["version", "", _] => Ok(vmm.firecracker_version()),
        ["vm", "config", _] => Ok(vmm.vm_config()),
        ["machine-config", "", _] => Ok(vmm.machine_config()),
        ["balloon", "", _] => vmm.balloon_config(),
        ["balloon", "statistics", _] => vmm.balloon_statistics(),
        ["hotplug", "memory", _] => vmm.memory_hotplug(),
        ["mmds", "", _] => Ok(vmm.mmds()),
        _ => unknown(request),
    }
}

fn put(vmm: &mut Vmm, request: &Request, path: [&str; 3]) -> Outcome {
    let (version, body) = (vmm.version.clone(), request.body.as_slice());
    let kind = path[0];
    match path {
        ["actions", "", _] => act(vmm, &parse(&version, kind, body)?),
        ["machine-config", "", _] => {
            let machine: Machine = parse(&version, kind, body)?;
            vmm.set_machine(|_| machine)
        }
        ["boot-source", "", _] => vmm.set_boot_source(parse(&version, kind, body)?),
        ["drives", id, _] => {
            let drive: Drive = with_id(id, parse(&version, kind, body), |drive: &Drive| &drive.drive_id)?;
            vmm.put_drive(drive)
        }
        ["network-interfaces", id, _] => {
            let network = with_id(id, parse(&version, kind, body), |network: &Network| &network.iface_id)?;
            vmm.put_network(network)
        }
        ["pmem", id, _] => vmm.put_pmem(with_id(id, parse(&version, kind, body), |pmem: &Pmem| &pmem.id)?),
        ["vsock", "", _] => vmm.set_vsock(parse(&version, kind, body)?),
        ["entropy", "", _] => vmm.set_entropy(parse(&version, kind, body)?),
        ["balloon", "", _] => vmm.set_balloon(parse(&version, kind, body)?),
        ["cpu-config", "", _] => vmm.set_cpu_config(parse(&version, kind, body)?),
        ["mmds", "", _] => vmm.put_mmds(parse(&version, kind, body)?),
        ["mmds", "config", _] => vmm.set_mmds_config(parse(&version, "mmds/config", body)?),
        ["hotplug", "memory", _] => vmm.set_memory_hotplug(parse(&version, kind, body)?),
        ["serial", "", _] => {
            let serial: SerialConfig = parse(&version, kind, body)?;
            vmm.set_serial(serial.serial_out_path)
        }
        ["logger", "", _] => parse::<Logger>(&version, kind, body)?.check(),
        ["metrics", "", _] => {
            let metrics: Metrics = parse(&version, kind, body)?;
            vmm.set_metrics(&metrics.metrics_path)
        }
        ["snapshot", "create", _] => vmm.create_snapshot(&parse(&version, "snapshot/create", body)?),
        ["snapshot", "load", _] => vmm.load_snapshot(&parse(&version, "snapshot/load", body)?),
        _ => unknown(request),
    }
}

fn patch(vmm: &mut Vmm, request: &Request, path: [&str; 3]) -> Outcome {
    let (version, body) = (vmm.version.clone(), request.body.as_slice());
    let kind = path[0];
    match path {
        ["vm", "", _] => match parse::<Vm>(&version, kind, body)?.state {
            VmState::Paused => vmm.pause(),
            VmState::Resumed => vmm.resume(),
        },
        ["machine-config", "", _] => {
            let update: MachineUpdate = parse(&version, kind, body)?;
            vmm.set_machine(|machine| machine.updated(&update))
        }
        ["drives", id, _] => {
            vmm.update_drive(with_id(id, parse(&version, kind, body), |drive: &DriveUpdate| &drive.drive_id)?)
        }
        ["network-interfaces", id, _] => {
            let update = with_id(id, parse(&version, kind, body), |update: &NetworkUpdate| &update.iface_id)?;
            vmm.update_network(update)
        }
        ["balloon", "", _] => vmm.update_balloon(parse(&version, kind, body)?),
        ["balloon", "statistics", _] => vmm.update_statistics(parse(&version, "balloon/statistics", body)?),
        ["hotplug", "memory", _] => vmm.update_memory_hotplug(parse(&version, kind, body)?),
        ["mmds", "", _] => vmm.patch_mmds(parse(&version, kind, body)?),
        _ => unknown(request),
    }
}

fn delete(vmm: &mut Vmm, request: &Request, path: [&str; 3]) -> Outcome {
    match path {
        [kind @ ("drives" | "network-interfaces"), id, _] if !id.is_empty() => vmm.unplug(kind, id),
        _ => unknown(request),
    }
}

fn act(vmm: &mut Vmm, action: &Action) -> Outcome {
    match action.action_type {
        ActionType::InstanceStart => vmm.start(),
        ActionType::FlushMetrics => vmm.flush_metrics(),
        ActionType::SendCtrlAltDel => vmm.send_ctrl_alt_del(),
    }
}

/// The body, if its id is the path's.
fn with_id<T>(id: &str, body: Outcome<T>, id_of: impl Fn(&T) -> &String) -> Outcome<T> {
    if id.is_empty() {
        return refuse("The ID cannot be empty.");
    }
    if !id.chars().all(|c| c == '_' || c.is_alphanumeric()) {
        return refuse("API Resource IDs can only contain alphanumeric characters and underscores.");
    }
    let body = body?;
    if id_of(&body) != id {
        return refuse("The id from the path does not match the id from the body!");
    }
    Ok(body)
}

fn unknown<T>(request: &Request) -> Outcome<T> {
    let path = request.path.trim_start_matches('/');
    let path = path.split_terminator('/').next().unwrap_or_default();
    refuse(format!("Invalid request method and/or path: {} {path}.", request.method))
}
