//! Where entries live. A backend turns the steps of a call (look up, keep, forget) into sections of a store that no
//! other thread sees half done.

#[cfg(unix)]
#[cfg_attr(not(feature = "python"), allow(dead_code, reason = "the layer that calls it is not compiled"))]
pub(crate) mod bytes;
pub mod memory;
#[cfg(unix)]
#[cfg_attr(
    not(feature = "python"),
    allow(dead_code, unused_imports, reason = "the layer that calls it is not compiled")
)]
pub(crate) mod shared;
