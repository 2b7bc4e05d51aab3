//! The operating system's side: owners of files, living processes, the ends that a fork and a restart make.
//!
//! One line of imports: `facts`, `fork`, `directory`, `files`, `liveness`, each of those before it.

pub(crate) mod boot;
pub(crate) mod directory;
pub(crate) mod facts;
pub(crate) mod files;
pub(crate) mod fork;
pub(crate) mod liveness;
pub(crate) mod map;
