//! Reasons for which a function has no identity.

use pyo3::exceptions::PyException;
use pyo3::prelude::*;

/// Why a walk ended before its end.
#[derive(Debug)]
pub(super) enum Obstacle {
    /// The object's fault, in words that can follow "which".
    Clause(String),
    /// Python code raised this.
    Raised(PyErr),
}

pub(super) type Walked<T = ()> = Result<T, Obstacle>;

impl From<PyErr> for Obstacle {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl Obstacle {
    pub(super) fn clause(text: &str) -> Self {
        Self::Clause(text.to_owned())
    }

    pub(super) fn opaque() -> Self {
        Self::clause("cannot be fingerprinted")
    }

    pub(super) fn large() -> Self {
        Self::clause("is too large to be fingerprinted")
    }

    /// The same, said of what `subject` names. An exception that is no `Exception` stays what it is.
    pub(super) fn of(self, py: Python<'_>, subject: &str) -> Self {
        match self {
            Self::Raised(error) if !error.is_instance_of::<PyException>(py) => Self::Raised(error),
            Self::Raised(_) => Self::opaque().of(py, subject),
            Self::Clause(clause) => Self::Clause(format!("{subject} {clause}")),
        }
    }
}
