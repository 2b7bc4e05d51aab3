//! Methods of native types and functions of the module: what stands between the interpreter and safe code.
//!
//! pyo3 has all of this, too. But it makes the errors of a method when the method has returned, and has no other way out than
//! to end the process where there is no memory for one; and foreign code may run in it before a method begins. So each slot
//! here prepares the thread, turns a panic into an exception, and gets errors that have been made.

#![allow(unsafe_code)]

use super::error::exception;
use super::ffi::{self as bridge, Arg, Call, Given};
use super::thread;
use pyo3::PyTypeInfo;
use pyo3::exceptions::PyTypeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyType};
use std::ffi::{CStr, c_int, c_ulong, c_void};
use std::marker::PhantomData;
use std::ptr::null_mut;

/// The result of a slot, one value of which says that an exception is set.
pub(super) trait Answer {
    /// Says so.
    const RAISED: Self;
}

impl Answer for *mut ffi::PyObject {
    const RAISED: Self = null_mut();
}

impl Answer for c_int {
    const RAISED: Self = -1;
}

/// Runs what a slot does.
///
/// # Safety
/// The interpreter calls the slot, so that the thread is attached.
#[inline]
pub(super) unsafe fn slot<R: Answer, E: Into<bridge::Raised>>(body: impl FnOnce(Python<'_>) -> Result<R, E>) -> R {
    // SAFETY: as the caller says; where pyo3 does not know that, it is told.
    unsafe {
        thread::prepare(Python::assume_attached());
        Python::attach_unchecked(|py| {
            let done = bridge::guarded(py, || body(py).map_err(E::into));
            done.and_then(|done| done).unwrap_or(R::RAISED)
        })
    }
}

/// A method, or a function of the module.
pub(crate) trait Method {
    /// The type of its first argument. A function has the module there, a class method the class.
    type Of;
    /// How it is called besides by position and by name.
    const FLAGS: c_int = 0;
    /// Its name.
    const NAME: &'static CStr;
    /// Its signature, and what `help()` shows.
    const DOC: &'static CStr;

    /// Does it.
    fn call<'py>(this: &Bound<'py, Self::Of>, given: Given<'_>) -> PyResult<Bound<'py, PyAny>>;
}

/// Declares methods, each as a type that has the signature and the documentation beside the function that does it.
macro_rules! methods {
    ($($kind:ident($of:ty, $flags:expr) = $name:literal $signature:literal $doc:literal $body:expr;)*) => {
        $(
            struct $kind;

            impl crate::py::method::Method for $kind {
                type Of = $of;
                const FLAGS: std::ffi::c_int = $flags;
                const NAME: &'static std::ffi::CStr = crate::py::method::text(concat!($name, "\0"));
                const DOC: &'static std::ffi::CStr =
                    crate::py::method::text(concat!($name, $signature, "\n--\n\n", $doc, "\0"));

                fn call<'py>(
                    this: &pyo3::Bound<'py, Self::Of>,
                    given: crate::py::ffi::Given<'_>,
                ) -> pyo3::PyResult<pyo3::Bound<'py, pyo3::PyAny>> {
                    $body(this, given)
                }
            }
        )*
    };
}
pub(crate) use methods;

/// A text that ends with a zero.
pub(crate) const fn text(text: &'static str) -> &'static CStr {
    match CStr::from_bytes_with_nul(text.as_bytes()) {
        Ok(text) => text,
        Err(_) => panic!("the text has a zero in it"),
    }
}

unsafe extern "C" fn enter<M: Method>(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this method of an object that it is one of, with that many arguments and then as many as
    // there are names, all of which it keeps alive.
    unsafe {
        slot(|py| {
            let this = Borrowed::from_ptr(py, this).to_owned().cast_into_unchecked::<M::Of>();
            let call = Call::new(args, count.unsigned_abs(), names);
            M::call(&this, call.given()).map(Bound::into_ptr)
        })
    }
}

unsafe extern "C" fn enter_with_tuple<M: Method>(
    this: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    kwargs: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot of an instance, with a tuple, and a dict where there are names. It keeps all of
    // them alive, and nobody else changes the dict.
    unsafe {
        slot(|py| {
            let this = Borrowed::from_ptr(py, this).to_owned().cast_into_unchecked::<M::Of>();
            if !kwargs.is_null() && ffi::PyDict_Size(kwargs) > 0 {
                let text = format!("{}() takes no keyword arguments", M::NAME.to_string_lossy());
                return Err(exception::<PyTypeError>(&text));
            }
            let args = Borrowed::from_ptr(py, args);
            let values = bridge::items(Arg::new(args.as_unbound()));
            let given = Given { values, positional: values.len(), names: &[], tuple: None };
            M::call(&this, given).map(Bound::into_ptr)
        })
    }
}

/// A slot that takes nothing but the instance, and does what `M` does.
pub(super) unsafe extern "C" fn enter_alone<M: Method>(this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot of an instance, which is alive.
    unsafe {
        slot(|py| {
            let this = Borrowed::from_ptr(py, this).to_owned().cast_into_unchecked::<M::Of>();
            M::call(&this, Given::NOTHING).map(Bound::into_ptr)
        })
    }
}

/// The method as the interpreter wants it described.
pub(crate) fn definition<M: Method>() -> ffi::PyMethodDef {
    ffi::PyMethodDef {
        ml_name: M::NAME.as_ptr(),
        ml_meth: ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: enter::<M> },
        ml_flags: ffi::METH_FASTCALL | ffi::METH_KEYWORDS | M::FLAGS,
        ml_doc: M::DOC.as_ptr(),
    }
}

/// Adds functions to the module.
pub(crate) fn add_functions<const N: usize>(
    module: &Bound<'_, PyModule>,
    functions: [ffi::PyMethodDef; N],
) -> PyResult<()> {
    let py = module.py();
    let name = module.name()?;
    for function in Box::leak(Box::new(functions)) {
        // SAFETY: the description lives for ever, as its texts do, and both objects are alive.
        let (made, called) = unsafe {
            let made = ffi::PyCFunction_NewEx(function, module.as_ptr(), name.as_ptr());
            (Bound::from_owned_ptr_or_err(py, made)?, CStr::from_ptr(function.ml_name))
        };
        module.add(called.to_string_lossy().as_ref(), made)?;
    }
    Ok(())
}

/// A table of methods as a type wants it: one that lives for ever, and ends with an empty entry.
pub(super) fn table(methods: &[ffi::PyMethodDef]) -> *mut ffi::PyMethodDef {
    let mut methods = Vec::from(methods);
    methods.push(ffi::PyMethodDef::zeroed());
    Box::leak(methods.into_boxed_slice()).as_mut_ptr()
}

/// The behaviour of a type that is derived from a pyclass to have methods of this kind.
pub(crate) trait Behaviour: pyo3::PyClass {
    /// The attribute of that name, if no look-up finds one.
    fn attribute<'py>(_: &Bound<'py, Self>, _: &Bound<'py, PyString>) -> PyResult<Option<Bound<'py, PyAny>>> {
        Ok(None)
    }

    /// Its `__class__`.
    fn class<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyType>>;

    /// The object that an instance gives under its name, or else a class.
    fn bind<'py>(this: &Bound<'py, Self>, instance: Option<&Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>>;

    /// Its representation.
    fn represent(this: &Bound<'_, Self>) -> PyResult<String>;
}

unsafe extern "C" fn get_attribute<B: Behaviour>(
    this: *mut ffi::PyObject,
    name: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot of an instance, and both objects are alive.
    unsafe {
        let found = ffi::PyObject_GenericGetAttr(this, name);
        if !found.is_null() || ffi::PyErr_ExceptionMatches(ffi::PyExc_AttributeError) == 0 {
            return found;
        }
        slot(|py| {
            let absent = bridge::Raised::indicated(py).fetch(py);
            let this = Borrowed::from_ptr(py, this).to_owned().cast_into_unchecked::<B>();
            let name = Borrowed::from_ptr(py, name).to_owned();
            let found = match name.cast::<PyString>() {
                Ok(name) => B::attribute(&this, name)?,
                Err(_) => None,
            };
            found.map(Bound::into_ptr).ok_or(absent)
        })
    }
}

/// Attributes that are computed.
pub(crate) trait Getter {
    /// The type that has them.
    type Of;

    /// The attribute of that name, one for which there is a [`getter`].
    fn get<'py>(this: &Bound<'py, Self::Of>, name: &CStr) -> PyResult<Bound<'py, PyAny>>;
}

unsafe extern "C" fn get<G: Getter>(this: *mut ffi::PyObject, name: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this getter of an instance, which is alive. The name is the one beside this in `getter`.
    unsafe {
        slot(|py| {
            let this = Borrowed::from_ptr(py, this).to_owned().cast_into_unchecked::<G::Of>();
            G::get(&this, CStr::from_ptr(name.cast_const().cast())).map(Bound::into_ptr)
        })
    }
}

/// The getter of an attribute as the interpreter wants it described.
pub(super) fn getter<G: Getter>(name: &'static CStr, doc: Option<&'static CStr>) -> ffi::PyGetSetDef {
    ffi::PyGetSetDef {
        name: name.as_ptr(),
        get: Some(get::<G>),
        set: None,
        doc: doc.map_or(std::ptr::null(), CStr::as_ptr),
        closure: name.as_ptr().cast_mut().cast::<c_void>(),
    }
}

/// The attribute `__class__` of a type with a [`Behaviour`].
struct Class<B>(PhantomData<B>);

impl<B: Behaviour> Getter for Class<B> {
    type Of = B;

    fn get<'py>(this: &Bound<'py, B>, _: &CStr) -> PyResult<Bound<'py, PyAny>> {
        B::class(this).map(Bound::into_any)
    }
}

unsafe extern "C" fn get_bound<B: Behaviour>(
    this: *mut ffi::PyObject,
    instance: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter calls this slot of an instance, and the objects that there are are alive.
    unsafe {
        slot(|py| {
            let this = Borrowed::from_ptr(py, this).to_owned().cast_into_unchecked::<B>();
            let instance = Borrowed::from_ptr_or_opt(py, instance).filter(|instance| !instance.is_none());
            B::bind(&this, instance.as_deref()).map(Bound::into_ptr)
        })
    }
}

/// The method `__repr__` of a type with a [`Behaviour`].
struct Represent<B>(PhantomData<B>);

impl<B: Behaviour> Method for Represent<B> {
    type Of = B;
    const NAME: &'static CStr = c"__repr__";
    const DOC: &'static CStr = c"Return repr(self).";

    fn call<'py>(this: &Bound<'py, B>, _: Given<'_>) -> PyResult<Bound<'py, PyAny>> {
        new_text(this.py(), &B::represent(this)?)
    }
}

/// A str, for a method to return.
pub(super) fn new_text<'py>(py: Python<'py>, text: &str) -> PyResult<Bound<'py, PyAny>> {
    bridge::new_text(py, text).map(|text| text.into_bound(py)).map_err(|raised| raised.fetch(py))
}

/// Derives from a pyclass, which cannot be given a vectorcall slot, the type that has one and is used.
///
/// `offset` is where in an instance the slot is. Attribute look-up treats the type as it treats that of functions:
/// `obj.method(x)` makes no bound method.
pub(crate) fn derive_function<'py, T: Behaviour>(
    py: Python<'py>,
    name: &'static CStr,
    doc: &'static CStr,
    offset: isize,
    methods: &[ffi::PyMethodDef],
) -> PyResult<Bound<'py, PyType>> {
    // The interpreter reads the members whenever an instance is made: they must live as long as the type, which is for ever.
    let members: &'static mut [ffi::PyMemberDef] = Box::leak(Box::new([
        ffi::PyMemberDef {
            name: c"__vectorcalloffset__".as_ptr(),
            type_code: ffi::Py_T_PYSSIZET,
            offset,
            flags: ffi::Py_READONLY,
            doc: std::ptr::null(),
        },
        ffi::PyMemberDef::default(),
    ]));
    let getters = Box::leak(Box::new([
        getter::<Class<T>>(c"__class__", Some(c"What the object passes for.")),
        ffi::PyGetSetDef::default(),
    ]));
    let slots = [
        slot_of(ffi::Py_tp_getset, getters.as_mut_ptr().cast::<c_void>()),
        slot_of(ffi::Py_tp_members, members.as_mut_ptr().cast::<c_void>()),
        slot_of(ffi::Py_tp_methods, table(methods).cast::<c_void>()),
        slot_of(ffi::Py_tp_getattro, get_attribute::<T> as *mut c_void),
        slot_of(ffi::Py_tp_descr_get, get_bound::<T> as *mut c_void),
        slot_of(ffi::Py_tp_repr, enter_alone::<Represent<T>> as *mut c_void),
        slot_of(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
    ];
    // SAFETY: the slots are functions of the kinds that they are for, and what else they point to lives for ever.
    unsafe { derive::<T>(py, name, doc, ffi::Py_TPFLAGS_HAVE_VECTORCALL | ffi::Py_TPFLAGS_METHOD_DESCRIPTOR, &slots) }
}

/// Derives from a pyclass, whose own slots are pyo3's, the type whose instances are called as `M` says.
pub(crate) fn derive_callable<'py, M: Method<Of: pyo3::PyClass>>(
    py: Python<'py>,
    name: &'static CStr,
    doc: &'static CStr,
) -> PyResult<Bound<'py, PyType>> {
    // SAFETY: the slot is a function of the kind that it is for.
    unsafe { derive::<M::Of>(py, name, doc, 0, &[slot_of(ffi::Py_tp_call, enter_with_tuple::<M> as *mut c_void)]) }
}

/// Derives from a pyclass the type whose instances are iterators that go on as `M` says, with these methods besides.
pub(crate) fn derive_iterator<'py, M: Method<Of: pyo3::PyClass>>(
    py: Python<'py>,
    name: &'static CStr,
    doc: &'static CStr,
    methods: &[ffi::PyMethodDef],
) -> PyResult<Bound<'py, PyType>> {
    let slots = [
        slot_of(ffi::Py_tp_iter, ffi::PyObject_SelfIter as *mut c_void),
        slot_of(ffi::Py_tp_iternext, enter_alone::<M> as *mut c_void),
        slot_of(ffi::Py_tp_methods, table(methods).cast::<c_void>()),
    ];
    // SAFETY: the slots are functions of the kinds that they are for, and the table lives for ever.
    unsafe { derive::<M::Of>(py, name, doc, 0, &slots) }
}

fn slot_of(slot: c_int, pfunc: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot, pfunc }
}

/// Derives a type that can be neither derived from, nor changed, nor called to make an instance. Size, garbage collection, dict
/// and weak references are those of the base.
///
/// # Safety
/// The slots are functions of the kinds that they are for, or point to what lives for ever.
unsafe fn derive<'py, T: PyTypeInfo>(
    py: Python<'py>,
    name: &'static CStr,
    doc: &'static CStr,
    flags: c_ulong,
    slots: &[ffi::PyType_Slot],
) -> PyResult<Bound<'py, PyType>> {
    let base = T::type_object(py);
    let mut slots = slots.to_vec();
    slots.push(slot_of(ffi::Py_tp_doc, doc.as_ptr().cast_mut().cast::<c_void>()));
    slots.push(slot_of(0, null_mut()));
    let flags =
        flags | ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_IMMUTABLETYPE | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    // SAFETY: the slots are complete; the rest is as the caller says.
    unsafe { bridge::make_type(py, name, 0, flags, &mut slots, Some(&base)) }
}

/// Makes an instance of a pyclass one of the type that was derived from it.
pub(crate) fn adopt<'py, T: pyo3::PyClass>(instance: Bound<'py, T>, kind: &Bound<'py, PyType>) -> Bound<'py, PyAny> {
    let instance = instance.into_any();
    // SAFETY: the type was derived from the instance's own, and adds nothing to an instance: both lay it out alike. Nobody else
    // has the instance as yet. It owns a reference to its type, since that is one on the heap.
    unsafe {
        let before = ffi::Py_TYPE(instance.as_ptr());
        (*instance.as_ptr()).ob_type = kind.clone().into_ptr().cast();
        ffi::Py_DECREF(before.cast());
    }
    instance
}

/// The arguments of a call by the names of parameters, of which the first `positional` take values without a name, and an
/// empty name can be given by position only.
pub(crate) fn bind<'a, const N: usize>(
    py: Python<'_>,
    function: &str,
    parameters: &[&str; N],
    positional: usize,
    given: &Given<'a>,
) -> PyResult<[Option<Arg<'a>>; N]> {
    let mut places = [None; N];
    let (unnamed, named) = given.values.split_at(given.positional);
    if unnamed.len() > positional {
        let most = if positional == 0 { "no".to_owned() } else { format!("from 0 to {positional}") };
        let (verb, plural) = if unnamed.len() == 1 { ("was", "") } else { ("were", "s") };
        let text = format!("{function}() takes {most} positional argument{plural} but {} {verb} given", unnamed.len());
        return Err(exception::<PyTypeError>(&text));
    }
    for (place, &value) in places.iter_mut().zip(unnamed) {
        *place = Some(value);
    }
    for (&name, &value) in given.names.iter().zip(named) {
        let text = name.bind(py).cast::<PyString>().map(|name| name.to_string_lossy());
        let text = text.unwrap_or_default();
        let place = parameters.iter().position(|known| *known == text && !text.is_empty());
        let Some(place) = place.and_then(|place| places.get_mut(place)) else {
            let text = format!("{function}() got an unexpected keyword argument '{text}'");
            return Err(exception::<PyTypeError>(&text));
        };
        if place.replace(value).is_some() {
            let text = format!("{function}() got multiple values for argument '{text}'");
            return Err(exception::<PyTypeError>(&text));
        }
    }
    Ok(places)
}

/// Raises `TypeError` if there are any arguments.
pub(crate) fn nothing(method: &str, given: &Given<'_>) -> PyResult<()> {
    if given.values.is_empty() {
        return Ok(());
    }
    let text = format!("{method}() takes no arguments ({} given)", given.values.len());
    Err(exception::<PyTypeError>(&text))
}

/// The only argument, which has no name.
pub(crate) fn only<'a>(method: &str, given: &Given<'a>) -> PyResult<Arg<'a>> {
    if let (&[value], 1) = (given.values, given.positional) {
        return Ok(value);
    }
    let text = format!("{method}() takes exactly one argument ({} given)", given.values.len());
    Err(exception::<PyTypeError>(&text))
}
