//! The four calls: from a body to the domain and back.

use crate::{
    answer::Answer,
    cache::Cache,
    config::{self, Config},
    environment::Environment,
    error::ApiError,
    request::{Body, Fields},
    store::Store,
};
use otp_core::{Attempt, Channel, Code, EmailAddress, MobileNumber, OtpError, OtpId, OtpService, Recipient};
use spin_sdk::http::StatusCode;
use std::rc::Rc;

/// `POST /generate-otp`
pub(crate) async fn generate(body: Body) -> Result<Answer, ApiError> {
    let config = config::of_instance().await?;
    let fields = Fields::read(body).await?;
    let (number, email, channel) =
        (fields.required("mobileNumber")?, fields.optional("email")?, fields.optional("channel")?);
    let number = MobileNumber::parse(number, config.default_region)?;
    let channel = channel.map_or(Ok(Channel::default()), str::parse)?;
    let email = email.map(str::parse::<EmailAddress>).transpose()?;
    let recipient = match channel {
        Channel::Sms => Recipient::Sms { email },
        Channel::Email => Recipient::Email(email.ok_or(ApiError::MissingField("email"))?),
    };
    let issued = service(&Store::new(), &config).generate(&number, &recipient).await?;
    Ok(Answer::code(StatusCode::CREATED, &number, &issued, config.reveal_otp))
}

/// `POST /resend-otp`
pub(crate) async fn resend(body: Body) -> Result<Answer, ApiError> {
    let (config, number) = number_of(body).await?;
    let issued = service(&Store::new(), &config).resend(&number).await?;
    Ok(Answer::code(StatusCode::OK, &number, &issued, config.reveal_otp))
}

/// `POST /regenerate-otp`
pub(crate) async fn regenerate(body: Body) -> Result<Answer, ApiError> {
    let (config, number) = number_of(body).await?;
    let issued = service(&Store::new(), &config).regenerate(&number).await?;
    Ok(Answer::code(StatusCode::CREATED, &number, &issued, config.reveal_otp))
}

/// `POST /verify-otp`
pub(crate) async fn verify(body: Body) -> Result<Answer, ApiError> {
    let config = config::of_instance().await?;
    let fields = Fields::read(body).await?;
    let (number, otp, otp_id) =
        (fields.required("mobileNumber")?, fields.required("otp")?, fields.optional("otpId")?);
    let attempt = Attempt {
        number: MobileNumber::parse(number, config.default_region)?,
        code: Code::parse(otp, config.policy.length)?,
        // What is no id at all is the id of no code.
        otp_id: otp_id.map(|id| OtpId::parse(id).ok_or(OtpError::NotFound)).transpose()?,
    };
    let verified = service(&Store::new(), &config).verify(&attempt).await?;
    Ok(Answer::verified(&attempt.number, &verified))
}

/// What resend and regenerate are told: whose code.
async fn number_of(body: Body) -> Result<(Rc<Config>, MobileNumber), ApiError> {
    let config = config::of_instance().await?;
    let fields = Fields::read(body).await?;
    let number = MobileNumber::parse(fields.required("mobileNumber")?, config.default_region)?;
    Ok((config, number))
}

fn service<'a>(store: &'a Store, config: &'a Config) -> OtpService<'a, Store, Cache, Environment> {
    OtpService {
        database: store,
        cache: &config.cache,
        environment: &Environment,
        keys: &config.encryption_keys,
        index: &config.index_key,
        policy: &config.policy,
    }
}
