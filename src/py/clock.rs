//! The clock of a function that is decorated now.

#[cfg(feature = "testing")]
pub(crate) use super::testing::chosen;

/// None is chosen: it is one of the machine's.
#[cfg(not(feature = "testing"))]
pub(crate) fn chosen() -> Option<crate::clock::Clock> {
    None
}
