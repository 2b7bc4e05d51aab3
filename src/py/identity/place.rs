//! Places of functions, classes and modules: the names under which other processes find them.

use super::name::{is_main, text_of};
use super::obstacle::{Obstacle, Walked};
use super::walk::{Tag, Walk};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyModule, PyString, PyTuple, PyType};
use xxhash_rust::xxh3::xxh3_128;

/// The object under another object's name, seen from its module.
pub(super) enum Found {
    Itself,
    Another,
    /// The module, or the class that should have it, is not there: it may still be being defined.
    Nothing {
        outermost: bool,
    },
}

impl Walk {
    /// A class by its name, if that leads to no other.
    pub(super) fn class(&mut self, class: &Bound<'_, PyType>) -> Walked {
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

    pub(super) fn module(&mut self, module: &Bound<'_, PyModule>) -> Walked {
        self.tag(Tag::Module);
        let name = text_of(module, "__name__")?;
        if !modules(module.py())?.get_item(&name)?.is_some_and(|found| found.is(module)) {
            return Err(Obstacle::opaque());
        }
        self.home(&name, None)
    }

    /// A module by its name; the main one by its file, too. Its namespace, if that is at hand.
    pub(super) fn home<'py>(
        &mut self,
        module: &Bound<'py, PyString>,
        namespace: Option<&Bound<'py, PyDict>>,
    ) -> Walked {
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
    pub(super) fn archived(&mut self, files: &Bound<'_, PyDict>, place: &Bound<'_, PyString>) -> Walked {
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
}

/// Looks up an object's name in its module.
pub(super) fn find(
    object: &Bound<'_, PyAny>,
    module: &Bound<'_, PyString>,
    name: &Bound<'_, PyString>,
) -> PyResult<Found> {
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

pub(super) fn modules(py: Python<'_>) -> PyResult<Bound<'_, PyDict>> {
    Ok(sys(py)?.getattr("modules")?.cast_into::<PyDict>()?)
}

pub(super) fn sys(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import(intern!(py, "sys"))
}

pub(super) fn real_path<'py>(path: &Bound<'py, PyString>) -> PyResult<Bound<'py, PyString>> {
    let py = path.py();
    Ok(py.import("os")?.getattr("path")?.call_method1("realpath", (path,))?.cast_into::<PyString>()?)
}

/// Where under a folder a path is, if it is there.
pub(super) fn place_under<'py>(
    path: &Bound<'py, PyString>,
    folder: &Bound<'py, PyString>,
) -> PyResult<Option<Bound<'py, PyString>>> {
    let above = folder.add(std::path::MAIN_SEPARATOR_STR)?;
    let place = path.call_method1(intern!(path.py(), "removeprefix"), (above,))?.cast_into::<PyString>()?;
    Ok((place.len()? < path.len()?).then_some(place))
}

/// The path of the zip file from which a module was imported, and what `zipimport` has read of its files.
pub(super) fn archive_of<'py>(
    loader: &Bound<'py, PyAny>,
) -> PyResult<Option<(Bound<'py, PyString>, Bound<'py, PyDict>)>> {
    let py = loader.py();
    // A program that has imported from an archive has imported zipimport.
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
pub(super) fn is_temporary(path: &Bound<'_, PyString>) -> bool {
    let folders = [std::env::temp_dir(), "/tmp".into(), "/var/tmp".into()];
    let Ok(path) = path.extract::<std::path::PathBuf>() else { return false };
    let real = folders.iter().map(|folder| folder.canonicalize().unwrap_or_else(|_| folder.clone()));
    folders.iter().cloned().chain(real).any(|folder| path.starts_with(folder))
}
