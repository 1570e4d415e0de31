//! Preload library for QEMU.
