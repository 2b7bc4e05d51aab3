//! What a region must survive: kills, damage, forks, every order of its steps. And what the tests of the other files need.

#[cfg_attr(loom, allow(dead_code, reason = "what needs it is not compiled"))]
pub(crate) mod actors;
#[cfg(all(not(feature = "python"), not(loom)))]
mod faults;
#[cfg(target_os = "linux")]
mod forks;
#[cfg(loom)]
mod models;
#[cfg(not(loom))]
mod torture;
#[cfg(loom)]
pub(crate) mod weakened;
#[cfg_attr(loom, allow(dead_code, reason = "what needs it is not compiled"))]
pub(crate) mod words;
