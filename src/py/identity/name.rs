//! Names of objects, as every process has them.

use super::obstacle::{Obstacle, Walked};
use pyo3::prelude::*;
use pyo3::types::PyString;

/// A name that an object has.
pub(super) fn text_of<'py>(object: &Bound<'py, PyAny>, attribute: &str) -> Walked<Bound<'py, PyString>> {
    object.getattr(attribute)?.cast_into::<PyString>().map_err(|_| Obstacle::opaque())
}

/// The module's name as it is in every process: a spawned child runs its parent's main module under another.
pub(super) fn public(module: &str) -> &str {
    if module == "__mp_main__" { "__main__" } else { module }
}

pub(super) fn is_main(module: &Bound<'_, PyString>) -> bool {
    public(&module.to_string_lossy()) == "__main__"
}

/// Whether code of this file was typed in. Every prompt has its own name for that, and may be that of some module.
pub(super) fn is_typed(file: &Bound<'_, PyString>) -> bool {
    let file = file.to_string_lossy();
    file.starts_with('<') && ["stdin", "console", "input", "pyshell"].iter().any(|prompt| file.contains(prompt))
}
