pub mod files;
pub mod memory;
pub mod pager;
pub mod random;
pub mod stand_in;
pub mod world;
