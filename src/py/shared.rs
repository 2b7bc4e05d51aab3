//! The shared region of one function: its identity, its figures and its end.

use super::clock;
use super::encoded::Encoded;
use super::encoding;
use super::error::{self, exception};
use super::ffi;
use super::identity::{self, Identified, Identity, Unwrap};
use super::info;
use super::key::KeyRules;
use crate::backend::shared::error::Error;
use crate::backend::shared::handle::Handle;
use crate::backend::shared::region::{self, Parameters, Purpose, Region};
use crate::backend::shared::system::directory::Location;
use crate::clock::Clock;
use crate::codec;
use crate::options::{Flavour, Naming, OptionsError, Settings, Version};
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::path::PathBuf;

/// The protocol of the pickles, the same in every Python.
const PICKLE_PROTOCOL: u8 = 5;

/// The entries of one function in a region that processes share.
pub(crate) type Shared = Encoded<Handle>;

impl Shared {
    /// The region of `function`, which is opened when it is first used. Without a stable identity it is in memory, and made now.
    pub(crate) fn new(
        function: &Bound<'_, PyAny>,
        Settings { options, naming, flavour }: &Settings,
        rules: KeyRules,
        unwrap: Unwrap,
    ) -> PyResult<Self> {
        let py = function.py();
        let max_size = options.check_shared()?;
        encoding::prepare(py).map_err(|raised| raised.fetch(py))?;
        let (identity, why_private) = match (&naming.name, &naming.version) {
            (Some(name), Some(_)) => (identity::named(name), None),
            (name, _) => match identity::identify(function, name.as_deref(), unwrap)? {
                Identified::Stable(identity) => (identity, None),
                Identified::Unstable(why) => {
                    let label = name.clone().or_else(|| error::name_of(function));
                    let label = label.unwrap_or_else(|| error::shown(function));
                    (Identity { label, digest: 0 }, Some(format!("{why}; {}", remedy(function, naming, unwrap)?)))
                }
            },
        };
        let version = py.version_info();
        let parameters = Parameters {
            max_size: max_size as u64,
            max_key_size: options.max_key_size,
            max_value_size: options.max_value_size,
            ttl_ns: options.ttl.map(crate::options::Ttl::nanoseconds),
            strategy: options.strategy as u8,
            typed: options.typed,
            pickle_protocol: PICKLE_PROTOCOL,
            python: (version.major, version.minor),
            layout: region::LAYOUT,
        };
        if !Region::can_be(&parameters) {
            return Err(OptionsError::Unaddressable.into());
        }
        let digest = digest(&identity, naming, *flavour, options.ttl.is_some());
        let purpose = Purpose { label: identity.label.clone(), digest, parameters };
        let asked = Location::asked();
        let handle = match &why_private {
            None => Handle::new(asked, purpose),
            Some(_) => Handle::private(asked, purpose),
        };
        let clock = options.ttl.map(|_| clock::chosen().unwrap_or(Clock::Machine));
        let shared = Self::of(handle, identity.label, options, clock, rules);
        if let Some(why) = why_private {
            shared.warn(py, &format!("its values are cached in this process and its forks only: {why}"))?;
        }
        Ok(shared)
    }

    /// `SharedStats`.
    pub(crate) fn stats<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.refresh(py)?;
        let handle = self.backend();
        let region = handle.region(py);
        let events = region.as_ref().map(|region| region.events()).unwrap_or_default();
        let counts = region.as_ref().map_or_else(|| handle.tallies().counts(), |region| region.counts());
        let bytes = region.as_ref().map_or(0, |region| region.bytes());
        info::shared_stats_type(py)?.call1((
            region.and_then(|region| region.path()).map(PathBuf::into_os_string),
            bytes,
            events.steals,
            events.repairs,
            events.give_ups,
            events.damaged,
            counts.unstorable,
            self.unstorable(),
        ))
    }

    /// Removes the file, and all entries with it, for all processes. Returns whether there was one.
    pub(crate) fn unlink(&self, py: Python<'_>) -> PyResult<bool> {
        let handle = self.backend();
        let open = handle.region(py);
        let removed = ffi::detached(py, || {
            let own = open.map_or(Ok(false), |region| region.retire())?;
            // Somebody may have put another one in its place.
            Ok::<_, Error>(handle.unlink()? || own)
        });
        removed.map_err(|error| exception::<PyOSError>(&error.to_string()))
    }
}

/// Advice for the user of a function that has no identity.
fn remedy(function: &Bound<'_, PyAny>, naming: &Naming, unwrap: Unwrap) -> PyResult<&'static str> {
    Ok(match (&naming.name, &naming.version) {
        (None, None) => match identity::identify(function, Some(""), unwrap)? {
            // It lacks a place of its own only. An edit of its code is seen under a name, too.
            Identified::Stable(_) => "pass name= to share them",
            Identified::Unstable(_) => {
                "pass name= and version= to share them, and another version= whenever the code changes"
            }
        },
        (None, Some(_)) => "pass name=, too, to share them, and another version= whenever the code changes",
        (Some(_), _) => "pass version=, too, to share them, and another one whenever the code changes",
    })
}

/// The digest that tells a function's region from another function's, and from one with another way to make keys.
fn digest(identity: &Identity, naming: &Naming, flavour: Flavour, is_timed: bool) -> u128 {
    let mut bytes = identity.digest.to_le_bytes().to_vec();
    bytes.push(flavour as u8);
    bytes.extend(codec::FORMAT.to_le_bytes());
    // Where clocks do not show the same time, entries are not shared.
    bytes.extend(if is_timed { region::clock_space() } else { 0 }.to_le_bytes());
    match &naming.version {
        None => bytes.push(0),
        Some(Version::Number(number)) => {
            bytes.push(1);
            bytes.extend(number.to_le_bytes());
        }
        Some(Version::Text(text)) => {
            bytes.push(2);
            bytes.extend(text.as_bytes());
        }
    }
    xxhash_rust::xxh3::xxh3_128(&bytes)
}

/// `shared_regions`: the regions in the folder that functions decorated now would use.
pub(crate) fn regions(py: Python<'_>, removes_unused: bool) -> PyResult<Bound<'_, PyAny>> {
    let location = Location::find();
    let seen = ffi::detached(py, || region::list(&location, removes_unused));
    let seen = seen.map_err(|error| exception::<PyOSError>(&error.to_string()))?;
    let kind = info::shared_region_type(py)?;
    let show = |seen: region::Seen| {
        kind.call1((
            seen.purpose.label,
            seen.path.into_os_string(),
            seen.bytes,
            seen.entries,
            seen.purpose.parameters.max_size,
            seen.counts.hits,
            seen.counts.misses,
            seen.processes,
        ))
    };
    let shown: Vec<_> = seen.into_iter().map(show).collect::<PyResult<_>>()?;
    Ok(PyList::new(py, shown)?.into_any())
}
