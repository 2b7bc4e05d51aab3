//! The interpreter itself: its state, its modules, its types.

#![allow(unsafe_code)]

use super::raised::Raised;
use pyo3::exceptions::PyImportError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use pyo3::types::PyString;
use pyo3::types::PyTuple;
use pyo3::types::PyType;
use std::ffi::CStr;

/// Makes a type, of instances of that many bytes, or of as many as the base's.
///
/// # Safety
/// The slots end with an empty one, are functions of the kinds that they are for, and point to what lives for ever.
pub(crate) unsafe fn make_type<'py>(
    py: Python<'py>,
    name: &'static CStr,
    size: usize,
    flags: std::ffi::c_ulong,
    slots: &mut [ffi::PyType_Slot],
    base: Option<&Bound<'py, PyType>>,
) -> PyResult<Bound<'py, PyType>> {
    let too_large = || PyImportError::new_err("the description of a type does not fit");
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: size.try_into().map_err(|_| too_large())?,
        itemsize: 0,
        // A C long is as wide as an int on some systems.
        #[allow(clippy::useless_conversion)]
        flags: flags.try_into().map_err(|_| too_large())?,
        slots: slots.as_mut_ptr(),
    };
    let bases = base.map(|base| PyTuple::new(py, [base])).transpose()?;
    let bases = bases.as_ref().map_or(std::ptr::null_mut(), Bound::as_ptr);
    // SAFETY: the caller says that the slots are complete; spec and slots outlive this call, and the name is static.
    let made = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpecWithBases(&raw mut spec, bases))? };
    Ok(made.cast_into::<PyType>()?)
}

/// Runs `make`, which makes a pyclass instance, with no garbage collection in the middle.
///
/// CPython 3.11 gives a new object its dict when the collector knows the object already and pyo3 has not filled it in yet;
/// and up to 3.11, making that dict may start a collection.
pub(crate) fn without_collection<R>(_: Python<'_>, make: impl FnOnce() -> R) -> R {
    if cfg!(Py_3_12) {
        return make();
    }
    // SAFETY: the thread is attached. No other runs Python until `make` ends, since nothing in it gives up the GIL.
    let was_enabled = unsafe { ffi::PyGC_Disable() } != 0;
    let made = make();
    if was_enabled {
        // SAFETY: as above.
        unsafe { ffi::PyGC_Enable() };
    }
    made
}

/// Checks that this is the main interpreter: types, names and what else is made once belong to one interpreter.
pub(crate) fn check_interpreter(py: Python<'_>) -> PyResult<()> {
    // SAFETY: the thread is attached.
    if unsafe { ffi::PyInterpreterState_Get() != ffi::PyInterpreterState_Main() } {
        let text = "warp_cache cannot be imported in a subinterpreter, only in the main interpreter of a process";
        return Err(Raised::new::<PyImportError>(py, text).fetch(py));
    }
    Ok(())
}

/// The module of that name, if anybody has imported it.
pub(crate) fn imported<'py>(py: Python<'py>, name: &Bound<'py, PyString>) -> Option<Bound<'py, PyAny>> {
    // SAFETY: the thread is attached. The interpreter owns the dict of its modules.
    let modules = unsafe { Borrowed::from_ptr_or_opt(py, ffi::PyImport_GetModuleDict()) }?;
    modules.cast::<PyDict>().ok()?.get_item(name).ok()?
}
