//! The pager as its keeper runs it, real userfaultfd, and a stand-in for the VMM. Needs root.

mod collect;
mod discard;
mod events;
mod handshake;
mod lifecycle;
mod mapped;
mod model;
mod support;
mod take_over;
mod workset;
