//! A request's way to the domain: what it is decided on, and what it leaves on record.

use crate::{
    cache::Cache, config::Config, destinations, environment::Environment, event, origin::Origin, publish,
    store::Store,
};
use otp_core::{
    Answer, Caller, Change, OtpService, Outcome, Recipient, Refusal,
    ports::{Commit, Committed, Database, Loaded, Request, Unavailable},
};
use std::rc::Rc;

/// The database as the domain sees it: what is written there leaves the request's event, whole and signed.
#[derive(Debug)]
pub(crate) struct RequestStore<'a> {
    store: Store,
    config: &'a Config,
    origin: &'a Origin,
}

impl Database for RequestStore<'_> {
    async fn load(&self, request: &Request<'_>) -> Result<Loaded, Unavailable> {
        self.store.load(request).await
    }

    fn tells(&self) -> bool {
        self.store.tells()
    }

    async fn commit(&self, request: &Request<'_>, commit: &Commit<'_>) -> Result<Committed, Unavailable> {
        let Some(record) = commit.record else { return self.store.commit(request, commit, None).await };
        let event = event::of_request(&record.event, request, self.origin, &self.config.event_keys);
        let committed = self.store.commit(request, commit, Some(event.clone())).await?;
        if matches!(committed, Committed::Yes) {
            match record.account {
                // The outbox keeps it without a subject, so this instance could not find it again to drop it.
                Change::Erased { .. } => publish::for_anybody(),
                _ => publish::written(self.config, request.subject.as_str(), record.event.id.as_str(), event),
            }
        }
        Ok(committed)
    }
}

/// The domain, for one request.
pub(crate) type Service<'a> = OtpService<'a, RequestStore<'a>, Cache, Environment>;

/// Does `work` with the domain. What it leaves in the outbox, whatever the answer, is pushed after that, and what the
/// pumping guard counts is counted.
pub(crate) async fn on_record(
    config: &Rc<Config>,
    origin: &Origin,
    recipient: &Recipient,
    caller: &Caller,
    work: impl AsyncFnOnce(Service<'_>) -> Outcome,
) -> Result<Answer, Refusal> {
    let store = RequestStore { store: Store::new(&config.database), config, origin };
    let service = OtpService {
        database: &store,
        cache: &config.cache,
        environment: &Environment,
        keys: &config.encryption_keys,
        index: &config.index_key,
        policy: &config.policy,
    };
    let Outcome { answer, counts } = work(service).await;
    if let Some(counts) = counts {
        destinations::count(config, &caller.application, recipient, counts);
    }
    publish::soon(config, origin);
    answer
}
