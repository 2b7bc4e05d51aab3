//! Bytes for a key's objects that the codec has no form for: equal where the objects are equal, in every process.
//!
//! ```text
//! first byte   object                                    after it
//! no letter    what the codec has a form for             as the codec says
//! t, l         tuple, list                               count as u32, items
//! s            frozenset, and set where they are equal   count, items in the order of their bytes
//! m            set where they are not                    count, items in the order of their bytes
//! d            dict                                      count, key and value of each in the order of their bytes
//! z            complex                                   two floats
//! g            class or function                         size as u32, what names it
//! e            instance of a dataclass that compares     class, count, values of the fields compared
//!              by its fields
//! k            argument of a typed key, of a class       class, what its base is
//!              derived from one of these
//! o            any other instance                        count, what it is reduced to: function, arguments, state, items
//! ```
//!
//! What an object compares by is known of these types alone. Of any other instance all that it is made of counts, and there 1
//! and 1.0 differ.

use super::{Place, Tools, Unencoded, put_view};
use crate::codec::Encoder;
use crate::py::ffi::{self, Arg, Object, View};
use crate::py::names;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyFunction, PySet, PyString, PyType};
use std::cell::Cell;

/// How deep objects nest, and each is in fewer others than that.
const MAX_DEPTH: u8 = 32;

/// The name that a program's first module has in the processes that it spawns, and its name in the program.
const SPAWNED_MAIN: &[u8] = b"\x8c\x0b__mp_main__";
const MAIN: &[u8] = b"\x8c\x08__main__";

/// The bytes of an argument of a key, at most `limit` of them.
pub(super) fn of_argument(py: Python<'_>, value: Arg<'_>, typed: bool, limit: u32) -> Result<Vec<u8>, Unencoded> {
    let walk = Walk { py, tools: Tools::of(py)?, limit, sameness: Sameness::Equal };
    let mut out = Vec::new();
    let is_derived = ffi::view(value).is_none() && (ffi::view_of_base(value).is_some() || ffi::is_as_frozenset(value));
    if typed && is_derived && !ffi::is_exactly::<PyFrozenSet>(value) {
        walk.put(b'k', &mut out)?;
        walk.named(Arg::new(&ffi::class_of(py, value)), &mut out)?;
    }
    walk.any(value, MAX_DEPTH, &mut out)?;
    Ok(out)
}

/// The rule by which two objects are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sameness {
    /// They are equal.
    Equal,
    /// They are of one class, too, and so is all that they are made of.
    Exact,
}

#[derive(Clone, Copy)]
struct Walk<'py> {
    py: Python<'py>,
    tools: &'py Tools,
    limit: u32,
    sameness: Sameness,
}

impl Walk<'_> {
    /// Writes any object, which may contain others to this depth.
    fn any(&self, object: Arg<'_>, depth: u8, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        let depth = depth.checked_sub(1).ok_or(Unencoded::TOO_DEEP)?;
        let _level = Level::enter().ok_or(Unencoded::TOO_DEEP)?;
        self.any_here(object, depth, out)
    }

    fn any_here(&self, object: Arg<'_>, depth: u8, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        let is_exact = self.sameness == Sameness::Exact;
        let view = ffi::view(object).or_else(|| if is_exact { None } else { ffi::view_of_base(object) });
        match view {
            Some(View::Tuple(items)) => self.several(b't', items, depth, out),
            Some(View::List) => {
                let items = ffi::to_tuple(self.py, object)?;
                self.several(b'l', ffi::items(Arg::new(&items)), depth, out)
            }
            Some(View::Complex(real, imaginary)) if is_exact || !super::is_zero(imaginary) => {
                self.put(b'z', out)?;
                for part in [real, imaginary] {
                    Encoder::for_item(out, self.limit, is_exact)?.float(part)?;
                }
                Ok(())
            }
            Some(view) => {
                let mut encoder = Encoder::for_item(out, self.limit, is_exact)?;
                // Nothing but a tuple or a list is refused for what it is.
                put_view(&mut encoder, object, view, Place::Key).map_err(|_| Unencoded::TooLarge)
            }
            None => self.other(object, depth, out),
        }
    }

    #[inline(never)]
    fn other(&self, object: Arg<'_>, depth: u8, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        let is_exact = self.sameness == Sameness::Exact;
        if ffi::is_exactly::<PyFrozenSet>(object) || !is_exact && ffi::is_as_frozenset(object) {
            self.set(b's', object, depth, out)
        } else if ffi::is_exactly::<PySet>(object) {
            self.set(if is_exact { b'm' } else { b's' }, object, depth, out)
        } else if ffi::is_exactly::<PyDict>(object) {
            self.dict(object, depth, out)
        } else if ffi::is_exactly::<PyAny>(object) {
            Err(Unencoded::Unstorable("an instance of object is known by its identity alone".into()))
        } else if ffi::is_exactly::<PyFunction>(object) || object.bind(self.py).is_instance_of::<PyType>() {
            self.named(object, out)
        } else if let Some(fields) = (!is_exact).then(|| self.fields(object)).transpose()?.flatten() {
            self.put(b'e', out)?;
            self.named(Arg::new(&ffi::class_of(self.py, object)), out)?;
            self.put_count(fields.len(), out)?;
            fields.iter().try_for_each(|field| self.any(Arg::new(field), depth, out))
        } else {
            self.reduced(object, depth, out)
        }
    }

    /// Writes objects in order.
    fn several(&self, tag: u8, items: &[Arg<'_>], depth: u8, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        self.put(tag, out)?;
        self.put_count(items.len(), out)?;
        items.iter().try_for_each(|&item| self.any(item, depth, out))
    }

    /// Writes the items of a set.
    fn set(&self, tag: u8, set: Arg<'_>, depth: u8, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        let items = ffi::to_tuple(self.py, set)?;
        let items = ffi::items(Arg::new(&items));
        self.sorted(tag, items, out, |&item, out| self.any(item, depth, out))
    }

    /// Writes the pairs of a dict.
    fn dict(&self, dict: Arg<'_>, depth: u8, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        let pairs = ffi::pairs(self.py, dict)?;
        let pairs = ffi::items(Arg::new(&pairs));
        // No item's bytes are the beginning of another's, so the keys alone decide.
        self.sorted(b'd', pairs, out, |&pair, out| {
            ffi::items(pair).iter().try_for_each(|&half| self.any(half, depth, out))
        })
    }

    /// Writes items in the order of their bytes.
    fn sorted<T>(
        &self,
        tag: u8,
        items: &[T],
        out: &mut Vec<u8>,
        write: impl Fn(&T, &mut Vec<u8>) -> Result<(), Unencoded>,
    ) -> Result<(), Unencoded> {
        self.put(tag, out)?;
        self.put_count(items.len(), out)?;
        let mut all = Vec::new();
        let mut left = self.limit as usize - out.len();
        for item in items {
            let mut bytes = Vec::new();
            write(item, &mut bytes)?;
            left = left.checked_sub(bytes.len()).ok_or(Unencoded::TooLarge)?;
            all.push(bytes);
        }
        all.sort_unstable();
        for bytes in all {
            self.put_all(&bytes, out)?;
        }
        Ok(())
    }

    /// Writes what a pickle has for a class, a function or anything else that is imported by its name.
    fn named(&self, object: Arg<'_>, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        let pickle = self.tools.dump(self.py, object)?;
        let Some(View::Bytes(pickle)) = ffi::view(Arg::new(&pickle)) else { return Err(Unencoded::NO_PICKLE) };
        // Without the frame, which has a length.
        let body = match pickle {
            [0x80, super::PROTOCOL, 0x95, _, _, _, _, _, _, _, _, body @ ..] => body,
            other => other,
        };
        let renamed = body.strip_prefix(SPAWNED_MAIN).map(|rest| [MAIN, rest].concat());
        let body = renamed.as_deref().unwrap_or(body);
        self.put(b'g', out)?;
        self.put_count(body.len(), out)?;
        self.put_all(body, out)
    }

    /// The values that an instance of a dataclass is compared by. `None` for other objects.
    fn fields(&self, object: Arg<'_>) -> Result<Option<Vec<Object>>, Unencoded> {
        let class = ffi::class_of(self.py, object);
        let equality = ffi::attribute(self.py, Arg::new(&class), &names::of(self.py).equal)?;
        let Some(names) = fields_compared(equality.bind(self.py)) else { return Ok(None) };
        let known = &names::of(self.py).dataclass_fields;
        if let Err(raised) = ffi::attribute(self.py, Arg::new(&class), known) {
            ffi::forgive(self.py, raised)?;
            return Ok(None);
        }
        let values = names.iter().map(|name| ffi::attribute(self.py, object, name.as_unbound()));
        Ok(Some(values.collect::<Result<_, _>>()?))
    }

    /// Writes all that an object is made of, as `copyreg` or the object itself tells.
    #[inline(never)]
    fn reduced(&self, object: Arg<'_>, depth: u8, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        let reduced = self.tools.reduce(self.py, object)?;
        let parts = match ffi::view(Arg::new(&reduced)) {
            Some(View::Text(_)) => return self.named(object, out),
            Some(View::Tuple(parts)) if (2..=6).contains(&parts.len()) => parts,
            _ => return Err(Unencoded::Unstorable("__reduce_ex__ returned neither a string nor a tuple".into())),
        };
        let exactly = Walk { sameness: Sameness::Exact, ..*self };
        exactly.put(b'o', out)?;
        exactly.put_count(parts.len(), out)?;
        for (place, &part) in parts.iter().enumerate() {
            // The fourth and the fifth are iterators: of items, and of pairs.
            if matches!(place, 3 | 4) && !part.is_none(self.py) {
                let items = ffi::to_tuple(self.py, part)?;
                exactly.several(b'l', ffi::items(Arg::new(&items)), depth, out)?;
            } else {
                exactly.any(part, depth, out)?;
            }
        }
        Ok(())
    }

    fn put(&self, byte: u8, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        self.put_all(&[byte], out)
    }

    fn put_count(&self, count: usize, out: &mut Vec<u8>) -> Result<(), Unencoded> {
        // More than so many would not be within the limit.
        let count = u32::try_from(count).map_err(|_| Unencoded::TooLarge)?;
        self.put_all(&count.to_le_bytes(), out)
    }

    fn put_all(&self, bytes: &[u8], out: &mut Vec<u8>) -> Result<(), Unencoded> {
        if bytes.len() > (self.limit as usize).saturating_sub(out.len()) || out.try_reserve(bytes.len()).is_err() {
            return Err(Unencoded::TooLarge);
        }
        out.extend_from_slice(bytes);
        Ok(())
    }
}

/// One level of a walk, until it is dropped. Foreign code may begin another walk in the middle of one, and so on, so the levels
/// of all walks on a thread's stack are counted together.
struct Level;

impl Level {
    const MOST: u8 = 2 * MAX_DEPTH;

    fn enter() -> Option<Self> {
        let levels = LEVELS.get();
        (levels < Self::MOST).then(|| {
            LEVELS.set(levels + 1);
            Self
        })
    }
}

impl Drop for Level {
    fn drop(&mut self) {
        LEVELS.set(LEVELS.get().saturating_sub(1));
    }
}

thread_local! {
    static LEVELS: Cell<u8> = const { Cell::new(0) };
}

/// The fields that an `__eq__` compares which `dataclasses` has made: it has no file, and names nothing but these.
fn fields_compared<'py>(equality: &Bound<'py, PyAny>) -> Option<Vec<Bound<'py, PyString>>> {
    let py = equality.py();
    let names = names::of(py);
    let code = equality.cast_exact::<PyFunction>().ok()?.getattr(names.code.bind(py)).ok()?;
    let attribute = |name: &Py<PyString>| code.getattr(name.bind(py)).ok();
    let is_generated = attribute(&names.co_filename)?.extract::<&str>().ok()? == "<string>"
        && attribute(&names.co_varnames)?.extract::<(String, String)>().ok()? == ("self".into(), "other".into());
    let fields: Vec<Bound<'py, PyString>> = attribute(&names.co_names)?.extract().ok()?;
    match &fields[..] {
        [first, fields @ .., last] if is_generated && first == "__class__" && last == "NotImplemented" => {
            Some(fields.to_vec())
        }
        _ => None,
    }
}
