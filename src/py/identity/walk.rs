//! A walk over objects, which writes them as bytes that tell all about them.

use super::name::public;
use super::obstacle::{Obstacle, Walked};
use crate::py::ffi;
use pyo3::buffer::PyBuffer;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyCFunction, PyCode, PyComplex, PyDict, PyFloat, PyFrozenSet, PyFunction, PyInt, PyList, PyModule,
    PySet, PyString, PyTuple, PyType,
};
use std::ops::Range;

/// The most bytes that may be walked: more is a table rather than a parameter.
pub(super) const LARGEST: usize = 1 << 20;
/// How deeply values may be nested.
pub(super) const DEEPEST: usize = 32;
/// The start of every digest. Another number here gives every function another region.
pub(super) const LAYOUT: &[u8] = b"warp_cache identity 1\0";

/// The kind of the bytes that follow. Never renumbered.
#[derive(Clone, Copy, Debug)]
pub(super) enum Tag {
    Named = 1,
    None,
    False,
    True,
    Int,
    BigInt,
    Float,
    Complex,
    Text,
    Bytes,
    Ellipsis,
    NotImplemented,
    Tuple,
    List,
    Dict,
    Set,
    FrozenSet,
    Items,
    Pairs,
    End,
    Above,
    Code,
    Function,
    Native,
    Cached,
    Method,
    Module,
    Class,
    Global,
    Reduced,
    Buffer,
    Absent,
    Own,
    Unpacked,
    Archived,
}

/// The names that the user's own name replaces, wherever a walk meets them.
pub(super) struct Own {
    /// None: the function is of no module.
    pub(super) module: Option<String>,
    pub(super) name: String,
    /// The address of the function's code, while that is being written: its name is the function's.
    pub(super) code: usize,
}

/// Looks into a cached function for the one behind it, if the object is one.
pub(crate) type Unwrap = for<'py> fn(&Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>>;

/// Writes objects as bytes that tell all about them.
pub(super) struct Walk {
    pub(super) bytes: Vec<u8>,
    /// The objects around the one that is being written, which keep it alive.
    pub(super) above: Vec<usize>,
    /// Whether the user has named the function.
    pub(super) is_named: bool,
    /// Of the function that is being decorated, if the user has named it.
    pub(super) own: Option<Own>,
    pub(super) unwrap: Unwrap,
}

impl Walk {
    pub(super) fn tag(&mut self, tag: Tag) {
        self.bytes.push(tag as u8);
    }

    pub(super) fn number(&mut self, number: usize) {
        self.bytes.extend_from_slice(&(number as u64).to_le_bytes());
    }

    pub(super) fn raw(&mut self, bytes: &[u8]) -> Walked {
        if bytes.len() > LARGEST || self.bytes.len() + bytes.len() > LARGEST {
            return Err(Obstacle::large());
        }
        self.number(bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// How many items follow. Each takes a byte at least.
    pub(super) fn count(&mut self, count: usize) -> Walked {
        if self.bytes.len().saturating_add(count) > LARGEST {
            return Err(Obstacle::large());
        }
        self.number(count);
        Ok(())
    }

    /// The user's own name for the function.
    pub(super) fn named(&mut self, name: Option<&str>) -> Walked {
        let Some(name) = name else { return Ok(()) };
        self.tag(Tag::Own);
        self.raw(name.as_bytes())
    }

    /// Whether the user's name stands for this module.
    pub(super) fn is_own(&self, module: Option<&Bound<'_, PyString>>) -> bool {
        let module = module.map(|module| public(&module.to_string_lossy()).to_owned());
        self.own.as_ref().is_some_and(|own| own.module == module)
    }

    pub(super) fn object(&mut self, object: &Bound<'_, PyAny>) -> Walked {
        if self.bytes.len() > LARGEST {
            return Err(Obstacle::large());
        }
        if self.scalar(object)? {
            return Ok(());
        }
        let address = object.as_ptr().addr();
        if let Some(distance) = self.above.iter().rev().position(|&above| above == address) {
            self.tag(Tag::Above);
            self.number(distance);
            return Ok(());
        }
        if self.above.len() >= DEEPEST {
            return Err(Obstacle::clause("is nested too deeply to be fingerprinted"));
        }
        self.above.push(address);
        let walked = self.compound(object);
        self.above.pop();
        walked
    }

    /// Writes an object that holds no others. False: it is none of these.
    pub(super) fn scalar(&mut self, object: &Bound<'_, PyAny>) -> Walked<bool> {
        let py = object.py();
        if object.is_none() {
            self.tag(Tag::None);
        } else if let Ok(truth) = object.cast_exact::<PyBool>() {
            self.tag(if truth.is_true() { Tag::True } else { Tag::False });
        } else if let Ok(number) = object.cast_exact::<PyInt>() {
            self.int(number)?;
        } else if let Ok(number) = object.cast_exact::<PyFloat>() {
            self.tag(Tag::Float);
            self.bytes.extend_from_slice(&number.value().to_bits().to_le_bytes());
        } else if let Ok(number) = object.cast_exact::<PyComplex>() {
            self.tag(Tag::Complex);
            for part in [intern!(py, "real"), intern!(py, "imag")] {
                let part: f64 = number.getattr(part)?.extract()?;
                self.bytes.extend_from_slice(&part.to_bits().to_le_bytes());
            }
        } else if let Ok(text) = object.cast_exact::<PyString>() {
            self.text(text)?;
        } else if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            self.tag(Tag::Bytes);
            self.raw(bytes.as_bytes())?;
        } else if object.is(py.Ellipsis()) {
            self.tag(Tag::Ellipsis);
        } else if object.is(py.NotImplemented()) {
            self.tag(Tag::NotImplemented);
        } else {
            return Ok(false);
        }
        Ok(true)
    }

    pub(super) fn int(&mut self, number: &Bound<'_, PyInt>) -> Walked {
        if let Ok(small) = number.extract::<i64>() {
            self.tag(Tag::Int);
            self.bytes.extend_from_slice(&small.to_le_bytes());
            return Ok(());
        }
        let length = number.call_method0("bit_length")?.extract::<usize>()? / 8 + 1;
        if length > LARGEST {
            return Err(Obstacle::large());
        }
        let options = PyDict::new(number.py());
        options.set_item("signed", true)?;
        let bytes = number.call_method("to_bytes", (length, "little"), Some(&options))?.cast_into::<PyBytes>();
        self.tag(Tag::BigInt);
        self.raw(bytes.map_err(PyErr::from)?.as_bytes())
    }

    pub(super) fn text(&mut self, text: &Bound<'_, PyString>) -> Walked {
        self.tag(Tag::Text);
        if text.len()? > LARGEST {
            return Err(Obstacle::large());
        }
        if let Ok(text) = text.to_str() {
            return self.raw(text.as_bytes());
        }
        // With a lone surrogate.
        let string = text.py().get_type::<PyString>();
        let bytes = string.call_method1("encode", (text, "utf-8", "surrogatepass"))?.cast_into::<PyBytes>();
        self.raw(bytes.map_err(PyErr::from)?.as_bytes())
    }

    pub(super) fn compound(&mut self, object: &Bound<'_, PyAny>) -> Walked {
        let py = object.py();
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            self.sequence(Tag::Tuple, tuple)
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            // A copy: what is walked may change the list.
            self.sequence(Tag::List, &list.to_tuple())
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            // In its order, which a function may go by.
            self.tag(Tag::Dict);
            self.count(dict.len())?;
            for pair in dict.items().to_tuple() {
                self.pair(&pair)?;
            }
            Ok(())
        } else if object.is_exact_instance_of::<PySet>() {
            self.unordered(Tag::Set, object)
        } else if object.is_exact_instance_of::<PyFrozenSet>() {
            self.unordered(Tag::FrozenSet, object)
        } else if object.is_exact_instance_of::<PyCode>() {
            self.code(object)
        } else if object.is_exact_instance_of::<PyFunction>() {
            self.function(object)
        } else if let Ok(native) = object.cast_exact::<PyCFunction>() {
            if self.native(native)? { Ok(()) } else { self.reduced(object) }
        } else if let Ok(class) = object.cast::<PyType>() {
            self.class(class)
        } else if let Ok(module) = object.cast::<PyModule>() {
            self.module(module)
        } else if let Some(inner) = self.inside_cache(object)? {
            self.tag(Tag::Cached);
            self.object(&inner)
        } else if object.is_exact_instance(&py.import("types")?.getattr("MethodType")?) {
            self.tag(Tag::Method);
            self.object(&object.getattr(intern!(py, "__func__"))?)?;
            self.object(&object.getattr(intern!(py, "__self__"))?)
        } else if is_pickle_buffer(object)? {
            self.tag(Tag::Buffer);
            let buffer = PyBuffer::<u8>::get(&object.call_method0("raw")?)?;
            if buffer.len_bytes() > LARGEST {
                return Err(Obstacle::large());
            }
            self.raw(&buffer.to_vec(py)?)
        } else {
            self.reduced(object)
        }
    }

    /// The function of a cached one. That it is cached changes nothing about what it returns.
    pub(super) fn inside_cache<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = object.py();
        if let Some(function) = (self.unwrap)(object) {
            return Ok(Some(function));
        }
        let Some(kind) = py.import("functools")?.getattr_opt("_lru_cache_wrapper")? else {
            return Ok(None);
        };
        if object.is_exact_instance(&kind) { object.getattr_opt(intern!(py, "__wrapped__")) } else { Ok(None) }
    }

    pub(super) fn sequence(&mut self, tag: Tag, items: &Bound<'_, PyTuple>) -> Walked {
        self.tag(tag);
        self.count(items.len())?;
        items.iter().try_for_each(|item| self.object(&item))
    }

    /// A key and its value.
    pub(super) fn pair(&mut self, pair: &Bound<'_, PyAny>) -> Walked {
        let (key, value) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
        self.object(&key)?;
        self.object(&value)
    }

    /// Items whose order depends on the hash seed, in the order of their bytes.
    pub(super) fn unordered(&mut self, tag: Tag, items: &Bound<'_, PyAny>) -> Walked {
        self.tag(tag);
        self.count(items.len()?)?;
        let items = items.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let start = self.bytes.len();
        let mut places: Vec<Range<usize>> = Vec::with_capacity(items.len());
        for item in &items {
            let from = self.bytes.len();
            self.object(item)?;
            places.push(from - start..self.bytes.len() - start);
        }
        let written = self.bytes.split_off(start);
        places.sort_by(|one, other| written[one.clone()].cmp(&written[other.clone()]));
        for place in places {
            self.bytes.extend_from_slice(&written[place]);
        }
        Ok(())
    }
}

fn is_pickle_buffer(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    // Without the module there can be none.
    let Some(pickle) = ffi::imported(object.py(), intern!(object.py(), "_pickle")) else { return Ok(false) };
    Ok(object.is_exact_instance(&pickle.getattr("PickleBuffer")?))
}
