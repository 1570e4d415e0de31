//! Pseudoterminals (pty(7)).

use std::io;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, fchmod, fchown};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use serde::Deserialize;

use crate::rpc::Number;
use crate::user::User;

/// `PTY` of the protocol.
#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Pty {
    pub size: Option<Size>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
pub struct Size {
    cols: Option<Number>,
    rows: Option<Number>,
}

impl Default for Size {
    fn default() -> Size {
        Size { cols: Some(Number(80)), rows: Some(Number(24)) }
    }
}

impl From<Size> for Winsize {
    fn from(size: Size) -> Winsize {
        let cells =
            |number: Option<Number>| number.map_or(0, |number| u16::try_from(number.0).unwrap_or(u16::MAX));
        Winsize { ws_col: cells(size.cols), ws_row: cells(size.rows), ws_xpixel: 0, ws_ypixel: 0 }
    }
}

/// The agent's side, which never blocks, and the program's, which the user owns.
pub fn open(size: Size, user: &User) -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let agent = openpt(flags)?;
    rustix::io::ioctl_fionbio(&agent, true)?;
    unlockpt(&agent)?;
    let program = ioctl_tiocgptpeer(&agent, flags)?;
    // As a login does it: the user opens it again by its name, others may write messages at most.
    fchown(&program, Some(user.uid), None)?;
    fchmod(&program, Mode::RUSR | Mode::WUSR | Mode::WGRP)?;
    tcsetwinsize(&agent, size.into())?;
    Ok((agent, program))
}
