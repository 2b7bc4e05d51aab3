//! Every call of Python's C API that pyo3 has no safe form for, each behind a function that is safe to call.
//!
//! Four things need it: the vectorcall protocol, by which a call reaches us as an array of borrowed references with no
//! tuple and no dict made; hashing and comparing the commonest types inline; reading and making objects of these types for
//! other processes; and dropping references on a path where pyo3 does not know that the thread is attached.

mod attribute;
mod build;
mod call;
mod compare;
mod context;
mod coroutine;
#[cfg(unix)]
mod decode;
#[cfg(unix)]
mod detached;
mod int;
mod interpreter;
mod layout;
mod object;
mod python;
pub(crate) mod raised;
#[cfg(unix)]
mod view;
#[cfg(unix)]
mod walk;

pub(crate) use crate::sync::FREE_THREADED;
pub(crate) use attribute::{attribute, attribute_called, attribute_if_any};
pub(crate) use build::{
    bound_method, generic_alias, new_count, new_dict, new_float, new_int, new_text, new_tuple_of, put, truth,
};
pub(crate) use call::{Call, Entrance, Entry, Given, call, one_deeper};
pub(crate) use compare::{are_equal_names, ask, compare, hash, hash_telling, is_exact_int_or_str};
pub(crate) use context::{ContextToken, ContextVar};
pub(crate) use coroutine::{Sent, is_coroutine, is_generator, send, thrown};
#[cfg(unix)]
pub(crate) use decode::{new_ascii, new_bytes, new_int_of_hex, new_list_of_floats, new_text_of, new_tuple};
#[cfg(unix)]
pub(crate) use detached::detached;
pub(crate) use interpreter::{check_interpreter, imported, make_type, without_collection};
pub(crate) use layout::check_layouts;
pub(crate) use object::{Arg, Object, all_present, are_of_one_type, items};
pub(crate) use raised::{Raised, attached, check_memory, guarded, report_bugs_only, take_error};
#[cfg(unix)]
pub(crate) use view::{Digits, Text, View, is_as_frozenset, list_of_floats, text, view, view_of_base};
#[cfg(unix)]
pub(crate) use walk::{class_of, forgive, is_exactly, pairs, to_tuple};
