//! The four calls: from a body to the domain and back.

use crate::{
    answer::Answer,
    cache::Cache,
    config::{self, Config},
    environment::Environment,
    error::ApiError,
    event::{Draft, Origin},
    publish,
    request::{Body, Fields},
    store::{RequestStore, Store},
};
use otp_core::{Attempt, Channel, Code, EmailAddress, MobileNumber, OtpError, OtpId, OtpService, Recipient};
use spin_sdk::http::StatusCode;
use std::rc::Rc;

/// `POST /generate-otp`
pub(crate) async fn generate(body: Body, origin: &Origin) -> Result<Answer, ApiError> {
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
    let issued =
        on_record(&config, origin, async |service| service.generate(&number, &recipient).await).await?;
    Ok(Answer::code(StatusCode::CREATED, &number, &issued, config.reveal_otp))
}

/// `POST /resend-otp`
pub(crate) async fn resend(body: Body, origin: &Origin) -> Result<Answer, ApiError> {
    let (config, number) = number_of(body).await?;
    let issued = on_record(&config, origin, async |service| service.resend(&number).await).await?;
    Ok(Answer::code(StatusCode::OK, &number, &issued, config.reveal_otp))
}

/// `POST /regenerate-otp`
pub(crate) async fn regenerate(body: Body, origin: &Origin) -> Result<Answer, ApiError> {
    let (config, number) = number_of(body).await?;
    let issued = on_record(&config, origin, async |service| service.regenerate(&number).await).await?;
    Ok(Answer::code(StatusCode::CREATED, &number, &issued, config.reveal_otp))
}

/// `POST /verify-otp`
pub(crate) async fn verify(body: Body, origin: &Origin) -> Result<Answer, ApiError> {
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
    let verified = on_record(&config, origin, async |service| service.verify(&attempt).await).await?;
    Ok(Answer::verified(&attempt.number, &verified))
}

/// What resend and regenerate are told: whose code.
async fn number_of(body: Body) -> Result<(Rc<Config>, MobileNumber), ApiError> {
    let config = config::of_instance().await?;
    let fields = Fields::read(body).await?;
    let number = MobileNumber::parse(fields.required("mobileNumber")?, config.default_region)?;
    Ok((config, number))
}

/// Does `work` with the service. What it leaves in the outbox, whatever the answer, is pushed after that.
async fn on_record<T>(
    config: &Rc<Config>,
    origin: &Origin,
    work: impl AsyncFnOnce(OtpService<'_, RequestStore<'_>, Cache, Environment>) -> Result<T, OtpError>,
) -> Result<T, OtpError> {
    let store = RequestStore { store: Store::new(), draft: Draft { origin, config } };
    let service = OtpService {
        database: &store,
        cache: &config.cache,
        environment: &Environment,
        keys: &config.encryption_keys,
        index: &config.index_key,
        policy: &config.policy,
    };
    let outcome = work(service).await;
    publish::soon(config);
    outcome
}
