//! The four calls: from a body to the domain and back.

use crate::{
    answer::Answer,
    caller::{Asks, KnownCaller},
    config::Config,
    error::ApiError,
    on_record::on_record,
    origin::Origin,
    recipient,
    request::{self, Body},
};
use otp_core::{Attempt, Channel, Code, Delivery, EmailAddress, OtpId, Recipient, Refusal};
use otp_request::Fields;
use spin_sdk::http::{HeaderMap, StatusCode};
use std::rc::Rc;

/// The fields that name whom a code is for.
const RECIPIENT: &[&str] = &["mobileNumber", "email"];

/// A request to one of the calls.
pub(crate) struct Call<'a> {
    pub(crate) config: &'a Rc<Config>,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) origin: &'a Origin,
    pub(crate) body: Body,
}

/// `POST /generate-otp`
pub(crate) async fn generate(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { config, headers, origin, body } = call;
    let caller = KnownCaller::of(headers, Asks::NewCode, config)?;
    let fields = request::fields(body).await?.only(&["mobileNumber", "email", "channel"])?;
    let recipient = served(config, &fields)?;
    let delivery = delivery(&recipient, &fields)?;
    let caller = caller.asking(config, "generate-otp", &recipient, Some(&delivery));
    let issued = on_record(config, origin, &recipient, &caller, async |service| {
        service.generate(&recipient, &delivery, &caller).await
    });
    answered(config, &recipient, StatusCode::CREATED, issued.await)
}

/// `POST /resend-otp`
pub(crate) async fn resend(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { config, headers, origin, body } = call;
    let caller = KnownCaller::of(headers, Asks::SameCode, config)?;
    let recipient = served(config, &request::fields(body).await?.only(RECIPIENT)?)?;
    let caller = caller.asking(config, "resend-otp", &recipient, None);
    let issued = on_record(config, origin, &recipient, &caller, async |service| {
        service.resend(&recipient, &caller).await
    });
    answered(config, &recipient, StatusCode::OK, issued.await)
}

/// `POST /regenerate-otp`
pub(crate) async fn regenerate(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { config, headers, origin, body } = call;
    let caller = KnownCaller::of(headers, Asks::NewCode, config)?;
    let recipient = served(config, &request::fields(body).await?.only(RECIPIENT)?)?;
    let caller = caller.asking(config, "regenerate-otp", &recipient, None);
    let issued = on_record(config, origin, &recipient, &caller, async |service| {
        service.regenerate(&recipient, &caller).await
    });
    answered(config, &recipient, StatusCode::CREATED, issued.await)
}

/// `POST /verify-otp`
pub(crate) async fn verify(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { config, headers, origin, body } = call;
    let caller = KnownCaller::of(headers, Asks::Check, config)?;
    let fields = request::fields(body).await?.only(&["mobileNumber", "email", "otp", "otpId"])?;
    let named = fields.optional("mobileNumber")?.or(fields.optional("email")?);
    let (otp, otp_id) = match named {
        Some(_) => (fields.required("otp")?, fields.optional("otpId")?),
        None => return Err(ApiError::NoRecipient),
    };
    let recipient = recipient::of(&fields, config.default_region)?;
    let code = Code::parse(otp, config.policy.length)?;
    if config.require_otp_id && otp_id.is_none() {
        return Err(ApiError::MissingField("otpId"));
    }
    // What is no id at all is the id of no code.
    let otp_id = otp_id.map(|id| OtpId::parse(id).unwrap_or_else(|| OtpId::from_stored(String::new())));
    let attempt = Attempt { code, otp_id };
    let caller = caller.checking(config, &recipient, &attempt);
    let verified = on_record(config, origin, &recipient, &caller, async |service| {
        service.verify(&recipient, &attempt, &caller).await
    });
    answered(config, &recipient, StatusCode::OK, verified.await)
}

/// Whom a code is to be sent to, if codes go there.
fn served(config: &Config, fields: &Fields) -> Result<Recipient, ApiError> {
    let recipient = recipient::of(fields, config.default_region)?;
    if let Some(number) = recipient.number() {
        config.destinations.check(number)?;
    }
    Ok(recipient)
}

/// Where a new code is to go. To a mail address it goes by mail; to a number as `channel` says, and an address beside it
/// describes the user.
fn delivery(recipient: &Recipient, fields: &Fields) -> Result<Delivery, ApiError> {
    let channel = fields.optional("channel")?.map(str::parse::<Channel>).transpose()?;
    if let Some(address) = recipient.address() {
        return match channel {
            None | Some(Channel::Email) => Ok(Delivery::Email(address.clone())),
            Some(Channel::Sms) => Err(ApiError::SmsToAddress),
        };
    }
    let email = fields.optional("email")?.map(str::parse::<EmailAddress>).transpose()?;
    match channel.unwrap_or_default() {
        Channel::Sms => Ok(Delivery::Sms { email }),
        Channel::Email => Ok(Delivery::Email(email.ok_or(ApiError::MissingField("email"))?)),
    }
}

/// The answer to a call.
fn answered(
    config: &Config,
    recipient: &Recipient,
    status: StatusCode,
    answer: Result<otp_core::Answer, Refusal>,
) -> Result<Answer, ApiError> {
    match answer {
        Ok(otp_core::Answer::Issued(issued)) => Ok(Answer::code(status, recipient, &issued, config)),
        Ok(otp_core::Answer::Accepted) => Ok(Answer::accepted(recipient)),
        Ok(otp_core::Answer::Verified(verified)) => Ok(Answer::verified(recipient, &verified)),
        Ok(otp_core::Answer::Erased) => Ok(Answer::nothing()),
        Err(refusal) => Err(ApiError::Refused(refusal, config.rate_limit_policy.clone())),
    }
}
