//! The start of the machine. The danger is a file that outlives a restart: its times are those of a clock that has begun again at
//! zero. Headers name the start, so that such a file is refused.

#![cfg_attr(target_vendor = "apple", allow(unsafe_code))]

use std::sync::OnceLock;

/// A number that the system draws when it starts. Zero if the system has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct BootId(pub(crate) [u8; 16]);

impl BootId {
    /// The present start.
    pub(crate) fn current() -> Self {
        static CURRENT: OnceLock<BootId> = OnceLock::new();
        *CURRENT.get_or_init(|| system().as_deref().and_then(Self::parse).unwrap_or_default())
    }

    /// Whether the system has one.
    pub(crate) fn is_known(self) -> bool {
        self != Self::default()
    }

    /// Whether both can be of the same start of the machine.
    pub(crate) fn agrees(self, other: Self) -> bool {
        self == other || !self.is_known() || !other.is_known()
    }

    /// From 32 hexadecimal digits, with or without hyphens.
    fn parse(text: &str) -> Option<Self> {
        let digits: String = text.trim().chars().filter(|&char| char != '-').collect();
        (digits.len() == 32).then_some(())?;
        u128::from_str_radix(&digits, 16).ok().map(|number| Self(number.to_be_bytes()))
    }
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn system() -> Option<String> {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()
}

#[cfg(target_vendor = "apple")]
fn system() -> Option<String> {
    let mut text = [0_u8; 64];
    let mut len = text.len();
    // SAFETY: the name ends with a zero, `text` has `len` bytes, and the system writes no more than those.
    let status = unsafe {
        libc::sysctlbyname(
            c"kern.bootsessionuuid".as_ptr(),
            text.as_mut_ptr().cast(),
            &raw mut len,
            std::ptr::null_mut(),
            0,
        )
    };
    (status == 0).then_some(())?;
    let written = text.get(..len)?;
    std::str::from_utf8(written).ok().map(|text| text.trim_end_matches('\0').to_owned())
}

#[cfg(not(any(target_os = "linux", target_os = "android", target_vendor = "apple")))]
fn system() -> Option<String> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_128_bits_in_hexadecimal() {
        let parsed = BootId::parse("00112233-4455-6677-8899-AABBCCDDEEFF\n").expect("a boot id");
        assert_eq!(
            parsed.0,
            [0, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff]
        );
        assert_eq!(BootId::parse("0011"), None);
        assert_eq!(BootId::parse("zz112233-4455-6677-8899-aabbccddeeff"), None);
    }

    #[test]
    #[cfg(any(target_os = "linux", target_vendor = "apple"))]
    fn the_present_boot_id_is_known_and_stays() {
        assert!(BootId::current().is_known());
        assert_eq!(system().as_deref().and_then(BootId::parse), Some(BootId::current()));
    }

    #[test]
    fn an_unknown_boot_id_agrees_with_each() {
        let (one, other) = (BootId([1; 16]), BootId([2; 16]));
        assert_eq!((one.agrees(one), one.agrees(other)), (true, false));
        assert_eq!((one.agrees(BootId::default()), BootId::default().agrees(one)), (true, true));
    }
}
