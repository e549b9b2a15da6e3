//! What an operator does with users.

use crate::{
    answer::Answer,
    caller::{Asks, KnownCaller},
    config::Config,
    error::ApiError,
    event::Origin,
    otp_calls::on_record,
};
use otp_core::MobileNumber;
use spin_sdk::http::HeaderMap;
use std::rc::Rc;

/// `DELETE /users/{mobileNumber}`: erases the user everywhere, known or not.
pub(crate) async fn erase(
    config: &Rc<Config>,
    headers: &HeaderMap,
    number: &str,
    origin: &Origin,
) -> Result<Answer, ApiError> {
    let caller = KnownCaller::of(headers, Asks::Erasure, config)?;
    let number = MobileNumber::parse(number, config.default_region)?;
    on_record(config, origin, &caller.name, async |service| service.erase(&number).await).await?;
    Ok(Answer::nothing())
}
