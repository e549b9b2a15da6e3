#![doc = include_str!("../README.md")]

mod batch;
mod data;
mod event;
mod event_type;
mod intake;
mod record;

pub use batch::{Answer, BATCH_CONTENT_TYPE, MAX_BATCH_BYTES, MAX_BATCH_EVENTS, Rejected};
pub use data::{CodeData, Data, SuspensionData};
pub use event::{Event, Malformed, SOURCE, SPEC_VERSION, is_application_name};
pub use event_type::EventType;
pub use intake::{Batch, MAX_EVENT_BYTES, NotTaken, read_batch};
pub use record::Record;
