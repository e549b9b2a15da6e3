//! The four calls: from a body to the domain and back.

use crate::{
    answer::Answer,
    cache::Cache,
    caller::{Asks, KnownCaller},
    config::Config,
    destinations,
    environment::Environment,
    error::ApiError,
    event::{Draft, Origin},
    publish,
    request::{self, Body},
    store::{RequestStore, Store},
};
use otp_core::{
    Attempt, Channel, Code, EmailAddress, IssuedCode, MobileNumber, OtpError, OtpId, OtpService, Recipient,
};
use spin_sdk::http::{HeaderMap, StatusCode};
use std::rc::Rc;

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
    let fields = request::fields(body).await?;
    let (number, email, channel) =
        (fields.required("mobileNumber")?, fields.optional("email")?, fields.optional("channel")?);
    let number = MobileNumber::parse(number, config.default_region)?;
    let channel = channel.map_or(Ok(Channel::default()), str::parse)?;
    let email = email.map(str::parse::<EmailAddress>).transpose()?;
    let recipient = match channel {
        Channel::Sms => Recipient::Sms { email },
        Channel::Email => Recipient::Email(email.ok_or(ApiError::MissingField("email"))?),
    };
    config.destinations.check(&number)?;
    let (name, caller) = caller.asking(config, "generate-otp", &number, Some(&recipient));
    let issued = on_record(config, origin, &name, async |service| {
        service.generate(&number, &recipient, &caller).await
    });
    given(config, &number, StatusCode::CREATED, issued.await)
}

/// `POST /resend-otp`
pub(crate) async fn resend(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { config, headers, origin, body } = call;
    let caller = KnownCaller::of(headers, Asks::SameCode, config)?;
    let number = number_of(config, body).await?;
    let (name, caller) = caller.plain();
    let issued = on_record(config, origin, &name, async |service| service.resend(&number, &caller).await);
    given(config, &number, StatusCode::OK, issued.await)
}

/// `POST /regenerate-otp`
pub(crate) async fn regenerate(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { config, headers, origin, body } = call;
    let caller = KnownCaller::of(headers, Asks::NewCode, config)?;
    let number = number_of(config, body).await?;
    let (name, caller) = caller.asking(config, "regenerate-otp", &number, None);
    let issued = on_record(config, origin, &name, async |service| service.regenerate(&number, &caller).await);
    given(config, &number, StatusCode::CREATED, issued.await)
}

/// `POST /verify-otp`
pub(crate) async fn verify(call: Call<'_>) -> Result<Answer, ApiError> {
    let Call { config, headers, origin, body } = call;
    let caller = KnownCaller::of(headers, Asks::Check, config)?;
    let fields = request::fields(body).await?;
    let (number, otp, otp_id) =
        (fields.required("mobileNumber")?, fields.required("otp")?, fields.optional("otpId")?);
    let number = MobileNumber::parse(number, config.default_region)?;
    let code = Code::parse(otp, config.policy.length)?;
    // What is no id at all is the id of no code.
    let otp_id = otp_id.map(|id| OtpId::parse(id).unwrap_or_else(|| OtpId::from_stored(String::new())));
    let attempt = Attempt { number, code, otp_id };
    let (name, caller) = caller.plain();
    let verified =
        on_record(config, origin, &name, async |service| service.verify(&attempt, &caller).await).await;
    if verified.is_ok() {
        destinations::verified(config, &attempt.number);
    }
    match verified {
        Ok(verified) => Ok(Answer::verified(&attempt.number, &verified)),
        // Whatever is known of the number, a wrong guess is a wrong guess.
        Err(error) if config.policy.uniform && tells_of_the_number(&error) => Err(ApiError::NotTheCode),
        Err(error) => Err(ApiError::Otp(error, config.rate_limit_policy.clone())),
    }
}

/// What resend and regenerate are told: whose code.
async fn number_of(config: &Config, body: Body) -> Result<MobileNumber, ApiError> {
    let fields = request::fields(body).await?;
    let number = MobileNumber::parse(fields.required("mobileNumber")?, config.default_region)?;
    config.destinations.check(&number)?;
    Ok(number)
}

/// The answer to a call that gives out a code, or does not.
fn given(
    config: &Rc<Config>,
    number: &MobileNumber,
    status: StatusCode,
    issued: Result<IssuedCode, OtpError>,
) -> Result<Answer, ApiError> {
    // Where nobody shall be able to tell, what was refused for the number's sake counts as what was sent: or the
    // guard would tell.
    let counts = match &issued {
        Ok(issued) => !issued.replayed,
        Err(error) => config.policy.uniform && tells_of_the_number(error),
    };
    if counts {
        destinations::sent(config, number);
    }
    match issued {
        Ok(_) if config.policy.uniform => Ok(Answer::accepted(number)),
        Ok(issued) => Ok(Answer::code(status, number, &issued, config)),
        Err(error) if config.policy.uniform && tells_of_the_number(&error) => Ok(Answer::accepted(number)),
        Err(error) => Err(ApiError::Otp(error, config.rate_limit_policy.clone())),
    }
}

/// Whether a refusal depends on what is known of the number, and would so tell it.
fn tells_of_the_number(error: &OtpError) -> bool {
    match error {
        OtpError::NotFound
        | OtpError::Expired
        | OtpError::Used
        | OtpError::Locked
        | OtpError::AttemptsExceeded
        | OtpError::NumberLocked { .. }
        | OtpError::Mismatch { .. } => true,
        OtpError::RateLimited(quota) => quota.name == "number",
        OtpError::Suspended { .. } | OtpError::KeyReused | OtpError::Unavailable(_) => false,
    }
}

/// Does `work` with the service, for the API key of that name. What it leaves in the outbox, whatever the
/// answer, is pushed after that.
pub(crate) async fn on_record<T>(
    config: &Rc<Config>,
    origin: &Origin,
    key_name: &str,
    work: impl AsyncFnOnce(OtpService<'_, RequestStore<'_>, Cache, Environment>) -> Result<T, OtpError>,
) -> Result<T, OtpError> {
    let store =
        RequestStore { store: Store::new(&config.database), draft: Draft { origin, config, key_name } };
    let service = OtpService {
        database: &store,
        cache: &config.cache,
        environment: &Environment,
        keys: &config.encryption_keys,
        index: &config.index_key,
        policy: &config.policy,
    };
    let outcome = work(service).await;
    publish::soon(config, origin);
    outcome
}
