//! The stand-in against the words and habits of the real one. Needs root, `ip` and userfaultfd.

mod api;
mod command_line;
mod faults;
mod guest;
mod load;
mod snapshot;
mod support;
mod uffd;
mod versions;
