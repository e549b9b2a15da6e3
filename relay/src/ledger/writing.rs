//! Writing down what was read: the same steps in every store, each store's own way in one transaction.

use super::{
    reading::{Part, Position, Read, Taken},
    said::{NewDelivery, News, Said},
};
use crate::{dead::Dead, erasure::Erasure, moment::now};
use anyhow::Result;
use otp_events::Record;
use std::collections::{HashMap, HashSet};

/// A transaction that is open.
pub(super) trait Writing {
    /// Notes ids, and tells which of them are new.
    async fn remember(&mut self, ids: &[&str]) -> Result<HashSet<String>>;
    /// The newest code of a number that was seen; 0 for none.
    async fn newest(&mut self, subject: &str) -> Result<i64>;
    /// Writes down what is said of numbers.
    async fn note(&mut self, news: &[News<'_>]) -> Result<()>;
    /// What was erased of these numbers, where anything was.
    async fn tombstones(&mut self, subjects: &HashSet<&str>) -> Result<HashMap<String, Erasure>>;
    /// All deliveries of these numbers.
    async fn deliveries_of(&mut self, subjects: &HashSet<&str>) -> Result<Vec<Known>>;
    /// The dead letters of these numbers, with their places.
    async fn dead_of(&mut self, subjects: &HashSet<&str>) -> Result<Vec<(i64, Record)>>;
    /// Deletes deliveries with their contents, and dead letters.
    async fn forget(&mut self, deliveries: &[String], dead: &[i64]) -> Result<()>;
    /// Has codes delivered. One that was seen, only if it had failed: what was delivered is not delivered
    /// twice.
    async fn deliver(&mut self, deliveries: &[NewDelivery<'_>]) -> Result<()>;
    /// Puts away what cannot be processed.
    async fn bury(&mut self, dead: &[Dead]) -> Result<()>;
    /// Writes down where to go on, in partitions that are different ones.
    async fn go_on(&mut self, positions: &[Position<'_>]) -> Result<()>;
}

/// A delivery that is there.
pub(super) struct Known {
    pub(super) event_id: String,
    pub(super) subject: String,
    pub(super) version: i64,
    pub(super) sequence: String,
}

/// What a batch may touch beyond its own rows, known before anything is written.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Reach {
    /// Something in it forgets a number.
    pub(super) erases: bool,
    /// Something in it cannot be processed.
    pub(super) buries: bool,
}

impl Reach {
    pub(super) fn of(parts: &[Part<'_>]) -> Self {
        let mut reach = Self::default();
        for read in parts.iter().flat_map(|part| part.read) {
            match read.event().map(Said::by) {
                None | Some(Err(_)) => reach.buries = true,
                Some(Ok(Said::Erased { .. })) => reach.erases = true,
                Some(Ok(_)) => {}
            }
        }
        reach
    }
}

/// Writes down what was read and where to go on. Of an event that was seen before nothing happens.
pub(super) async fn take<'a>(writing: &mut impl Writing, parts: &[Part<'a>]) -> Result<Taken<'a>> {
    let now = now();
    let mut taken = Taken::default();
    let mut read: Vec<(&'a Read, usize)> = Vec::new();
    for (place, part) in parts.iter().enumerate() {
        read.extend(part.read.iter().map(|read| (read, place)));
    }
    let ids: Vec<_> = read.iter().filter_map(|(read, _)| read.event()).map(|event| &*event.id).collect();
    let mut unseen = if ids.is_empty() { HashSet::new() } else { writing.remember(&ids).await? };
    let mut news: Vec<News<'_>> = Vec::new();
    let mut deliveries = Vec::new();
    let mut dead = Vec::new();
    let mut erasures: Vec<(&str, Erasure)> = Vec::new();
    for (read, place) in read {
        let (event, again) = match read {
            Read::Event { event, again } => (&**event, *again),
            Read::Dead(letter) => {
                dead.push(letter.clone());
                continue;
            }
        };
        // A copy within the batch finds its id taken by the first.
        if unseen.remove(&*event.id) {
            taken.new.push((event, place));
        } else if !again {
            taken.duplicates += 1;
            continue;
        }
        match Said::by(event) {
            Ok(Said::Nothing) => {}
            Ok(Said::News(said)) => news.push(said),
            Ok(Said::Code(said, delivery)) => {
                news.push(said);
                deliveries.push(delivery);
            }
            Ok(Said::Erased { subject, mut erasure }) => {
                if !erasure.is_exact() {
                    let so_far = news.iter().filter(|news| news.subject == subject);
                    let so_far = so_far.map(|news| news.version).max().unwrap_or_default();
                    erasure.version = writing.newest(subject).await?.max(so_far);
                }
                erasures.push((subject, erasure));
            }
            Err(reason) => dead.push(Dead::new(Record::from(event), reason, now)),
        }
    }
    taken.erased = erasures.len();
    let erased: HashSet<_> = erasures.iter().map(|(subject, _)| *subject).collect();
    news.extend(erasures.iter().map(|(subject, Erasure { version, sequence })| News {
        subject,
        version: *version,
        ended: *version,
        erased: *version,
        erased_sequence: sequence.clone(),
    }));
    if !news.is_empty() {
        writing.note(&news).await?;
    }
    // Before or after the erasure in this batch, or long after it: what it covers is not kept.
    let about = deliveries.iter().map(|delivery| delivery.subject);
    let about: HashSet<_> =
        about.chain(dead.iter().map(|dead| &*dead.record.key)).chain(erased.iter().copied()).collect();
    let tombstones = if about.is_empty() { HashMap::new() } else { writing.tombstones(&about).await? };
    if !tombstones.is_empty() {
        let erasure_of = |subject: &str| tombstones.get(subject);
        deliveries.retain(|delivery| {
            !erasure_of(delivery.subject)
                .is_some_and(|erasure| erasure.covers(Some(delivery.version), Some(delivery.sequence)))
        });
        dead.retain(|dead| {
            !erasure_of(&dead.record.key).is_some_and(|erasure| covers_dead(erasure, &dead.record))
        });
    }
    if !erased.is_empty() {
        forget(writing, &erased, &tombstones).await?;
    }
    if !deliveries.is_empty() {
        writing.deliver(&deliveries).await?;
        taken.deliveries = deliveries.len();
    }
    taken.dead = dead.len();
    if !dead.is_empty() {
        writing.bury(&dead).await?;
    }
    let positions: Vec<_> = parts.iter().filter_map(|part| part.position).collect();
    if !positions.is_empty() {
        writing.go_on(&positions).await?;
    }
    Ok(taken)
}

/// Deletes all that the erasures of these numbers cover: of all of them at once, for there may be thousands in a batch.
async fn forget(
    writing: &mut impl Writing,
    erased: &HashSet<&str>,
    tombstones: &HashMap<String, Erasure>,
) -> Result<()> {
    // Where nothing is known of a number there is no tombstone; a dead letter may still be here.
    let nothing = Erasure::default();
    let erasure_of = |subject: &str| tombstones.get(subject).unwrap_or(&nothing);
    let known = writing.deliveries_of(erased).await?;
    let covered = known.into_iter().filter(|delivery| {
        erasure_of(&delivery.subject).covers(Some(delivery.version), Some(&delivery.sequence))
    });
    let deliveries: Vec<_> = covered.map(|delivery| delivery.event_id).collect();
    let known = writing.dead_of(erased).await?;
    let covered = known.into_iter().filter(|(_, record)| covers_dead(erasure_of(&record.key), record));
    let dead: Vec<_> = covered.map(|(id, _)| id).collect();
    if deliveries.is_empty() && dead.is_empty() {
        return Ok(());
    }
    writing.forget(&deliveries, &dead).await
}

/// Whether an erasure covers a record among the dead. One that is no event shows no version.
fn covers_dead(erasure: &Erasure, record: &Record) -> bool {
    record.event().map_or(true, |event| erasure.covers_event(&event))
}
