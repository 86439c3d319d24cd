//! System calls of the real program that are slow, fail or return wrong times: a preload library in C, controlled
//! through a file that the program maps. `tests/fixtures/shim/shim.c` says which calls it covers.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use crate::process::Program;
use crate::repository;

const MAGIC: u64 = 0x314d_4948_5352_4957;
const RULES: u64 = 8;
const PATH_BYTES: usize = 64;
const RULE_BYTES: u64 = PATH_BYTES as u64 + 8 * 8;
const CLOCK_OFFSET_AT: u64 = 8;
const CLOCK_STATE_AT: u64 = 16;
const MONOTONIC_OFFSET_AT: u64 = 24;
const RULES_AT: u64 = 32;

/// Numbers of the errors that disks return, and of the one for want of file descriptors.
pub const EIO: u64 = 5;
pub const ENOSPC: u64 = 28;
pub const EMFILE: u64 = 24;

/// The system calls that a rule applies to.
#[derive(Debug, Clone, Copy)]
pub enum Calls {
    /// `fsync`, `fdatasync`, `sync_file_range`.
    Sync = 1,
    /// `write`, `pwrite` and their vector forms.
    Write = 2,
    /// `open` and `openat`, by the path that they are called with.
    Open = 3,
    /// `read` and `pread`.
    Read = 4,
}

/// The library, and the file that controls it.
#[derive(Debug)]
pub struct Shim {
    library: PathBuf,
    path: PathBuf,
    control: File,
    rules: u64,
}

/// A rule for calls on files whose path contains a text.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    at: u64,
}

impl Shim {
    /// Builds the library if needed and creates a control file in `directory`.
    pub fn new(program: Program, directory: &Path) -> Self {
        let path = directory.join("shim-control");
        let control = File::options().create(true).truncate(true).read(true).write(true).open(&path);
        let control = control.expect("a control file");
        control.set_len(RULES_AT + RULES * RULE_BYTES).expect("room for the rules");
        let shim = Self { library: library(program.scratch), path, control, rules: 0 };
        shim.set(0, MAGIC);
        shim
    }

    /// Environment variables that make a program use the library.
    pub fn environment(&self) -> [(&'static str, &str); 2] {
        [
            ("LD_PRELOAD", self.library.to_str().expect("a UTF-8 path")),
            ("WEIR_SHIM_CONTROL", self.path.to_str().expect("a UTF-8 path")),
        ]
    }

    /// Sets the offset of the program's wall clock in milliseconds.
    pub fn set_clock_offset_ms(&self, offset_ms: i64) {
        self.set(CLOCK_OFFSET_AT, (offset_ms * 1_000_000) as u64);
    }

    /// Lets time go on by this much on the program's monotonic clock. Deadlines of waiting threads are then that much later.
    pub fn set_monotonic_offset(&self, offset: Duration) {
        self.set(MONOTONIC_OFFSET_AT, offset.as_nanos() as u64);
    }

    /// Sets what the kernel seems to say on whether its clock is synchronised; `None`: it refuses to tell.
    pub fn set_clock_synchronized(&self, synchronized: Option<bool>) {
        let state = match synchronized {
            Some(true) => 1,
            Some(false) => 2,
            None => 3,
        };
        self.set(CLOCK_STATE_AT, state);
    }

    /// Adds a rule for calls on files whose path contains `path`. The first matching rule applies.
    pub fn rule(&mut self, calls: Calls, path: &str) -> Rule {
        assert!(self.rules < RULES && path.len() < PATH_BYTES, "no room for a rule on {path}");
        let at = RULES_AT + self.rules * RULE_BYTES;
        self.rules += 1;
        self.control.write_all_at(path.as_bytes(), at).expect("a writable control file");
        // Written last: it makes the rule active.
        self.set(at + PATH_BYTES as u64, calls as u64);
        Rule { at }
    }

    /// Delays every call by this time. Calls that wait already continue once they have waited so long.
    pub fn delay(&self, rule: Rule, delay: Duration) {
        self.set(rule.field(1), delay.as_millis() as u64);
    }

    /// Makes the `nth` call from now fail, counted from 1, and no other.
    pub fn fail_nth(&self, rule: Rule, errno: u64, nth: u64) {
        self.set(rule.field(4), errno);
        self.set(rule.field(3), 1);
        self.set(rule.field(2), self.begun(rule) + nth);
    }

    /// Makes the next `count` calls fail.
    pub fn fail(&self, rule: Rule, errno: u64, count: u64) {
        self.set(rule.field(4), errno);
        self.set(rule.field(3), count);
        self.set(rule.field(2), self.begun(rule) + 1);
    }

    /// Makes all further calls fail.
    pub fn fail_from_now_on(&self, rule: Rule, errno: u64) {
        self.fail(rule, errno, u64::MAX);
    }

    /// Lets calls succeed again.
    pub fn heal(&self, rule: Rule) {
        self.set(rule.field(2), 0);
    }

    /// Calls that began.
    pub fn begun(&self, rule: Rule) -> u64 {
        self.get(rule.field(5))
    }

    /// Calls that succeeded.
    pub fn done(&self, rule: Rule) -> u64 {
        self.get(rule.field(6))
    }

    /// Calls that were made to fail.
    pub fn failed(&self, rule: Rule) -> u64 {
        self.get(rule.field(7))
    }

    fn get(&self, at: u64) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, at).expect("a readable control file");
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, at: u64, value: u64) {
        self.control.write_all_at(&value.to_ne_bytes(), at).expect("a writable control file");
    }
}

impl Rule {
    fn field(self, index: u64) -> u64 {
        self.at + PATH_BYTES as u64 + index * 8
    }
}

/// Path of the library, built once per process. Built under another name and renamed: other test programs may build it
/// too.
fn library(scratch: &str) -> PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    let build = || {
        let directory = Path::new(scratch);
        let library = directory.join("libweir_shim.so");
        let unfinished = directory.join(format!("libweir_shim.{}.so", std::process::id()));
        let source = repository().join("tests/fixtures/shim/shim.c");
        let mut compiler = Command::new(std::env::var("CC").unwrap_or_else(|_| "cc".to_owned()));
        compiler.args(["-O1", "-shared", "-fPIC", "-Wall", "-Werror", "-o"]).arg(&unfinished).arg(source).arg("-ldl");
        let output = compiler.output().expect("a C compiler: Rust links with it");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        fs::rename(&unfinished, &library).expect("the library can be put in its place");
        library
    };
    LIBRARY.get_or_init(build).clone()
}
