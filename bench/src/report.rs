//! What was measured: as a table, as JSON, and as a picture.

use crate::{
    measure::{Measured, Sample, median},
    settings::Settings,
    subject::{Call, PARTS},
};
use harness::repository;
use serde_json::{Value, json};
use std::{fmt::Write as _, fs, path::Path};

/// The medians of a call's rounds.
fn medians(samples: &[Sample]) -> Sample {
    Sample {
        rate: median(samples.iter().map(|sample| sample.rate)),
        latency: std::array::from_fn(|which| median(samples.iter().map(|sample| sample.latency[which]))),
        cpu: std::array::from_fn(|part| {
            let values: Vec<_> = samples.iter().filter_map(|sample| sample.cpu[part]).collect();
            (!values.is_empty()).then(|| median(values.into_iter()))
        }),
        failed: median(samples.iter().map(|sample| sample.failed)),
    }
}

/// The median of the ratios of each round to the same round of `to`.
fn ratio(samples: &[Sample], to: &[Sample], of: impl Fn(&Sample) -> f64) -> f64 {
    median(samples.iter().zip(to).map(|(sample, to)| of(sample) / of(to)))
}

fn samples(measured: &Measured, call: Call) -> &[Sample] {
    let found = measured.calls.iter().find(|(of, ..)| *of == call);
    found.map(|(_, closed, _)| &closed[..]).unwrap_or_default()
}

fn cpu(sample: &Sample) -> f64 {
    sample.cpu.iter().flatten().sum()
}

/// Prints the table, and leaves `target/bench/<commit>-<connections>.json` and `.svg`.
pub(crate) fn write(measured: &[Measured], settings: &Settings, connections: usize) {
    println!(
        "\n{} connections, {} numbers, medians of {} rounds of {} s; hello is GET /healthz of the same service",
        connections,
        if settings.few_numbers { "a thousand" } else { "a million" },
        settings.rounds,
        settings.duration.as_secs()
    );
    for subject in measured {
        print(subject);
    }
    compare(measured);
    let commit = crate::commit(repository());
    let folder = repository().join("target/bench");
    let name = format!("{commit}-{connections}");
    let document = document(measured, settings, connections, &commit);
    let written = fs::create_dir_all(&folder)
        .and_then(|()| fs::write(folder.join(format!("{name}.json")), format!("{document:#}\n")))
        .and_then(|()| {
            fs::write(folder.join(format!("{name}.svg")), picture(measured, &commit, connections))
        });
    match written {
        Ok(()) => println!("\nwritten: target/bench/{name}.json and {name}.svg"),
        Err(error) => eprintln!("target/bench cannot be written: {error}"),
    }
}

fn print(subject: &Measured) {
    println!("\n{}", subject.name);
    println!(
        "{:<10} {:>8} {:>7} {:>7} {:>7} {:>7} | {:>8} {:>7} {:>7} {:>7} | us of CPU a request: {}",
        "call",
        "req/s",
        "/hello",
        "p50 ms",
        "p99",
        "p99.9",
        "at half",
        "p50 ms",
        "p99",
        "p99.9",
        PARTS.join(" ")
    );
    let hello = samples(subject, Call::Hello);
    for (call, closed, open) in &subject.calls {
        let (peak, half) = (medians(closed), medians(open));
        let [p50, p99, p999] = peak.latency;
        let [half50, half99, half999] = half.latency;
        let parts: Vec<_> =
            peak.cpu.iter().map(|cpu| cpu.map_or("-".to_owned(), |cpu| format!("{cpu:.0}"))).collect();
        print!(
            "{:<10} {:>8.0} {:>7.3} {p50:>7.2} {p99:>7.2} {p999:>7.2} | {:>8.0} {half50:>7.2} {half99:>7.2} {half999:>7.2} | {}",
            call.name(),
            peak.rate,
            ratio(closed, hello, |sample| sample.rate),
            half.rate,
            parts.join(" ")
        );
        match peak.failed.max(half.failed) {
            0.0 => println!(),
            failed => println!("  {:.2} % not answered as they should be", failed * 100.0),
        }
    }
    let (host, relay) = subject.memory;
    let relay = relay.map(|relay| format!(", relay {} MB", relay / 1024)).unwrap_or_default();
    println!("resident memory: host {} MB{relay}", host / 1024);
}

/// Each to the first, if they are the same thing of several commits or of others.
fn compare(measured: &[Measured]) {
    let [first, others @ ..] = measured else { return };
    if others.is_empty() {
        return;
    }
    println!(
        "\nto {}, as medians of the ratios of each round: requests/s and CPU a request, all parts together",
        first.name
    );
    for other in others {
        let one = |(call, closed, _): &(Call, Vec<Sample>, Vec<Sample>)| {
            let to = samples(first, *call);
            let (rate, cpu) = (ratio(closed, to, |sample| sample.rate), ratio(closed, to, cpu));
            format!("{} {rate:.2} {cpu:.2}", call.name())
        };
        println!("{}: {}", other.name, other.calls.iter().map(one).collect::<Vec<_>>().join(", "));
    }
}

fn document(measured: &[Measured], settings: &Settings, connections: usize, commit: &str) -> Value {
    let one = |sample: &Sample| {
        json!({
            "requestsPerSecond": sample.rate,
            "latencyMs": { "p50": sample.latency[0], "p99": sample.latency[1], "p99.9": sample.latency[2] },
            "cpuMicrosPerRequest": PARTS.iter().zip(&sample.cpu).map(|(part, cpu)| ((*part).to_owned(), json!(cpu))).collect::<serde_json::Map<_, _>>(),
            "failed": sample.failed,
        })
    };
    let subject = |subject: &Measured| {
        let hello = samples(subject, Call::Hello);
        let calls: Vec<_> = subject
            .calls
            .iter()
            .map(|(call, closed, open)| {
                json!({
                    "call": call.name(),
                    "toHello": { "requestsPerSecond": ratio(closed, hello, |sample| sample.rate), "cpu": ratio(closed, hello, cpu) },
                    "peak": one(&medians(closed)),
                    "half": one(&medians(open)),
                    "rounds": { "peak": closed.iter().map(one).collect::<Vec<_>>(), "half": open.iter().map(one).collect::<Vec<_>>() },
                })
            })
            .collect();
        json!({ "name": subject.name, "memoryKiB": { "host": subject.memory.0, "relay": subject.memory.1 }, "calls": calls })
    };
    json!({
        "commit": commit,
        "at": chrono::Utc::now().to_rfc3339(),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "processor": processor(),
        "connections": connections,
        "numbers": if settings.few_numbers { "thousand" } else { "million" },
        "limits": if settings.guarded { "all" } else { "default" },
        "rounds": settings.rounds,
        "seconds": settings.duration.as_secs(),
        "subjects": measured.iter().map(subject).collect::<Vec<_>>(),
    })
}

fn processor() -> Option<String> {
    let cpus = fs::read_to_string(Path::new("/proc/cpuinfo")).ok()?;
    let line = cpus.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

const COLOURS: [&str; 8] =
    ["#4269d0", "#efb118", "#ff725c", "#6cc5b0", "#3ca951", "#ff8ab7", "#a463f2", "#97bbf5"];

/// Bars of the requests a second, a group for each call but hello.
fn picture(measured: &[Measured], commit: &str, connections: usize) -> String {
    const WIDTH: usize = 960;
    const LEFT: usize = 100;
    const BAR: usize = 14;
    let calls: Vec<_> = Call::ALL.into_iter().filter(|call| *call != Call::Hello).collect();
    let rate = |subject: &Measured, call| medians(samples(subject, call)).rate;
    let most = measured.iter().flat_map(|subject| calls.iter().map(move |call| rate(subject, *call)));
    let most = most.filter(|rate| rate.is_finite()).fold(1.0_f64, f64::max);
    let group = measured.len() * BAR + 16;
    let height = 60 + calls.len() * group + measured.len() * 18 + 20;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"white\"/>\n\
         <text x=\"16\" y=\"28\" font-size=\"16\">requests a second, {connections} connections, commit {commit}</text>\n"
    );
    for (row, call) in calls.iter().enumerate() {
        let top = 50 + row * group;
        let _ = writeln!(svg, "<text x=\"16\" y=\"{}\">{}</text>", top + group / 2, call.name());
        for (index, subject) in measured.iter().enumerate() {
            let rate = rate(subject, *call);
            if !rate.is_finite() {
                continue;
            }
            let width = rate / most * (WIDTH - LEFT - 80) as f64;
            let (y, colour) = (top + index * BAR, COLOURS[index % COLOURS.len()]);
            let _ = writeln!(
                svg,
                "<rect x=\"{LEFT}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{rate:.0}</text>",
                BAR - 2,
                LEFT as f64 + width + 6.0,
                y + BAR - 3
            );
        }
    }
    for (index, subject) in measured.iter().enumerate() {
        let y = 50 + calls.len() * group + index * 18;
        let colour = COLOURS[index % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{y}\" width=\"12\" height=\"12\" fill=\"{colour}\"/><text x=\"{}\" y=\"{}\">{}</text>",
            LEFT + 20,
            y + 11,
            subject.name
        );
    }
    svg + "</svg>\n"
}
