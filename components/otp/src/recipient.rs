//! Whom a request is about, as it names them.

use crate::error::ApiError;
use otp_core::{EmailAddress, MobileNumber, Recipient, Region};
use otp_request::Fields;

/// The `mobileNumber` or, without one, the `email` of a body.
pub(crate) fn of(fields: &Fields, region: Option<Region>) -> Result<Recipient, ApiError> {
    match (fields.optional("mobileNumber")?, fields.optional("email")?) {
        (None, Some(email)) => Ok(Recipient::mail(&email.parse::<EmailAddress>()?)),
        (Some(number), _) => Ok(Recipient::Mobile(MobileNumber::parse(number, region)?)),
        (None, None) => Err(ApiError::NoRecipient),
    }
}

/// The number or the address in a path.
pub(crate) fn in_path(text: &str, region: Option<Region>) -> Result<Recipient, ApiError> {
    // What follows a number is another path, and none that there is.
    if text.contains('/') {
        return Err(ApiError::NotFound);
    }
    // No number has one.
    if text.contains('@') {
        return Ok(Recipient::mail(&text.parse::<EmailAddress>()?));
    }
    Ok(Recipient::Mobile(MobileNumber::parse(text, region)?))
}
