//! What an operator does with users.

use crate::{
    answer::Answer,
    caller::{Asks, KnownCaller},
    config::Config,
    error::ApiError,
    on_record::on_record,
    origin::Origin,
    recipient,
};
use spin_sdk::http::HeaderMap;
use std::rc::Rc;

/// `DELETE /users/{mobileNumber or email}`: erases the user everywhere in this application, known or not.
pub(crate) async fn erase(
    config: &Rc<Config>,
    headers: &HeaderMap,
    user: &str,
    origin: &Origin,
) -> Result<Answer, ApiError> {
    let caller = KnownCaller::of(headers, Asks::Erasure, config)?.plain();
    let recipient = recipient::in_path(user, config.default_region)?;
    let erased = on_record(config, origin, &recipient, &caller, async |service| {
        service.erase(&recipient, &caller).await
    });
    erased.await?;
    Ok(Answer::nothing())
}
