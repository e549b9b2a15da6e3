//! A day's traffic: honest users all over the world, and those who pump messages for a share of what they cost.

use crate::dice::Dice;

pub(crate) const MINUTE: f64 = 60.0;
pub(crate) const HOUR: f64 = 60.0 * MINUTE;
pub(crate) const DAY: f64 = 24.0 * HOUR;

/// Honest users' first requests in a day.
const HONEST: usize = 30_000;

/// A range of numbers, and what its honest users are like.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) prefix: String,
    /// How many of them type their code in.
    pub(crate) converts: f64,
    country: usize,
    /// Its part of all honest traffic.
    share: f64,
}

/// A request that nobody else's answer is the cause of.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Arrival {
    /// Seconds since midnight.
    pub(crate) at: f64,
    pub(crate) range: usize,
    /// The place of the campaign; none of an honest user.
    pub(crate) campaign: Option<usize>,
}

/// One way to pump.
#[derive(Debug, Clone)]
pub(crate) struct Campaign {
    pub(crate) name: &'static str,
    /// How many of the codes are typed in, to look honest.
    pub(crate) converts: f64,
}

#[derive(Debug)]
pub(crate) struct Day {
    pub(crate) ranges: Vec<Range>,
    pub(crate) campaigns: Vec<Campaign>,
    /// In order of time.
    pub(crate) arrivals: Vec<Arrival>,
}

impl Day {
    /// Honest users of 40 countries, and nobody else. A few ranges have most of the traffic, most have little.
    pub(crate) fn honest(dice: &mut Dice) -> Self {
        let mut day = Self { ranges: Vec::new(), campaigns: Vec::new(), arrivals: Vec::new() };
        for country in 0..40 {
            let popular = 1.0 / (1.0 + country as f64);
            for place in 0..1 + (country * 7 + 3) % 10 {
                let share = popular / (1.0 + place as f64);
                let converts = dice.between(0.5, 0.9);
                day.range(country, 100 + place, share, converts);
            }
        }
        let all: f64 = day.ranges.iter().map(|range| range.share).sum();
        day.ranges.iter_mut().for_each(|range| range.share /= all);
        for range in 0..day.ranges.len() {
            let Range { share, country, .. } = day.ranges[range];
            // Nights are quiet, and come at their own time in each country.
            let noon = (country * 5 % 24) as f64 * HOUR;
            for _ in 0..(HONEST as f64 * share + dice.part()) as usize {
                let at = loop {
                    let at = dice.between(0.0, DAY);
                    let busy = 0.55 + 0.45 * (std::f64::consts::TAU * (at - noon) / DAY).cos();
                    if dice.chance(busy) {
                        break at;
                    }
                };
                day.arrivals.push(Arrival { at, range, campaign: None });
            }
        }
        // An advertisement at eight in the evening, in a country that nobody came from before.
        let crowd = day.range(40, 100, 0.0, 0.7);
        for _ in 0..2_000 {
            let at = 20.0 * HOUR + dice.exponential(2.0 * MINUTE);
            day.arrivals.push(Arrival { at, range: crowd, campaign: None });
        }
        day
    }

    /// Two thousand honest users within a minute or so, and nobody else.
    pub(crate) fn crowd(dice: &mut Dice) -> Self {
        let mut day = Self { ranges: Vec::new(), campaigns: Vec::new(), arrivals: Vec::new() };
        let range = day.range(41, 100, 1.0, 0.7);
        let one = |_| Arrival { at: 12.0 * HOUR + dice.exponential(20.0), range, campaign: None };
        day.arrivals.extend((0..2_000).map(one));
        day.in_order()
    }

    fn range(&mut self, country: usize, place: usize, share: f64, converts: f64) -> usize {
        let prefix = format!("+{}{place}", 900 + country);
        self.ranges.push(Range { prefix, converts, country, share });
        self.ranges.len() - 1
    }

    /// Ranges that no honest user has a number in.
    fn unused(&mut self, country: usize, how_many: usize) -> Vec<usize> {
        let first = 200 + self.ranges.len();
        (first..first + how_many).map(|place| self.range(country, place, 0.0, 0.0)).collect()
    }

    /// A range with about so many honest requests a day.
    fn used(&self, requests: f64) -> usize {
        let off = |range: &Range| (range.share * HONEST as f64 - requests).abs();
        let by_distance =
            |one: &usize, other: &usize| off(&self.ranges[*one]).total_cmp(&off(&self.ranges[*other]));
        (0..self.ranges.len()).min_by(by_distance).unwrap_or_default()
    }

    fn campaign(
        &mut self,
        name: &'static str,
        converts: f64,
        arrivals: impl IntoIterator<Item = (f64, usize)>,
    ) {
        let campaign = Some(self.campaigns.len());
        self.campaigns.push(Campaign { name, converts });
        self.arrivals.extend(arrivals.into_iter().map(|(at, range)| Arrival { at, range, campaign }));
    }

    /// `total` codes from `start` on, evenly spread over `ranges` and over that many seconds.
    fn pump(
        &mut self,
        name: &'static str,
        dice: &mut Dice,
        converts: f64,
        (total, ranges): (usize, &[usize]),
        (start, seconds): (f64, f64),
    ) {
        let one = |_| (start + dice.between(0.0, seconds), ranges[dice.below(ranges.len())]);
        let all: Vec<_> = (0..total).map(one).collect();
        self.campaign(name, converts, all);
    }

    /// The same day, with pumping of every published shape.
    pub(crate) fn mixed(dice: &mut Dice) -> Self {
        let mut day = Self::honest(dice);
        let start = |dice: &mut Dice| dice.between(1.0, 15.0) * HOUR;

        // Luma: thirteen thousand messages to the ten thousand numbers of one block.
        let block = day.unused(50, 1);
        let when = (start(dice), 3.0 * HOUR);
        day.pump("one block, 13,000 in 3 h", dice, 0.0, (13_000, &block), when);

        // A fashion retailer: 240,000 in four hours.
        let ranges = day.unused(51, 6);
        let when = (start(dice), 4.0 * HOUR);
        day.pump("6 ranges of a country, 240,000 in 4 h", dice, 0.0, (240_000, &ranges), when);

        // A blow that is over before anybody looks.
        let one = day.unused(52, 1);
        let when = (start(dice), 5.0 * MINUTE);
        day.pump("one range, 10,000 in 5 min", dice, 0.0, (10_000, &one), when);

        // Soprano: small volume bursts across diverse prefixes.
        let ranges: Vec<_> = (53..65).flat_map(|country| day.unused(country, 4)).collect();
        let mut bursts = Vec::new();
        for range in ranges {
            for _ in 0..2 {
                let (first, size) = (dice.between(0.0, 23.0) * HOUR, 30 + dice.below(121));
                bursts.extend((0..size).map(|_| (first + dice.between(0.0, 10.0 * MINUTE), range)));
            }
        }
        day.campaign("48 ranges, 2 bursts of 30 to 150 each", 0.0, bursts);

        let ranges: Vec<_> = (66..69).flat_map(|country| day.unused(country, 1)).collect();
        day.pump("slow drip, 3 ranges, 2,400 in 24 h", dice, 0.0, (2_400, &ranges), (0.0, DAY));

        let used = [day.used(300.0)];
        let when = (start(dice), 3.0 * HOUR);
        day.pump("a range of honest users, 6,000 in 3 h", dice, 0.0, (6_000, &used), when);

        let own = day.unused(70, 1);
        let when = (start(dice), 2.0 * HOUR);
        day.pump("verifies 5 % itself, 8,000 in 2 h", dice, 0.05, (8_000, &own), when);
        day.in_order()
    }

    /// An honest day, and somebody who knows the settings: in each range and window one code less than it takes.
    pub(crate) fn just_below(dice: &mut Dice, least: usize, window: f64) -> Self {
        let mut day = Self::honest(dice);
        let ranges: Vec<_> = (71..77).flat_map(|country| day.unused(country, 4)).collect();
        let mut all = Vec::new();
        for range in ranges {
            let mut at = dice.between(0.0, window);
            while at < DAY - window {
                all.extend((1..least).map(|_| (at + dice.between(0.0, 10.0 * MINUTE), range)));
                at += window + 15.0 * MINUTE;
            }
        }
        day.campaign("n-1: 24 ranges, one less than it takes", 0.0, all);
        day.in_order()
    }

    pub(crate) fn in_order(mut self) -> Self {
        self.arrivals.sort_by(|one, other| one.at.total_cmp(&other.at));
        self
    }
}
