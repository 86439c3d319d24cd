//! Asks for a password at the terminal.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};

use anyhow::{Context as _, anyhow, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use zeroize::Zeroizing;

use weir::access::Password;

/// Asks for the password twice, without showing it.
///
/// # Errors
/// There is no terminal, the person interrupts, or the two passwords differ.
pub fn ask_twice(user: &str) -> anyhow::Result<Password> {
    // Without its source: the exit code would call the missing terminal a disk error.
    let mut terminal = Terminal::open().map_err(|error| {
        anyhow!("there is no terminal to ask for the password; use --stdin or --generate ({error:#})")
    })?;
    let first = terminal.ask(&format!("Password of {user}: "))?;
    let password = super::checked(&first)?;
    if *terminal.ask("Again: ")? != *first {
        bail!("the two passwords differ; nothing was changed");
    }
    Ok(password)
}

/// The terminal of the process, without echo until it is dropped.
struct Terminal {
    device: File,
    before: Termios,
}

impl Terminal {
    fn open() -> anyhow::Result<Self> {
        let device = OpenOptions::new().read(true).write(true).open("/dev/tty").context("cannot open /dev/tty")?;
        let before = tcgetattr(&device)?;
        let mut silent = before.clone();
        // Ctrl-C is read as a byte: a signal would end the process and leave the terminal without echo.
        silent.local_modes -= LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG;
        tcsetattr(&device, OptionalActions::Flush, &silent)?;
        Ok(Self { device, before })
    }

    /// Prints `prompt` and reads a line.
    fn ask(&mut self, prompt: &str) -> anyhow::Result<Zeroizing<Vec<u8>>> {
        const CTRL_C: u8 = 3;
        const CTRL_D: u8 = 4;
        const CTRL_U: u8 = 21;
        const BACKSPACES: [u8; 2] = [8, 127];
        self.device.write_all(prompt.as_bytes())?;
        let mut line = Zeroizing::new(Vec::with_capacity(256));
        loop {
            let mut byte = [0];
            let ended = self.device.read(&mut byte)? == 0;
            match byte[0] {
                _ if ended => bail!("the terminal is gone; nothing was changed"),
                CTRL_C => bail!("interrupted; nothing was changed"),
                b'\r' | b'\n' | CTRL_D => break,
                CTRL_U => line.clear(),
                byte if BACKSPACES.contains(&byte) => remove_character(&mut line),
                byte => line.push(byte),
            }
        }
        self.device.write_all(b"\n")?;
        Ok(line)
    }
}

/// Removes the last UTF-8 character with all its bytes.
fn remove_character(line: &mut Vec<u8>) {
    while line.pop().is_some_and(|byte| byte & 0b1100_0000 == 0b1000_0000) {}
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // A terminal that is gone needs no settings.
        let _ = tcsetattr(&self.device, OptionalActions::Flush, &self.before);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backspace_takes_a_whole_character() {
        let mut line = "aé€".as_bytes().to_vec();
        remove_character(&mut line);
        assert_eq!(line, "aé".as_bytes());
        remove_character(&mut line);
        remove_character(&mut line);
        remove_character(&mut line);
        assert!(line.is_empty());
    }
}
