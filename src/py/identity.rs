//! Which shared region a function's values belong to: what it is called, and what its code does.
//!
//! The same function in another process must be found to be the same, whatever the hash seed; and two functions that may
//! return different things must not. Where both cannot be had, a function rather has no identity. So everything here counts
//! with its exact type, unlike in a key, and what does not tell all about itself is refused.
//!
//! What counts: module and qualified name, or the user's own name in their place; bytecode, constants and names; defaults; the
//! values that the function closes over, and functions among them by the same rules. What does not: comments, lines and
//! files, annotations, what global names stand for, the methods of a class. A name and a version of the user's stand for all.

use super::cached_function::CachedFunction;
use super::ffi;
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyException, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{
    PyBool, PyBytes, PyCFunction, PyCode, PyComplex, PyDict, PyFloat, PyFrozenSet, PyFunction, PyInt, PyList, PyModule,
    PySet, PyString, PyTuple, PyType,
};
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_128;

/// The most bytes that may be walked: more is a table rather than a parameter.
const LARGEST: usize = 1 << 20;
/// How deeply values may be nested.
const DEEPEST: usize = 32;
/// What the digest begins with. Another number makes all functions others.
const LAYOUT: &[u8] = b"warp_cache identity 1\0";

/// What a function is called by, so that the same function in another process finds the same region.
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
pub(crate) fn identify(function: &Bound<'_, PyAny>, name: Option<&str>) -> PyResult<Identified> {
    let py = function.py();
    let mut walk = Walk { bytes: LAYOUT.to_vec(), above: Vec::new(), is_named: name.is_some(), own: None };
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

/// What comes next in the bytes. Never renumbered.
#[derive(Clone, Copy, Debug)]
enum Tag {
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

/// Why a walk ended before its end.
#[derive(Debug)]
enum Obstacle {
    /// What is wrong with the object, in words that can follow "which".
    Clause(String),
    /// Python code raised this.
    Raised(PyErr),
}

type Walked<T = ()> = Result<T, Obstacle>;

impl From<PyErr> for Obstacle {
    fn from(error: PyErr) -> Self {
        Self::Raised(error)
    }
}

impl Obstacle {
    fn clause(text: &str) -> Self {
        Self::Clause(text.to_owned())
    }

    fn opaque() -> Self {
        Self::clause("cannot be fingerprinted")
    }

    fn large() -> Self {
        Self::clause("is too large to be fingerprinted")
    }

    /// The same, said of what `subject` names. An exception that is no `Exception` stays what it is.
    fn of(self, py: Python<'_>, subject: &str) -> Self {
        match self {
            Self::Raised(error) if !error.is_instance_of::<PyException>(py) => Self::Raised(error),
            Self::Raised(_) => Self::opaque().of(py, subject),
            Self::Clause(clause) => Self::Clause(format!("{subject} {clause}")),
        }
    }
}

/// What is found under an object's name, seen from its module.
enum Found {
    Itself,
    Another,
    /// The module, or the class that should have it, is not there: it may still be being defined.
    Nothing {
        outermost: bool,
    },
}

/// What the user's own name takes the place of, wherever a walk meets it.
struct Own {
    /// None: the function is of no module.
    module: Option<String>,
    name: String,
    /// The address of the function's code, while that is being written: its name is the function's.
    code: usize,
}

/// Writes objects as bytes that tell all about them.
struct Walk {
    bytes: Vec<u8>,
    /// The objects around the one that is being written, which keep it alive.
    above: Vec<usize>,
    /// Whether the user has named the function.
    is_named: bool,
    /// Of the function that is being decorated, if the user has named it.
    own: Option<Own>,
}

impl Walk {
    fn tag(&mut self, tag: Tag) {
        self.bytes.push(tag as u8);
    }

    fn number(&mut self, number: usize) {
        self.bytes.extend_from_slice(&(number as u64).to_le_bytes());
    }

    fn raw(&mut self, bytes: &[u8]) -> Walked {
        if bytes.len() > LARGEST || self.bytes.len() + bytes.len() > LARGEST {
            return Err(Obstacle::large());
        }
        self.number(bytes.len());
        self.bytes.extend_from_slice(bytes);
        Ok(())
    }

    /// How many items follow. Each takes a byte at least.
    fn count(&mut self, count: usize) -> Walked {
        if self.bytes.len().saturating_add(count) > LARGEST {
            return Err(Obstacle::large());
        }
        self.number(count);
        Ok(())
    }

    /// The user's own name for the function.
    fn named(&mut self, name: Option<&str>) -> Walked {
        let Some(name) = name else { return Ok(()) };
        self.tag(Tag::Own);
        self.raw(name.as_bytes())
    }

    /// Whether the user's name stands for this module.
    fn is_own(&self, module: Option<&Bound<'_, PyString>>) -> bool {
        let module = module.map(|module| public(&module.to_string_lossy()).to_owned());
        self.own.as_ref().is_some_and(|own| own.module == module)
    }

    /// The function that is being decorated; returns what people call it.
    fn decorated(&mut self, function: &Bound<'_, PyAny>) -> Walked<String> {
        let py = function.py();
        if let Some(inner) = inside_static_method(function)? {
            return self.decorated(&inner);
        }
        if let Some(inner) = inside_cache(function)? {
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

    fn object(&mut self, object: &Bound<'_, PyAny>) -> Walked {
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
    fn scalar(&mut self, object: &Bound<'_, PyAny>) -> Walked<bool> {
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

    fn int(&mut self, number: &Bound<'_, PyInt>) -> Walked {
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

    fn text(&mut self, text: &Bound<'_, PyString>) -> Walked {
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

    fn compound(&mut self, object: &Bound<'_, PyAny>) -> Walked {
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
        } else if let Some(inner) = inside_cache(object)? {
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

    fn sequence(&mut self, tag: Tag, items: &Bound<'_, PyTuple>) -> Walked {
        self.tag(tag);
        self.count(items.len())?;
        items.iter().try_for_each(|item| self.object(&item))
    }

    /// A key and its value.
    fn pair(&mut self, pair: &Bound<'_, PyAny>) -> Walked {
        let (key, value) = pair.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
        self.object(&key)?;
        self.object(&value)
    }

    /// Items whose order depends on the hash seed, in the order of their bytes.
    fn unordered(&mut self, tag: Tag, items: &Bound<'_, PyAny>) -> Walked {
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

    /// A code object. Python gives its bytecode as it was compiled, whatever has specialized or instrumented it since.
    fn code(&mut self, code: &Bound<'_, PyAny>) -> Walked {
        let py = code.py();
        self.tag(Tag::Code);
        if self.own.as_ref().is_none_or(|own| own.code != code.as_ptr().addr()) {
            self.object(&code.getattr(intern!(py, "co_name"))?)?;
        }
        for part in [
            intern!(py, "co_flags"),
            intern!(py, "co_argcount"),
            intern!(py, "co_posonlyargcount"),
            intern!(py, "co_kwonlyargcount"),
            intern!(py, "co_names"),
            intern!(py, "co_varnames"),
            intern!(py, "co_freevars"),
            intern!(py, "co_cellvars"),
        ] {
            self.object(&code.getattr(part)?)?;
        }
        if cfg!(Py_3_11) {
            self.object(&code.getattr(intern!(py, "co_exceptiontable"))?)?;
        }
        if cfg!(Py_3_13) && code.getattr(intern!(py, "co_names"))?.contains(intern!(py, "__firstlineno__"))? {
            return self.class_body(code);
        }
        self.object(&code.getattr(intern!(py, "co_code"))?)?;
        self.object(&code.getattr(intern!(py, "co_consts"))?)
    }

    /// The bytecode and constants of a class statement's body, which stores the number of its line, and the names of its
    /// instances' attributes in no order. So the constants are written where they are loaded, but for these.
    fn class_body(&mut self, code: &Bound<'_, PyAny>) -> Walked {
        let py = code.py();
        let opcode = py.import("opcode")?;
        let numbers = opcode.getattr("opmap")?;
        let number = |name: &str| numbers.get_item(name).and_then(|number| number.extract::<usize>());
        let extended = number("EXTENDED_ARG")?;
        let store = number("STORE_NAME")?;
        let small_int = number("LOAD_SMALL_INT").ok();
        let constant: Vec<usize> = opcode.getattr("hasconst")?.extract()?;
        let names: Vec<String> = code.getattr(intern!(py, "co_names"))?.extract()?;
        let constants = code.getattr(intern!(py, "co_consts"))?.cast_into::<PyTuple>().map_err(PyErr::from)?;
        let bytecode = code.getattr(intern!(py, "co_code"))?.cast_into::<PyBytes>().map_err(PyErr::from)?;

        let mut instructions: Vec<(usize, usize)> = Vec::with_capacity(bytecode.as_bytes().len() / 2);
        let mut high = 0;
        for unit in bytecode.as_bytes().chunks_exact(2) {
            let (operation, argument) = (usize::from(unit[0]), high << 8 | usize::from(unit[1]));
            high = if operation == extended { argument & 0x00ff_ffff } else { 0 };
            if operation != extended {
                instructions.push((operation, argument));
            }
        }
        self.count(instructions.len())?;
        for (place, &(operation, argument)) in instructions.iter().enumerate() {
            let value = if Some(operation) == small_int {
                Some(argument.into_pyobject(py).map_err(PyErr::from)?.into_any())
            } else if constant.contains(&operation) {
                Some(constants.get_item(argument)?)
            } else {
                None
            };
            let target = match instructions.get(place + 1) {
                Some(&(operation, argument)) if operation == store => names.get(argument).map_or("", String::as_str),
                _ => "",
            };
            match (value, target) {
                (Some(_), "__firstlineno__") => self.number(usize::MAX),
                (Some(value), target) => {
                    self.number(operation);
                    match value.cast_exact::<PyTuple>() {
                        Ok(attributes) if target == "__static_attributes__" => self.unordered(Tag::Set, attributes)?,
                        _ => self.object(&value)?,
                    }
                }
                (None, _) => {
                    self.number(operation);
                    self.number(argument);
                }
            }
        }
        Ok(())
    }

    fn function(&mut self, function: &Bound<'_, PyAny>) -> Walked {
        let py = function.py();
        self.tag(Tag::Function);
        let code = function.getattr(intern!(py, "__code__"))?;
        let module = function.getattr(intern!(py, "__module__"))?.cast_into::<PyString>().ok();
        let name = text_of(function, "__qualname__")?;
        let is_own = self.is_own(module.as_ref());
        match &module {
            _ if is_own => self.tag(Tag::Own),
            Some(module) => self.text(if is_main(module) { intern!(py, "__main__") } else { module })?,
            None => return Err(Obstacle::clause("is defined outside of any module")),
        }
        if let Some(own) = &mut self.own
            && is_own
            && own.name == name.to_string_lossy()
        {
            own.code = code.as_ptr().addr();
        } else {
            self.text(&name)?;
        }
        // Whose namespace it runs in: not the same where a decorator has given its own function another's name.
        let globals = function.getattr(intern!(py, "__globals__"))?.cast_into::<PyDict>().map_err(PyErr::from)?;
        let home = globals.get_item(intern!(py, "__name__"))?.and_then(|name| name.cast_into::<PyString>().ok());
        match &home {
            None if is_own => self.tag(Tag::Own),
            None => return Err(Obstacle::clause("is defined outside of any module")),
            Some(home) => {
                if !self.is_own(Some(home)) && is_typed(&text_of(&code, "co_filename")?) {
                    return Err(Obstacle::clause("is defined at a prompt, not in a file"));
                }
                self.home(home, Some(&globals))?;
            }
        }
        self.object(&code).map_err(|obstacle| obstacle.of(py, "has code that"))?;
        self.defaults(function, &code)?;
        self.closure(function, &code)
    }

    fn defaults(&mut self, function: &Bound<'_, PyAny>, code: &Bound<'_, PyAny>) -> Walked {
        let py = function.py();
        let within = |obstacle: Obstacle, name: &str| obstacle.of(py, &format!("has a default for '{name}', which"));
        let Ok(defaults) = function.getattr(intern!(py, "__defaults__"))?.cast_into::<PyTuple>() else {
            self.tag(Tag::Absent);
            return self.keyword_defaults(function, within);
        };
        let names: Vec<String> = code.getattr(intern!(py, "co_varnames"))?.extract()?;
        let positional: usize = code.getattr(intern!(py, "co_argcount"))?.extract()?;
        let first = positional.saturating_sub(defaults.len());
        self.tag(Tag::Tuple);
        self.count(defaults.len())?;
        for (place, value) in defaults.iter().enumerate() {
            let name = names.get(first + place).map_or("?", String::as_str);
            self.object(&value).map_err(|obstacle| within(obstacle, name))?;
        }
        self.keyword_defaults(function, within)
    }

    fn keyword_defaults(&mut self, function: &Bound<'_, PyAny>, within: impl Fn(Obstacle, &str) -> Obstacle) -> Walked {
        let Ok(defaults) = function.getattr(intern!(function.py(), "__kwdefaults__"))?.cast_into::<PyDict>() else {
            self.tag(Tag::Absent);
            return Ok(());
        };
        self.tag(Tag::Dict);
        self.count(defaults.len())?;
        for pair in defaults.items().to_tuple() {
            let name = pair.get_item(0)?;
            self.pair(&pair).map_err(|obstacle| within(obstacle, &name.to_string()))?;
        }
        Ok(())
    }

    fn closure(&mut self, function: &Bound<'_, PyAny>, code: &Bound<'_, PyAny>) -> Walked {
        let py = function.py();
        let own = text_of(code, "co_name")?.to_string_lossy().into_owned();
        // What it wraps is what it most often closes over, too.
        let attributes = function.getattr(intern!(py, "__dict__"))?.cast_into::<PyDict>().map_err(PyErr::from)?;
        let mut wrapped = attributes.get_item(intern!(py, "__wrapped__"))?;
        if let Ok(cells) = function.getattr(intern!(py, "__closure__"))?.cast_into::<PyTuple>() {
            let names: Vec<String> = code.getattr(intern!(py, "co_freevars"))?.extract()?;
            self.tag(Tag::Tuple);
            self.count(cells.len())?;
            for (place, cell) in cells.iter().enumerate() {
                let name = names.get(place).map_or("?", String::as_str);
                let within = |obstacle: Obstacle| obstacle.of(py, &format!("closes over '{name}', which"));
                match cell.getattr(intern!(py, "cell_contents")) {
                    Ok(value) => {
                        self.object(&value).map_err(within)?;
                        wrapped = wrapped.filter(|wrapped| !wrapped.is(&value));
                    }
                    Err(error) if !error.is_instance_of::<PyValueError>(py) => return Err(error.into()),
                    // The function itself, which is not there before its decorators have run, and the class around it.
                    Err(_) if name == own || name == "__class__" => self.tag(Tag::Absent),
                    Err(_) => return Err(within(Obstacle::clause("has no value yet"))),
                }
            }
        } else {
            self.tag(Tag::Absent);
        }
        if let Some(wrapped) = wrapped {
            self.object(&wrapped).map_err(|obstacle| obstacle.of(py, "wraps what"))
        } else {
            self.tag(Tag::Absent);
            Ok(())
        }
    }

    /// A native function by its name. False: it is bound to an object.
    fn native(&mut self, function: &Bound<'_, PyCFunction>) -> Walked<bool> {
        let py = function.py();
        let owner = function.getattr(intern!(py, "__self__"))?;
        if !owner.is_none() && !owner.is_instance_of::<PyModule>() {
            return Ok(false);
        }
        self.tag(Tag::Native);
        self.text(&text_of(function, "__module__")?)?;
        self.text(&text_of(function, "__qualname__")?)?;
        Ok(true)
    }

    /// A class by its name, if that leads to no other.
    fn class(&mut self, class: &Bound<'_, PyType>) -> Walked {
        const ON_HEAP: u64 = 1 << 9;
        self.tag(Tag::Class);
        let module = text_of(class, "__module__")?;
        let name = text_of(class, "__qualname__")?;
        if class.getattr(intern!(class.py(), "__flags__"))?.extract::<u64>()? & ON_HEAP != 0 {
            match find(class, &module, &name)? {
                // A class inside of another that is still being defined.
                Found::Itself | Found::Nothing { outermost: true } => {}
                Found::Another | Found::Nothing { outermost: false } => return Err(Obstacle::opaque()),
            }
        }
        self.home(&module, None)?;
        self.text(&name)
    }

    fn module(&mut self, module: &Bound<'_, PyModule>) -> Walked {
        self.tag(Tag::Module);
        let name = text_of(module, "__name__")?;
        if !modules(module.py())?.get_item(&name)?.is_some_and(|found| found.is(module)) {
            return Err(Obstacle::opaque());
        }
        self.home(&name, None)
    }

    /// A module by its name; the main one by its file, too. Its namespace, if that is at hand.
    fn home<'py>(&mut self, module: &Bound<'py, PyString>, namespace: Option<&Bound<'py, PyDict>>) -> Walked {
        let py = module.py();
        if self.is_own(Some(module)) {
            self.tag(Tag::Own);
            return Ok(());
        }
        let found = if namespace.is_none() { modules(py)?.get_item(module)? } else { None };
        let attribute = |name: &Bound<'py, PyString>| match (namespace, &found) {
            (Some(namespace), _) => namespace.get_item(name),
            (None, Some(module)) => module.getattr_opt(name),
            (None, None) => Ok(None),
        };
        let file = attribute(intern!(py, "__file__"))?;
        let name = if is_main(module) { intern!(py, "__main__") } else { module };
        self.text(name)?;
        let Some(file) = file.and_then(|file| file.cast_into::<PyString>().ok()) else {
            if is_main(module) {
                return Err(Obstacle::clause("is defined in __main__, which has no file"));
            }
            // Built in.
            self.tag(Tag::Absent);
            return Ok(());
        };
        // Two projects may have a module of one name each, and what their functions call is not looked at.
        let path = real_path(&file)?;
        // A program that PyInstaller made unpacks itself into another folder each time: it is known by its own file, and the
        // module by its place in there.
        if let Some(folder) = sys(py)?.getattr_opt(intern!(py, "_MEIPASS"))?.and_then(|folder| folder.cast_into().ok())
            && let Some(place) = place_under(&path, &real_path(&folder)?)?
        {
            self.tag(Tag::Unpacked);
            match sys(py)?.getattr_opt(intern!(py, "executable"))?.and_then(|program| program.cast_into().ok()) {
                Some(program) => self.text(&real_path(&program)?)?,
                None => self.tag(Tag::Absent),
            }
            return self.text(&place);
        }
        let loader = match attribute(intern!(py, "__spec__"))? {
            Some(spec) if !spec.is_none() => spec.getattr_opt(intern!(py, "loader"))?,
            _ => attribute(intern!(py, "__loader__"))?,
        };
        if let Some(loader) = loader
            && let Some((archive, files)) = archive_of(&loader)?
            && is_temporary(&archive)
            && let Some(place) = place_under(&path, &archive)?
        {
            return self.archived(&files, &place);
        }
        self.text(&path)
    }

    /// A module in a zip file that is kept with temporary files, where who runs a program unpacks or copies its parts anew
    /// each time. Its path says nothing then, and its name alone too little: two programs may have a `library.zip` each. So it
    /// is known by what it contains. Any other zip file is known by its path, as a folder is: one that is put in its place
    /// is a new version of the same program.
    fn archived(&mut self, files: &Bound<'_, PyDict>, place: &Bound<'_, PyString>) -> Walked {
        let mut members = Vec::with_capacity(files.len());
        for (name, entry) in files.iter() {
            // Path, compression, both sizes, offset, time, date, checksum; of a folder that has no entry there is nothing.
            let Ok(entry) = entry.cast_into::<PyTuple>() else { continue };
            let (size, checksum): (u64, u64) = (entry.get_item(3)?.extract()?, entry.get_item(7)?.extract()?);
            members.push((name.extract::<String>()?, size, checksum));
        }
        members.sort_unstable();
        let mut content = Vec::new();
        for (name, size, checksum) in members {
            content.extend((name.len() as u64).to_le_bytes());
            content.extend(name.as_bytes());
            content.extend(size.to_le_bytes());
            content.extend(checksum.to_le_bytes());
        }
        self.tag(Tag::Archived);
        self.raw(&xxh3_128(&content).to_le_bytes())?;
        self.text(place)
    }

    /// Any other object, by what `pickle` would make it anew from.
    fn reduced(&mut self, object: &Bound<'_, PyAny>) -> Walked {
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
    fn global(&mut self, object: &Bound<'_, PyAny>, name: &Bound<'_, PyString>) -> Walked {
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

/// The function of an exact `staticmethod`.
fn inside_static_method<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    if object.is_exact_instance(&py.import("builtins")?.getattr("staticmethod")?) {
        object.getattr(intern!(py, "__func__")).map(Some)
    } else {
        Ok(None)
    }
}

/// The function of a cached one. That it is cached changes nothing about what it returns.
fn inside_cache<'py>(object: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
    let py = object.py();
    if let Ok(cached) = object.cast::<CachedFunction>() {
        return Ok(Some(cached.get().function().bind(py).clone()));
    }
    let Some(kind) = py.import("functools")?.getattr_opt("_lru_cache_wrapper")? else {
        return Ok(None);
    };
    if object.is_exact_instance(&kind) { object.getattr_opt(intern!(py, "__wrapped__")) } else { Ok(None) }
}

/// What is found under an object's name.
fn find(object: &Bound<'_, PyAny>, module: &Bound<'_, PyString>, name: &Bound<'_, PyString>) -> PyResult<Found> {
    let Some(mut place) = modules(object.py())?.get_item(module)? else {
        return Ok(Found::Nothing { outermost: false });
    };
    let name = name.to_string_lossy();
    for (depth, part) in name.split('.').enumerate() {
        let Some(next) = place.getattr_opt(part)? else {
            return Ok(Found::Nothing { outermost: depth == 0 && name.contains('.') && !name.contains("<locals>") });
        };
        place = next;
    }
    Ok(if place.is(object) { Found::Itself } else { Found::Another })
}

fn is_pickle_buffer(object: &Bound<'_, PyAny>) -> PyResult<bool> {
    // Without the module there can be none.
    let Some(pickle) = ffi::imported(object.py(), intern!(object.py(), "_pickle")) else { return Ok(false) };
    Ok(object.is_exact_instance(&pickle.getattr("PickleBuffer")?))
}

fn modules(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    Ok(sys(py)?.getattr("modules")?.cast_into::<PyDict>()?)
}

fn sys(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "sys"))
}

fn real_path<'py>(path: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyString>> {
    let py = path.py();
    Ok(py.import("os")?.getattr("path")?.call_method1("realpath", (path,))?.cast_into::<PyString>()?)
}

/// Where under a folder a path is, if it is there.
fn place_under<'py>(
    path: &Bound<'py, PyString>,
    folder: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyString>>> {
    let above = folder.add(std::path::MAIN_SEPARATOR_STR)?;
    let place = path.call_method1(intern!(path.py(), "removeprefix"), (above,))?.cast_into::<PyString>()?;
    Ok((place.len()? < path.len()?).then_some(place))
}

/// The path of the zip file from which a module was imported, and what `zipimport` has read of its files.
fn archive_of<'py>(loader: &Bound<'py, PyAny>) -> PyResult<Option<(Bound<'py, PyString>, Bound<'py, PyDict>)>> {
    let py = loader.py();
    // Who has imported from one has imported this.
    let Some(zipimport) = modules(py)?.get_item(intern!(py, "zipimport"))? else { return Ok(None) };
    let is_it = match zipimport.getattr_opt(intern!(py, "zipimporter"))? {
        Some(kind) => loader.is_instance(&kind)?,
        None => false,
    };
    if is_it
        && let Some(archive) = loader.getattr_opt(intern!(py, "archive"))?
        && let Some(all) = zipimport.getattr_opt(intern!(py, "_zip_directory_cache"))?
        && let Some(Ok(files)) = all.cast_into::<PyDict>()?.get_item(&archive)?.map(Bound::cast_into)
    {
        return Ok(Some((real_path(archive.cast::<PyString>()?)?, files)));
    }
    Ok(None)
}

/// Whether a path is where temporary files are.
fn is_temporary(path: &Bound<'_, PyString>) -> bool {
    let folders = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
    let Ok(path) = path.extract::<std::path::PathBuf>() else { return false };
    let real = folders.iter().map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.clone()));
    folders.iter().cloned().chain(real).any(|folder| path.starts_with(folder))
}

/// A name that an object has.
fn text_of<'py>(object: &Bound<'py, PyAny>, attribute: &str) -> Walked<Bound<'py, PyString>> {
    object.getattr(attribute)?.cast_into::<PyString>().map_err(|_| Obstacle::opaque())
}

/// The module's name as it is in every process: a spawned child runs its parent's main module under another.
fn public(module: &str) -> &str {
    if module == "__mp_main__" { "__main__" } else { module }
}

fn is_main(module: &Bound<'_, PyString>) -> bool {
    public(&module.to_string_lossy()) == "__main__"
}

/// Whether code of this file was typed in. Every prompt has its own name for that, and may be that of some module.
fn is_typed(file: &Bound<'_, PyString>) -> bool {
    let file = file.to_string_lossy();
    file.starts_with('<') && ["stdin", "console", "input", "pyshell"].iter().any(|prompt| file.contains(prompt))
}
