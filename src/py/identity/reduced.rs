//! Objects that say how they are pickled, on a walk.

use super::name::text_of;
use super::obstacle::{Obstacle, Walked};
use super::place::{Found, find};
use super::walk::{Tag, Walk};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFrozenSet, PyList, PySet, PyString, PyTuple};

impl Walk {
    /// Any other object, by what `pickle` would make it anew from.
    pub(super) fn reduced(&mut self, object: &Bound<'_, PyAny>) -> Walked {
        let py = object.py();
        let kind = object.get_type();
        if kind.is(py.get_type::<PyAny>()) {
            // One `object()` differs from the next by nothing that can be told.
            return Err(Obstacle::opaque());
        }
        let table = py.import("copyreg")?.getattr("dispatch_table")?.cast_into::<PyDict>().map_err(PyErr::from)?;
        let reduced = match table.get_item(&kind)? {
            Some(reduce) => reduce.call1((object,))?,
            None => object.call_method1(intern!(py, "__reduce_ex__"), (5,))?,
        };
        if let Ok(name) = reduced.cast::<PyString>() {
            return self.global(object, name);
        }
        let Ok(parts) = reduced.cast_into::<PyTuple>() else {
            return Err(Obstacle::opaque());
        };
        let part = |place: usize| parts.get_item(place).ok().filter(|part| !part.is_none());
        let (Some(maker), Some(Ok(arguments))) = (part(0), part(1).map(Bound::cast_into::<PyTuple>)) else {
            return Err(Obstacle::opaque());
        };
        self.tag(Tag::Reduced);
        self.object(&maker)?;
        self.tag(Tag::Tuple);
        self.count(arguments.len())?;
        let is_set = object.is_instance_of::<PySet>() || object.is_instance_of::<PyFrozenSet>();
        for argument in arguments {
            // A set gives its elements as a list, in no order.
            if is_set && argument.is_exact_instance_of::<PyList>() {
                self.unordered(Tag::Set, argument.cast::<PyList>().map_err(PyErr::from)?.to_tuple().as_any())?;
            } else {
                self.object(&argument)?;
            }
        }
        for place in [2, 5] {
            match part(place) {
                Some(part) => self.object(&part)?,
                None => self.tag(Tag::Absent),
            }
        }
        for (place, tag) in [(3, Tag::Items), (4, Tag::Pairs)] {
            if let Some(items) = part(place) {
                for item in items.try_iter()? {
                    self.tag(tag);
                    self.object(&item?)?;
                }
            }
            self.tag(Tag::End);
        }
        Ok(())
    }

    /// An object that is pickled as a name.
    pub(super) fn global(&mut self, object: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> Walked {
        let module = text_of(object, "__module__")?;
        // A type variable stands for nothing but its name.
        let is_typing = text_of(&object.get_type(), "__module__")? == "typing";
        if !is_typing && !matches!(find(object, &module, name)?, Found::Itself) {
            return Err(Obstacle::opaque());
        }
        self.tag(Tag::Global);
        self.home(&module, None)?;
        self.text(name)
    }
}
