//! The names of attributes that are looked up while functions are called, made when the module is imported: where memory has run
//! out, there is none for them.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyString;

macro_rules! names {
    ($($field:ident = $text:literal),* $(,)?) => {
        /// A name each.
        #[cfg_attr(not(unix), allow(dead_code, reason = "some are for the shared backend alone"))]
        pub(crate) struct Names {
            $(pub(crate) $field: Py<PyString>,)*
        }

        impl Names {
            fn new(py: Python<'_>) -> Self {
                Self { $($field: PyString::intern(py, $text).unbind(),)* }
            }
        }
    };
}

names! {
    await_ = "__await__",
    cached_coroutine = "CachedCoroutine",
    close = "close",
    co_filename = "co_filename",
    co_names = "co_names",
    co_varnames = "co_varnames",
    code = "__code__",
    cr_frame = "cr_frame",
    dataclass_fields = "__dataclass_fields__",
    equal = "__eq__",
    qualname = "__qualname__",
    reduce_ex = "__reduce_ex__",
    throw = "throw",
    value = "value",
}

static NAMES: PyOnceLock<Names> = PyOnceLock::new();

/// All of them.
pub(crate) fn of(py: Python<'_>) -> &Names {
    NAMES.get_or_init(py, || Names::new(py))
}
