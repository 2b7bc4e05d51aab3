//! The shared region to which a function's values belong, by the function's name and its code.
//!
//! The same function in another process must be found to be the same, whatever the hash seed; and two functions that
//! may return different things must not. Where both cannot be had, a function rather has no identity. So everything
//! here counts with its exact type, unlike in a key, and what does not tell all about itself is refused.
//!
//! What counts: module and qualified name, or the user's own name in their place; bytecode, constants and names;
//! defaults; the values that the function closes over, and functions among them by the same rules. What does not:
//! comments, lines (but those of class statements in the function, from 3.13 on) and files, annotations, what global
//! names stand for, the methods of a class. A name and a version of the user's stand for all.

mod function;
mod name;
mod obstacle;
mod place;
mod reduced;
mod walk;

use name::{public, text_of};
use obstacle::{Obstacle, Walked};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyFunction, PyString, PyType};
pub(crate) use walk::Unwrap;
use walk::{LAYOUT, Own, Tag, Walk};
use xxhash_rust::xxh3::xxh3_128;

/// The name and the digest by which the same function in another process finds the same region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Module and qualified name, or the user's own name: for people.
    pub(crate) label: String,
    /// All that makes the function this one.
    pub(crate) digest: u128,
}

/// Whether another process can tell that its function is the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Identified {
    /// It can.
    Stable(Identity),
    /// It cannot. Says why, as a clause about "it".
    Unstable(String),
}

/// The identity of a function for which the user's name and version stand alone.
pub(crate) fn named(name: &str) -> Identity {
    Identity { label: name.to_owned(), digest: xxh3_128(&[LAYOUT, &[Tag::Named as u8], name.as_bytes()].concat()) }
}

/// The identity of `function`, if it has one. A name of the user's takes the place of its module and qualified name; its code
/// counts all the same. May run Python code, that of values that say how they are pickled.
pub(crate) fn identify(function: &Bound<'_, PyAny>, name: Option<&str>, unwrap: Unwrap) -> PyResult<Identified> {
    let py = function.py();
    let mut walk = Walk { bytes: LAYOUT.to_vec(), above: Vec::new(), is_named: name.is_some(), own: None, unwrap };
    let walked = walk.named(name).and_then(|()| walk.decorated(function));
    match walked {
        Ok(label) => {
            Ok(Identified::Stable(Identity { label: name.map_or(label, str::to_owned), digest: xxh3_128(&walk.bytes) }))
        }
        Err(obstacle) => match obstacle.of(py, "it") {
            Obstacle::Clause(why) => Ok(Identified::Unstable(why)),
            Obstacle::Raised(error) => Err(error),
        },
    }
}

impl Walk {
    /// The function that is being decorated; returns what people call it.
    fn decorated(&mut self, function: &Bound<'_, PyAny>) -> Walked<String> {
        let py = function.py();
        if let Some(inner) = inside_static_method(function)? {
            return self.decorated(&inner);
        }
        if let Some(inner) = self.inside_cache(function)? {
            self.tag(Tag::Cached);
            return self.decorated(&inner);
        }
        if function.is_exact_instance_of::<PyFunction>() {
            if self.is_named {
                let module = function.getattr(intern!(py, "__module__"))?.cast_into::<PyString>().ok();
                self.own = Some(Own {
                    module: module.map(|module| public(&module.to_string_lossy()).to_owned()),
                    name: text_of(function, "__qualname__")?.to_string_lossy().into_owned(),
                    code: 0,
                });
                return self.object(function).map(|()| String::new());
            }
            self.object(function)?;
        } else if let Ok(native) = function.cast_exact::<PyCFunction>() {
            if !self.native(native)? {
                return Err(Obstacle::clause("is a method bound to an object"));
            }
        } else if function.is_instance_of::<PyType>() {
            return Err(Obstacle::clause("is a class, not a function"));
        } else if function.is_exact_instance(&py.import("types")?.getattr("MethodType")?) {
            return Err(Obstacle::clause("is a method bound to an object"));
        } else if function.is_instance(&py.import("functools")?.getattr("partial")?)? {
            return Err(Obstacle::clause("is a functools.partial, not a function"));
        } else {
            let kind = function.get_type().qualname()?;
            return Err(Obstacle::Clause(format!("is an object of type {}, not a function", kind.to_string_lossy())));
        }
        let module = text_of(function, "__module__")?;
        let name = text_of(function, "__qualname__")?;
        Ok(format!("{}.{}", public(&module.to_string_lossy()), name.to_string_lossy()))
    }
}

/// The function of an exact `staticmethod`.
fn inside_static_method<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    if object.is_exact_instance(&py.import("builtins")?.getattr("staticmethod")?) {
        object.getattr(intern!(py, "__func__")).map(Some)
    } else {
        Ok(None)
    }
}
