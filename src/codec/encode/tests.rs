use super::*;

type Encoded = Result<Vec<u8>, EncodeError>;

fn value(write: impl FnOnce(&mut Encoder<'_>) -> Result<(), EncodeError>) -> Encoded {
    let mut out = vec![0xee; 3];
    let mut encoder = Encoder::for_value(&mut out, 1 << 20);
    write(&mut encoder)?;
    encoder.finish().map(<[u8]>::to_vec)
}

/// The key of a call with one argument, without its two counts.
fn argument(typed: bool, write: impl FnOnce(&mut Encoder<'_>) -> Result<(), EncodeError>) -> Encoded {
    let mut out = Vec::new();
    let mut encoder = Encoder::for_key(&mut out, 1 << 20, 1, 0, typed)?;
    write(&mut encoder)?;
    let key = encoder.finish()?;
    assert_eq!(key[..2], [1, 0]);
    Ok(key[2..].to_vec())
}

#[test]
fn none_and_bools_are_one_byte() {
    assert_eq!(value(|it| it.none()), Ok(vec![0x01]));
    assert_eq!(value(|it| it.bool(false)), Ok(vec![0x02]));
    assert_eq!(value(|it| it.bool(true)), Ok(vec![0x03]));
}

#[test]
fn ints_are_one_byte_or_nine() {
    for (int, byte) in [(-16, 0x80), (-1, 0x8f), (0, 0x90), (1, 0x91), (111, 0xff)] {
        assert_eq!(value(|it| it.int(int)), Ok(vec![byte]));
    }
    assert_eq!(value(|it| it.int(112)), Ok(vec![0x04, 112, 0, 0, 0, 0, 0, 0, 0]));
    assert_eq!(value(|it| it.int(-17)), Ok(vec![0x04, 0xef, 255, 255, 255, 255, 255, 255, 255]));
    assert_eq!(value(|it| it.int(i64::MIN)), Ok(vec![0x04, 0, 0, 0, 0, 0, 0, 0, 0x80]));
    assert_eq!(value(|it| it.int(i64::MAX)), Ok(vec![0x04, 255, 255, 255, 255, 255, 255, 255, 0x7f]));
}

#[test]
fn a_big_int_is_as_short_as_it_can_be() {
    for digits in [&[][..], &[0], &[0; 40]] {
        assert_eq!(value(|it| it.big_int(digits)), value(|it| it.int(0)));
    }
    for digits in [&[0xff][..], &[0xff; 40]] {
        assert_eq!(value(|it| it.big_int(digits)), value(|it| it.int(-1)));
    }
    assert_eq!(value(|it| it.big_int(&[0x80])), value(|it| it.int(-128)));
    assert_eq!(value(|it| it.big_int(&[0x80, 0])), value(|it| it.int(128)));
    assert_eq!(value(|it| it.big_int(&[0, 0, 0, 0, 0, 0, 0, 0x80, 255, 255])), value(|it| it.int(i64::MIN)));
    // 2^63, and what is one less than the least i64.
    assert_eq!(
        value(|it| it.big_int(&[0, 0, 0, 0, 0, 0, 0, 0x80, 0, 0])),
        Ok(vec![0x05, 9, 0, 0, 0, 0, 0, 0, 0, 0x80, 0])
    );
    assert_eq!(
        value(|it| it.big_int(&[255, 255, 255, 255, 255, 255, 255, 0x7f, 255, 255])),
        Ok(vec![0x05, 9, 255, 255, 255, 255, 255, 255, 255, 0x7f, 255])
    );
}

#[test]
fn a_float_is_its_bits() {
    assert_eq!(value(|it| it.float(1.0)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]));
    assert_eq!(value(|it| it.float(-0.0)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0, 0x80]));
    let nan = f64::from_bits(0xfff8_0000_0000_0001);
    assert_eq!(value(|it| it.float(nan)), Ok(vec![0x06, 1, 0, 0, 0, 0, 0, 0xf8, 0xff]));
}

#[test]
fn texts_bytes_and_pickles_have_a_length() {
    assert_eq!(value(|it| it.text(b"")), Ok(vec![0x07, 0]));
    assert_eq!(value(|it| it.text("aé".as_bytes())), Ok(vec![0x07, 3, b'a', 0xc3, 0xa9]));
    assert_eq!(value(|it| it.text(b"\xed\xa0\x80")), Ok(vec![0x07, 3, 0xed, 0xa0, 0x80]));
    assert_eq!(value(|it| it.bytes(b"\x00\xff")), Ok(vec![0x08, 2, 0, 0xff]));
    assert_eq!(value(|it| it.pickle(b"N.")), Ok(vec![0x0b, 2, b'N', b'.']));
}

#[test]
fn characters_become_utf_8() {
    for text in ["", "a", "\u{7f}\u{80}\u{7ff}\u{800}", "\u{ffff}\u{10000}\u{10ffff}", "añ€😀"] {
        let points: Vec<u32> = text.chars().map(u32::from).collect();
        assert_eq!(value(|it| it.code_points(points.iter().copied())), value(|it| it.text(text.as_bytes())), "{text}");
    }
    let surrogates = [0xd800, 0xdfff];
    let bytes = b"\xed\xa0\x80\xed\xbf\xbf";
    assert_eq!(value(|it| it.code_points(surrogates.iter().copied())), value(|it| it.text(bytes)));
    let mut out = Vec::new();
    for (limit, written) in [(4, Err(EncodeError::Oversize)), (5, Ok(()))] {
        assert_eq!(Encoder::for_value(&mut out, limit).code_points([0x20ac].into_iter()), written);
    }
}

#[test]
fn an_item_goes_behind_what_is_there() {
    let mut out = vec![7; 3];
    let mut item = Encoder::for_item(&mut out, 4, false).expect("room");
    assert_eq!((item.left(), item.float(1.0), item.left()), (1, Ok(()), 0));
    assert_eq!(out, [7, 7, 7, 0x91]);
    let item = Encoder::for_item(&mut out, 13, true).expect("room").float(1.0);
    assert_eq!((item, &out[4..]), (Ok(()), &[0x06, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f][..]));
    assert_eq!(Encoder::for_item(&mut out, 12, true).map(|_| ()), Err(EncodeError::Oversize));
}

#[test]
fn a_length_is_one_byte_or_five() {
    for (length, head) in [
        (254, &[0x08, 254][..]),
        (255, &[0x08, 0xff, 255, 0, 0, 0]),
        (256, &[0x08, 0xff, 0, 1, 0, 0]),
        (70_000, &[0x08, 0xff, 0x70, 0x11, 1, 0]),
    ] {
        let bytes = vec![7; length];
        assert_eq!(value(|it| it.bytes(&bytes)), Ok([head, &bytes].concat()), "{length}");
    }
}

#[test]
fn a_tuple_has_a_count_and_the_size_of_its_items() {
    assert_eq!(value(|it| it.tuple(0, |_| Ok(()))), Ok(vec![0x09, 0, 0, 0, 0, 0]));
    let nested = value(|it| {
        it.tuple(2, |it| {
            it.text(b"a")?;
            it.tuple(1, Encoder::none)
        })
    });
    assert_eq!(nested, Ok(vec![0x09, 2, 10, 0, 0, 0, 0x07, 1, b'a', 0x09, 1, 1, 0, 0, 0, 0x01]));
}

#[test]
fn a_list_of_floats_has_one_tag() {
    assert_eq!(value(|it| it.floats([].into_iter())), Ok(vec![0x0a, 0]));
    assert_eq!(
        value(|it| it.floats([1.0, -0.0].into_iter())),
        Ok(vec![0x0a, 2, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0x80])
    );
    assert_eq!(value(|it| it.floats([0.5; 100].into_iter())).map(|bytes| bytes.len()), Ok(802));
}

#[test]
fn a_key_has_two_counts_and_then_its_items() {
    let mut out = Vec::new();
    let key = Encoder::for_key(&mut out, 100, 0, 0, false).and_then(Encoder::finish);
    assert_eq!(key, Ok(&[0, 0][..]));
    // f(1, a=None)
    let mut key = Encoder::for_key(&mut out, 100, 1, 1, false).expect("room");
    key.int(1).and_then(|()| key.text(b"a")).and_then(|()| key.none()).expect("room");
    assert_eq!(key.finish(), Ok(&[1, 1, 0x91, 0x07, 1, b'a', 0x01][..]));
}

#[test]
fn in_a_key_a_number_is_the_int_that_it_equals() {
    for (float, int) in [(1.0, 1), (-0.0, 0), (-9_007_199_254_740_992.0, -(1 << 53)), (I64_MIN, i64::MIN)] {
        assert_eq!(argument(false, |it| it.float(float)), argument(false, |it| it.int(int)), "{float}");
    }
    assert_eq!(argument(false, |it| it.bool(true)), Ok(vec![0x91]));
    assert_eq!(argument(false, |it| it.bool(false)), Ok(vec![0x90]));
    let two_to_63 = Ok(vec![0x05, 9, 0, 0, 0, 0, 0, 0, 0, 0x80, 0]);
    assert_eq!(argument(false, |it| it.float(-I64_MIN)), two_to_63);
    let below = Ok(vec![0x05, 9, 0, 0xf8, 255, 255, 255, 255, 255, 0x7f, 0xff]);
    assert_eq!(argument(false, |it| it.float(I64_MIN - 2048.0)), below);
    let greatest = argument(false, |it| it.float(f64::MAX)).expect("room");
    assert_eq!((greatest[..2].to_vec(), greatest.len()), (vec![0x05, 129], 131));
    assert_eq!((&greatest[2..122], &greatest[122..]), (&[0; 120][..], &[0, 0xf8, 255, 255, 255, 255, 255, 255, 0][..]));
}

#[test]
fn in_a_key_a_float_that_is_no_int_is_a_float() {
    assert_eq!(argument(false, |it| it.float(0.5)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f]));
    assert_eq!(argument(false, |it| it.float(f64::INFINITY)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0xf0, 0x7f]));
    for nan in [f64::NAN, -f64::NAN, f64::from_bits(0x7ff0_0000_0000_0001)] {
        for typed in [false, true] {
            assert_eq!(argument(typed, |it| it.float(nan)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0xf8, 0x7f]));
        }
    }
}

#[test]
fn in_a_typed_key_an_argument_keeps_its_type_and_the_items_of_a_tuple_do_not() {
    assert_eq!(argument(true, |it| it.bool(true)), Ok(vec![0x03]));
    assert_eq!(argument(true, |it| it.float(1.0)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0xf0, 0x3f]));
    assert_eq!(argument(true, |it| it.float(-0.0)), Ok(vec![0x06, 0, 0, 0, 0, 0, 0, 0, 0]));
    let pair = |it: &mut Encoder<'_>| {
        it.bool(true)?;
        it.float(1.0)
    };
    assert_eq!(argument(true, |it| it.tuple(2, pair)), Ok(vec![0x09, 2, 2, 0, 0, 0, 0x91, 0x91]));
    assert_eq!(value(|it| it.tuple(2, pair)).map(|bytes| bytes.len()), Ok(16));
}

#[test]
fn nothing_is_written_past_the_limit() {
    let mut out = Vec::new();
    let mut encoder = Encoder::for_value(&mut out, 10);
    assert_eq!(encoder.bytes(&[0; 9]), Err(EncodeError::Oversize));
    assert_eq!(encoder.floats([0.0, 0.0].into_iter()), Err(EncodeError::Oversize));
    assert_eq!(encoder.tuple(5, |_| Ok(())), Err(EncodeError::Oversize));
    assert_eq!(encoder.tuple(usize::MAX, |_| Ok(())), Err(EncodeError::Oversize));
    assert_eq!(encoder.tuple(2, |it| it.none().and_then(|()| it.float(0.5))), Err(EncodeError::Oversize));
    assert_eq!(encoder.bytes(&[7; 8]), Ok(()));
    assert_eq!(encoder.finish(), Ok(&[0x08, 8, 7, 7, 7, 7, 7, 7, 7, 7][..]));
    for (limit, counts) in [(1, (0, 0)), (2, (1, 0)), (3, (0, 1)), (100, (usize::MAX, 0)), (100, (0, usize::MAX))] {
        let key = Encoder::for_key(&mut out, limit, counts.0, counts.1, false);
        assert_eq!(key.map(|_| ()), Err(EncodeError::Oversize), "{limit}, {counts:?}");
    }
    assert_eq!(out, []);
}

#[test]
fn the_items_are_as_many_as_announced() {
    let mut out = Vec::new();
    assert_eq!(Encoder::for_value(&mut out, 100).finish(), Err(EncodeError::Miscounted));
    let mut encoder = Encoder::for_value(&mut out, 100);
    assert_eq!(encoder.tuple(2, Encoder::none), Err(EncodeError::Miscounted));
    assert_eq!(encoder.tuple(0, Encoder::none), Err(EncodeError::Miscounted));
    assert_eq!(encoder.none(), Ok(()));
    assert_eq!(encoder.none(), Err(EncodeError::Miscounted));
    assert_eq!(encoder.finish(), Ok(&[0x01][..]));
}

#[test]
fn tuples_nest_to_a_limit() {
    fn nest(encoder: &mut Encoder<'_>, levels: u8) -> Result<(), EncodeError> {
        if levels == 0 { encoder.none() } else { encoder.tuple(1, |inner| nest(inner, levels - 1)) }
    }
    assert_eq!(value(|it| nest(it, MAX_DEPTH)).map(|bytes| bytes.len()), Ok(6 * usize::from(MAX_DEPTH) + 1));
    assert_eq!(value(|it| nest(it, MAX_DEPTH + 1)), Err(EncodeError::TooDeep));
    // Side by side, there may be any number of them.
    assert!(value(|it| it.tuple(100, |it| (0..100).try_for_each(|_| nest(it, 1)))).is_ok());
}
