//! What the operating system knows and decides: whose a file is, who lives, what a fork and a reboot end.
//!
//! One line of imports: `facts`, `fork`, `directory`, `files`, `liveness`, each of those before it.

pub(crate) mod boot;
pub(crate) mod directory;
pub(crate) mod facts;
pub(crate) mod files;
pub(crate) mod fork;
pub(crate) mod liveness;
pub(crate) mod map;
