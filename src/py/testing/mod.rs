//! Hooks for this project's own tests. No wheel that users get has them: they are behind the feature `testing`.

#[cfg(unix)]
mod codec;
mod manual_clock;

pub(crate) use manual_clock::chosen;
use pyo3::prelude::*;

/// Adds the hooks to the module. They are not among the names that the package exports.
pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    #[cfg(unix)]
    module.setattr("_codec", codec::namespace(py)?)?;
    module.setattr("_ManualClock", py.get_type::<manual_clock::PyManualClock>())
}
