//! Functions, on a walk: their code, defaults and closures.

use super::name::{is_main, is_typed, text_of};
use super::obstacle::{Obstacle, Walked};
use super::walk::{Tag, Walk};
use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyDict, PyModule, PyString, PyTuple};

impl Walk {
    /// A code object. Python gives its bytecode as it was compiled, whatever has specialized or instrumented it since. From 3.13
    /// on, the body of a class statement stores the number of its line: a function with such a class starts afresh when it moves.
    pub(super) fn code(&mut self, code: &Bound<'_, PyAny>) -> Walked {
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
        self.object(&code.getattr(intern!(py, "co_code"))?)?;
        self.object(&code.getattr(intern!(py, "co_consts"))?)
    }

    pub(super) fn function(&mut self, function: &Bound<'_, PyAny>) -> Walked {
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
        // The namespace in which it runs. A decorator may have given its own function the name of another module's.
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

    pub(super) fn defaults(&mut self, function: &Bound<'_, PyAny>, code: &Bound<'_, PyAny>) -> Walked {
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

    pub(super) fn keyword_defaults(
        &mut self,
        function: &Bound<'_, PyAny>,
        within: impl Fn(Obstacle, &str) -> Obstacle,
    ) -> Walked {
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

    pub(super) fn closure(&mut self, function: &Bound<'_, PyAny>, code: &Bound<'_, PyAny>) -> Walked {
        let py = function.py();
        let own = text_of(code, "co_name")?.to_string_lossy().into_owned();
        // A wrapper mostly closes over the function that it wraps.
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
    pub(super) fn native(&mut self, function: &Bound<'_, PyCFunction>) -> Walked<bool> {
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
}
