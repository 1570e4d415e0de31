//! The read side of the snapshot header format.
