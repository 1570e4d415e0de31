pub mod agent;
pub mod folder;
pub mod http;
pub mod namespace;
pub mod pager;
pub mod vmm;
