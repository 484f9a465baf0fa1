//! Signals that ask a run to stop.

use super::failure::Failure;
use signal_hook::{
    consts::{SIGHUP, SIGINT, TERM_SIGNALS},
    flag,
};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

/// Whether Ctrl-C, a polite kill or the end of the terminal has asked to stop, and which.
pub struct Interrupt {
    stop: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// Watches from here on. A second signal ends the process at once, but for SIGHUP: a shell and its terminal may both send
    /// one. What was ignored when the process began stays ignored (`nohup`, background jobs of scripts).
    ///
    /// # Errors
    /// When the system refuses.
    pub fn watch() -> io::Result<Self> {
        let interrupt = Self { stop: Arc::default(), signal: Arc::default() };
        let signals = TERM_SIGNALS.iter().copied().chain([SIGHUP]);
        signals.filter(|&signal| !is_ignored(signal)).try_for_each(|signal| interrupt.register(signal))?;
        Ok(interrupt)
    }

    fn register(&self, signal: i32) -> io::Result<()> {
        if signal != SIGHUP {
            flag::register_conditional_shutdown(signal, exit_code(signal).into(), Arc::clone(&self.stop))?;
        }
        flag::register_usize(signal, Arc::clone(&self.signal), signal as usize)?;
        flag::register(signal, Arc::clone(&self.stop))?;
        Ok(())
    }

    /// Becomes true when the run shall stop.
    pub fn flag(&self) -> &AtomicBool {
        &self.stop
    }

    /// The end of a command that was asked to stop: Ctrl-C has an exit code of its own, by which shells stop a script.
    pub fn failure(&self, message: String) -> Failure {
        match self.signal.load(Ordering::Relaxed) == SIGINT as usize {
            true => Failure::Interrupted { message, code: exit_code(SIGINT) },
            false => Failure::Run(message),
        }
    }
}

/// What shells make of the end by a signal.
fn exit_code(signal: i32) -> u8 {
    128 + signal as u8
}

fn is_ignored(signal: i32) -> bool {
    // The call only fills in what it is given.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        libc::sigaction(signal, std::ptr::null(), &mut action) == 0 && action.sa_sigaction == libc::SIG_IGN
    }
}
