//! Makes the table of numbers that are read without the library (`src/number/table.bin`), and holds the one that is there
//! against the library: against its metadata, and against what it says of numbers.
//!
//! `UPDATE=1 cargo test --package otp-core --test number_table` writes it anew, after an update of the library.

use otp_core::{InvalidMobileNumber, MobileNumber, NumberType};
use proptest::{prelude::*, sample::Index};
use prost::Message;
use regex_automata::{
    Anchored, MatchKind,
    dfa::{Automaton, StartKind, dense},
    util::{primitives::StateID, start, syntax},
};
use rlibphonenumber::{
    PHONE_NUMBER_UTIL, PhoneMetadata, PhoneMetadataCollection, PhoneNumberDesc, PhoneNumberFormat,
    PhoneNumberType,
};
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    process::Command,
};

/// Most digits of a number (ITU-T E.164, section 6).
const LONGEST: usize = 15;

/// What a state says of a number that ends in it: nothing, or which kind it is; and of what follows it.
const MOBILE: u8 = 1;
const FIXED_OR_MOBILE: u8 = 2;
const VOIP: u8 = 3;
const PERSONAL: u8 = 4;
const NATIONAL_NUMBER_BEGINS: u8 = 0x80;

/// The library's metadata, as it is in the sources that this workspace is built with.
fn metadata() -> PhoneMetadataCollection {
    let listed = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .output()
        .expect("cargo runs");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("cargo lists the packages");
    let packages = listed["packages"].as_array().expect("there are packages");
    let library =
        packages.iter().find(|package| package["name"] == "rlibphonenumber").expect("it is one of them");
    let manifest = PathBuf::from(library["manifest_path"].as_str().expect("it has a manifest"));
    let file = manifest.with_file_name("src/generated/metadata/metadata.bin");
    PhoneMetadataCollection::decode(&*std::fs::read(file).expect("the library has metadata"))
        .expect("it is as it was")
}

/// The countries of each calling code, in the order in which the library asks them: the main one first.
fn countries(metadata: PhoneMetadataCollection) -> BTreeMap<i32, Vec<PhoneMetadata>> {
    let mut countries = BTreeMap::<i32, Vec<PhoneMetadata>>::new();
    for country in metadata.metadata {
        // Satellites and the like have no country.
        let (Some(code), false) = (country.country_code, country.id == "001") else { continue };
        let sharing = countries.entry(code).or_default();
        let at = if country.main_country_for_code() { 0 } else { sharing.len() };
        sharing.insert(at, country);
    }
    countries
}

/// A state of the table: what a number is that ends here, and where its next digit leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct State {
    what: u8,
    next: [u16; 10],
}

/// What of a country's metadata says what a number is.
struct Country {
    general: PhoneNumberDesc,
    /// The kinds in the order in which the library asks, each with what a state says of it; then the two below.
    kinds: Vec<(u8, PhoneNumberDesc)>,
    /// Whether all that is a fixed line may be a mobile.
    same: bool,
    /// Matches all patterns at once.
    dfa: Dfa,
}

/// Where the patterns are that the library treats in a way of their own.
const OF_FIXED_LINES: usize = 8;
const OF_MOBILES: usize = 9;
const OF_LEADING_DIGITS: usize = 10;
const GENERAL: usize = 11;

type Dfa = dense::DFA<Vec<u32>>;

/// Matches no digits.
const NOTHING: &str = "^[^0-9]$";

// The library's wrapper has these fields, too, and wants them read there; it is not public.
#[allow(deprecated)]
fn pattern(desc: &PhoneNumberDesc) -> String {
    desc.national_number_pattern.clone().unwrap_or_else(|| NOTHING.to_owned())
}

#[allow(deprecated)]
fn national_prefix(metadata: &PhoneMetadata) -> Option<Dfa> {
    metadata.national_prefix_for_parsing.as_ref().map(|prefix| dfa(std::slice::from_ref(prefix)))
}

fn dfa(patterns: &[String]) -> Dfa {
    dense::Builder::new()
        .configure(dense::Config::new().start_kind(StartKind::Anchored).match_kind(MatchKind::All))
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .build_many(patterns)
        .expect("the library's patterns are regular expressions")
}

fn start(dfa: &Dfa) -> StateID {
    dfa.start_state(&start::Config::new().anchored(Anchored::Yes)).expect("it is anchored")
}

/// Which patterns match a text that ends in this state.
fn matches(dfa: &Dfa, state: StateID) -> Vec<usize> {
    let ended = dfa.next_eoi_state(state);
    let count = if dfa.is_match_state(ended) { dfa.match_len(ended) } else { 0 };
    (0..count).map(|index| dfa.match_pattern(ended, index).as_usize()).collect()
}

impl Country {
    #[allow(deprecated)]
    fn of(metadata: &PhoneMetadata) -> Self {
        let kinds: Vec<_> = [
            (0, &metadata.premium_rate),
            (0, &metadata.toll_free),
            (0, &metadata.shared_cost),
            (VOIP, &metadata.voip),
            (PERSONAL, &metadata.personal_number),
            (0, &metadata.pager),
            (0, &metadata.uan),
            (0, &metadata.voicemail),
            (0, &metadata.fixed_line),
            (MOBILE, &metadata.mobile),
        ]
        .map(|(what, desc)| (what, desc.clone().unwrap_or_default()))
        .into();
        let general = metadata.general_desc.clone().unwrap_or_default();
        // The others are written to match the whole of a number.
        let leading = metadata.leading_digits.as_ref();
        let leading = leading.map(|digits| format!("{}[0-9]*$", digits.trim_end_matches('$')));
        let patterns = kinds.iter().map(|(_, desc)| pattern(desc));
        let patterns: Vec<_> =
            patterns.chain([leading.unwrap_or_else(|| NOTHING.to_owned()), pattern(&general)]).collect();
        let same = metadata.same_mobile_and_fixed_line_pattern();
        Self { general, kinds, same, dfa: dfa(&patterns) }
    }

    /// What a number of this length is that ends in this state; `None` if it is not of this country.
    fn what(&self, state: StateID, length: usize) -> Option<u8> {
        let matches = matches(&self.dfa, state);
        #[allow(deprecated)]
        let fits = |desc: &PhoneNumberDesc, index: usize| {
            let lengths = &desc.possible_length;
            matches.contains(&index)
                && (lengths.is_empty() || lengths.iter().any(|fit| usize::try_from(*fit) == Ok(length)))
        };
        let is = |index: usize| fits(&self.kinds[index].1, index);
        let what = || {
            if !fits(&self.general, GENERAL) {
                return None;
            }
            if let Some(index) = (0..OF_FIXED_LINES).find(|index| is(*index)) {
                return Some(self.kinds[index].0);
            }
            match (is(OF_FIXED_LINES), self.same, is(OF_MOBILES)) {
                (true, true, _) | (true, _, true) => Some(FIXED_OR_MOBILE),
                (true, false, false) => Some(0),
                (false, false, true) => Some(MOBILE),
                (false, ..) => None,
            }
        };
        // By its first digits it may be of this country, and nothing there.
        if matches.contains(&OF_LEADING_DIGITS) { Some(what().unwrap_or(0)) } else { what() }
    }
}

#[derive(Default)]
struct Table {
    states: Vec<State>,
    ids: HashMap<State, u16>,
}

impl Table {
    fn id(&mut self, state: State) -> u16 {
        let next = u16::try_from(self.states.len()).expect("65,536 states are enough");
        *self.ids.entry(state).or_insert_with(|| {
            self.states.push(state);
            next
        })
    }
}

/// All national numbers of a calling code.
struct Walk<'a> {
    /// Those that share it, in the order in which the library asks.
    countries: &'a [Country],
    /// What the main one dials before a national number.
    prefix: Option<&'a Dfa>,
    longest: usize,
    seen: HashMap<Position, u16>,
}

/// Where the countries' automata are, and that of the prefix, after so many digits.
type Position = (Vec<StateID>, Option<StateID>, usize);

impl Walk<'_> {
    fn state(&mut self, table: &mut Table, position: Position) -> u16 {
        if let Some(id) = self.seen.get(&position) {
            return *id;
        }
        let (at, prefix, length) = &position;
        let (countries, prefix_at) = (self.countries, self.prefix.zip(*prefix));
        // What begins like a national prefix may be read without it.
        let prefixed = *length > 0 && prefix_at.is_some_and(|(dfa, state)| !matches(dfa, state).is_empty());
        let each = || at.iter().zip(countries);
        if prefixed || each().all(|(state, country)| country.dfa.is_dead_state(*state)) {
            return 0;
        }
        let what = each().find_map(|(state, country)| country.what(*state, *length)).unwrap_or(0);
        let begins = if *length == 0 { NATIONAL_NUMBER_BEGINS } else { 0 };
        let mut next = [0; 10];
        if *length < self.longest {
            for (digit, next) in (b'0'..).zip(&mut next) {
                let at = each().map(|(state, country)| country.dfa.next_state(*state, digit)).collect();
                let prefix = prefix_at.map(|(dfa, state)| dfa.next_state(state, digit));
                *next = self.state(table, (at, prefix, length + 1));
            }
        }
        let id = table.id(State { what: what | begins, next });
        self.seen.insert(position, id);
        id
    }
}

/// The state in which the numbers of these calling codes begin, of which so many digits have gone before.
fn calling_codes(table: &mut Table, roots: &BTreeMap<String, u16>, before: &str) -> u16 {
    if let Some(root) = roots.get(before) {
        return *root;
    }
    if !roots.keys().any(|code| code.starts_with(before)) {
        return 0;
    }
    let next = std::array::from_fn(|digit| calling_codes(table, roots, &format!("{before}{digit}")));
    table.id(State { what: 0, next })
}

/// The table, as it is written: of each state the next ones as numbers of two bytes, low byte first, and what it says. The
/// first state is the one that leads nowhere, and in the last one all numbers begin.
fn table() -> Vec<u8> {
    let mut table = Table::default();
    table.id(State { what: 0, next: [0; 10] });
    let mut roots = BTreeMap::new();
    for (code, sharing) in countries(metadata()) {
        let (code, prefix) = (code.to_string(), national_prefix(&sharing[0]));
        let countries: Vec<_> = sharing.iter().map(Country::of).collect();
        let position =
            (countries.iter().map(|country| start(&country.dfa)).collect(), prefix.as_ref().map(start), 0);
        let longest = LONGEST - code.len();
        let mut walk = Walk { countries: &countries, prefix: prefix.as_ref(), longest, seen: HashMap::new() };
        roots.insert(code, walk.state(&mut table, position));
    }
    calling_codes(&mut table, &roots, "");
    let bytes = table
        .states
        .iter()
        .flat_map(|state| state.next.iter().flat_map(|next| next.to_le_bytes()).chain([state.what]));
    bytes.collect()
}

#[test]
fn the_table_is_what_the_library_s_metadata_says() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/number/table.bin");
    let table = table();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &table).expect("the table can be written");
    }
    let written = std::fs::read(&file).unwrap_or_default();
    assert!(written == table, "the library was updated: run this again with UPDATE=1");
}

/// What the library says of a number.
fn of_the_library(number: &str) -> Option<(PhoneNumberType, String)> {
    let parsed = PHONE_NUMBER_UTIL.parse(number, None).ok()?;
    Some((parsed.get_type(), parsed.format_as(PhoneNumberFormat::E164).into_owned()))
}

/// A number by the table: at each digit one that leads somewhere, or, now and then, any.
fn walked(choices: &[(Index, bool)]) -> String {
    let states: Vec<_> = include_bytes!("../src/number/table.bin").chunks_exact(21).collect();
    let mut state = states.len() - 1;
    let mut number = "+".to_owned();
    for (choice, stray) in choices {
        let next = |digit: usize| {
            usize::from(u16::from_le_bytes([states[state][2 * digit], states[state][2 * digit + 1]]))
        };
        let ways: Vec<_> = (0..10).filter(|digit| *stray || next(*digit) > 0).collect();
        if ways.is_empty() {
            break;
        }
        let digit = ways[choice.index(ways.len())];
        number.push_str(&digit.to_string());
        state = next(digit);
    }
    number
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 20_000, ..ProptestConfig::default() })]

    #[test]
    fn a_number_is_what_the_library_says(
        choices in prop::collection::vec((any::<Index>(), prop::bool::weighted(0.02)), 4..=15),
    ) {
        let number = walked(&choices);
        let said = of_the_library(&number);
        match MobileNumber::parse(&number, None) {
            Ok(parsed) => {
                let (kind, e164) = said.expect("the library knows it");
                let by_kind = match kind {
                    PhoneNumberType::Mobile => Some(NumberType::Mobile),
                    PhoneNumberType::FixedLineOrMobile => Some(NumberType::FixedLineOrMobile),
                    PhoneNumberType::VoIP => Some(NumberType::Voip),
                    PhoneNumberType::PersonalNumber => Some(NumberType::Personal),
                    _ => None,
                };
                // What is a mobile there when it is written as it is today.
                let rewritten = parsed.as_str() != e164 && ["+52", "+549"].iter().any(|code| parsed.as_str().starts_with(code));
                prop_assert!(rewritten || parsed.as_str() == e164, "{}", number);
                prop_assert!(rewritten || Some(parsed.kind()) == by_kind, "{} is {:?}", number, kind);
                let country = PHONE_NUMBER_UTIL.parse(&number, None).expect("it did before").country_code.to_string();
                prop_assert_eq!(parsed.range().len(), 1 + country.len() + 3);
            }
            Err(InvalidMobileNumber::NotMobile(_)) => {
                let (kind, _) = said.expect("the library knows it");
                prop_assert!(kind != PhoneNumberType::Unknown);
            }
            Err(InvalidMobileNumber::NoCountryCode | InvalidMobileNumber::NotANumber) => {
                prop_assert!(false, "{} is written as a number", number);
            }
            Err(_) => {
                prop_assert!(said.is_none_or(|(kind, _)| kind == PhoneNumberType::Unknown), "{}", number);
            }
        }
    }
}
