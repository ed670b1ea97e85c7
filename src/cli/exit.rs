//! What a command ends with. The codes are documented in docs/operations.md and never
//! change their meaning.

use std::process::ExitCode;

use crate::api::named::NoUser;

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done; nothing is wrong.
    Ok = 0,
    /// Something failed that a retry may mend, or that has no code of its own.
    Failed = 1,
    /// The command line cannot be understood (also clap's own code).
    Usage = 2,
    /// The configuration is not valid.
    Configuration = 3,
    /// A check found an error.
    CheckFailed = 4,
    /// The store cannot be used: damaged, newer, another organization's, in use, full.
    Store = 5,
    /// The directory differs from its source, a test of a mapping failed, or a plan was refused.
    Differs = 6,
    /// No daemon runs, and the command needs one.
    NotRunning = 7,
    /// Another instance took over.
    Fenced = 8,
    /// What was asked for does not exist.
    NotFound = 9,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A command that could not do what it was asked: the sentence goes to standard error.
#[derive(Debug)]
pub struct Failure {
    /// How the process ends.
    pub exit: Exit,
    /// What the operator reads.
    pub sentence: String,
}

impl Failure {
    /// A failure from its parts.
    pub fn new(exit: Exit, sentence: impl Into<String>) -> Failure {
        Failure {
            exit,
            sentence: sentence.into(),
        }
    }
}

impl From<rollcall_store::StoreError> for Failure {
    fn from(e: rollcall_store::StoreError) -> Failure {
        Failure::new(Exit::Store, e.to_string())
    }
}

impl From<NoUser> for Failure {
    fn from(none: NoUser) -> Failure {
        let exit = match none {
            NoUser::Several(_) => Exit::Usage,
            NoUser::Nobody | NoUser::Record(_) => Exit::NotFound,
        };
        Failure::new(exit, none.to_string())
    }
}

impl From<rollcall_contract::ConnectorError> for Failure {
    fn from(e: rollcall_contract::ConnectorError) -> Failure {
        Failure::new(Exit::Failed, e.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Failure {
        // Whoever read the output has seen enough.
        if e.kind() == std::io::ErrorKind::BrokenPipe {
            return Failure::new(Exit::Ok, "");
        }
        Failure::new(Exit::Failed, e.to_string())
    }
}
