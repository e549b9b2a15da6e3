//! A mobile number, with and without a region: `GB\n07911 123456`, or the number alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use otp_core::{InvalidMobileNumber, MobileNumber, Region};

fuzz_target!(|text: &str| {
    let (region, text) = match text.split_once('\n') {
        Some((code, text)) => (code.parse::<Region>().ok(), text),
        None => (None, text),
    };
    let plain = MobileNumber::parse(text, None);
    let regional = MobileNumber::parse(text, region);
    for number in [&plain, &regional].into_iter().flatten() {
        let digits = number.as_str().strip_prefix('+').expect("it is in E.164");
        assert!(digits.bytes().all(|byte| byte.is_ascii_digit()));
        // ITU-T E.164, section 6: 15 digits at most.
        assert!((7..=15).contains(&digits.len()), "{digits}");
        // One number is one user, however often it is read, and wherever.
        assert_eq!(MobileNumber::parse(number.as_str(), None).as_ref(), Ok(number));
        assert_eq!(MobileNumber::parse(number.as_str(), region).as_ref(), Ok(number));
    }
    match plain {
        // What has a country code is the same number in every region.
        Ok(_) => assert_eq!(plain, regional),
        Err(InvalidMobileNumber::NoCountryCode) => assert!(!text.trim_start().starts_with('+')),
        Err(_) => {}
    }
});
