//! One trace from the request to the delivery, and nothing in it that is nobody's business.

use crate::{SOON, Stack, Stacked, of_trace};
use harness::{
    Collector, IN_TIME, Kafka, Redis, Relay, SmsProvider, Span, eventually, number, unused_address,
};
use serde_json::json;
use std::time::{Duration, Instant};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn traceparent(sampled: bool) -> String {
    format!("00-{TRACE}-{CALLER}-0{}", u8::from(sampled))
}

/// A stack that sends its codes by this provider, and traces.
fn delivering_by(provider: &SmsProvider, collector: &Collector) -> Stacked {
    let delivery = format!(
        "[channels]\nsms = [\"gateway\"]\n[providers.gateway]\nkind = \"webhook\"\nurl = \"{}\"\n\
         secret = \"fedcba9876543210fedcba9876543210\"\n",
        provider.url()
    );
    let relay = Relay::builder().delivery(&delivery);
    let long = ("otp_length", "10".to_owned());
    Stacked { relay, service: vec![long], ..Stacked::default() }.tracing_to(collector)
}

fn generate(stack: &Stack, number: &str, traceparent: Option<&str>) -> String {
    let headers = traceparent.map(|traceparent| ("traceparent", traceparent));
    let body = json!({ "mobileNumber": number });
    let answer = stack.service.client().post_with("/generate-otp", headers.as_slice(), &body).expect(201);
    answer["otp"].as_str().unwrap().to_owned()
}

/// Waits until nothing is pushed any more: a push that is under way takes along what comes meanwhile, in its own trace.
#[track_caller]
fn comes_to_rest(stack: &Stack) {
    eventually("rest", SOON, || stack.service.sql().number("SELECT count(*) FROM outbox", &[]) == 0);
}

/// The one span of that service and name.
#[track_caller]
fn one<'a>(spans: &'a [Span], service: &str, name: &str) -> &'a Span {
    let found: Vec<_> = spans.iter().filter(|span| span.service == service && span.name == name).collect();
    match found[..] {
        [span] => span,
        _ => panic!("{service} {name}: {found:#?} of {spans:#?}"),
    }
}

/// Waits until the code has been delivered and told of in this trace.
fn delivered(collector: &Collector, trace: &str) -> Vec<Span> {
    eventually("the whole trace", SOON, || {
        let spans = of_trace(collector, trace);
        ["deliver sms", "process otp-events", "publish otp-events", "POST /events"]
            .iter()
            .all(|name| spans.iter().any(|span| span.name == *name))
            && spans.iter().any(|span| span.kind == "server" && span.service == "spin-otp")
            // It ends when the relay has answered, and is told of in its own time.
            && spans.iter().any(|span| span.service == "spin-otp" && span.name == "POST")
    });
    of_trace(collector, trace)
}

/// What has to hold whatever carries the events.
fn is_one_trace(spans: &[Span], provider: &SmsProvider, system: &str) {
    let request = one(spans, "spin-otp", "POST /...");
    assert_eq!((request.kind, &*request.parent), ("server", CALLER));
    assert_eq!(request.attribute("url.path"), "/generate-otp");
    assert_eq!(request.attribute("http.response.status_code"), "201");

    // What the component did for it.
    let statement = spans.iter().find(|span| span.attribute("db.system.name") == "sqlite").unwrap();
    assert_eq!((statement.kind, &statement.parent), ("client", &request.id));
    let nameless = |span: &Span| span.name.is_empty() || span.name == "OTHER";
    assert!(!spans.iter().any(nameless), "each says what it is: {spans:#?}");
    let push = one(spans, "spin-otp", "POST");
    assert_eq!((push.kind, &push.parent), ("client", &request.id));
    assert_eq!(push.attribute("http.response.status_code"), "200");
    assert!(push.attribute("url.full").ends_with("/events"), "{push:?}");

    // What the relay did with it.
    let intake = one(spans, "spin-otp-relay", "POST /events");
    assert_eq!((intake.kind, &intake.parent), ("server", &push.id));
    // Of an event that is pushed again there is another one, with a link to that push.
    let link = (intake.trace.clone(), intake.id.clone());
    let publish = spans.iter().find(|span| span.name == "publish otp-events" && span.links.contains(&link));
    let publish = publish.unwrap_or_else(|| panic!("no link to {link:?}: {spans:#?}"));
    assert_eq!((publish.kind, &*publish.parent), ("producer", CALLER), "the event's own context");
    assert_eq!(publish.attribute("messaging.system"), system);
    let process = one(spans, "spin-otp-relay", "process otp-events");
    assert_eq!((process.kind, &*process.parent), ("consumer", CALLER));
    assert_eq!(process.attribute("cloudevents.event_type"), "otp.generated.v1");
    let deliver = one(spans, "spin-otp-relay", "deliver sms");
    assert_eq!((deliver.kind, &*deliver.parent), ("client", CALLER));
    assert_eq!(deliver.attribute("spin_otp.provider"), "gateway");
    assert_eq!(deliver.attribute("cloudevents.event_id"), process.attribute("cloudevents.event_id"));

    // And the provider goes on from there.
    assert_eq!(provider.sent().last().unwrap().header("traceparent"), Some(&*deliver.traceparent()));
    // A Redis that is new is asked for a script that it does not have.
    let failed =
        spans.iter().filter(|span| span.error.is_some() && span.attribute("db.system.name") != "redis");
    assert_eq!(failed.count(), 0, "{spans:#?}");
}

#[test]
fn one_trace_leads_from_the_request_to_the_delivery() {
    let (collector, provider) = (Collector::start(), SmsProvider::start());
    let stack = delivering_by(&provider, &collector).start();
    generate(&stack, &number(), Some(&traceparent(true)));
    is_one_trace(&delivered(&collector, TRACE), &provider, "in-process");
}

#[test]
fn one_trace_leads_over_kafka_and_names_redis_too() {
    let (collector, provider) = (Collector::start(), SmsProvider::start());
    let (kafka, redis) = (Kafka::start(), Redis::start());
    let mut stacked = delivering_by(&provider, &collector);
    stacked.relay = stacked.relay.env("KAFKA_BROKERS", kafka.brokers());
    stacked.service.push(("redis_endpoint", redis.endpoint()));
    let stack = stacked.start();
    eventually("readiness", SOON, || stack.relay.client().get("/readyz").status == 200);
    // Each partition of a topic that is new takes its time for the first record, or the relay asks again.
    let same = number();
    generate(&stack, &same, None);
    eventually("the first delivery", SOON, || !provider.sent().is_empty());
    comes_to_rest(&stack);
    generate(&stack, &same, Some(&traceparent(true)));
    let spans = delivered(&collector, TRACE);
    is_one_trace(&spans, &provider, "kafka");
    let process = one(&spans, "spin-otp-relay", "process otp-events");
    process.attribute("messaging.destination.partition.id").parse::<u32>().unwrap();
    let request = one(&spans, "spin-otp", "POST /...");
    let commands: Vec<_> = spans.iter().filter(|span| span.attribute("db.system.name") == "redis").collect();
    assert!(!commands.is_empty() && commands.iter().all(|span| span.parent == request.id), "{spans:#?}");
}

#[test]
fn an_event_without_a_trace_begins_one_of_its_own_for_all_that_becomes_of_it() {
    let (collector, provider) = (Collector::start(), SmsProvider::start());
    let stack = delivering_by(&provider, &collector).start();
    generate(&stack, &number(), None);
    let publish = || collector.spans().into_iter().find(|span| span.name == "publish otp-events");
    eventually("publishing", SOON, || publish().is_some());
    let publish = publish().unwrap();
    assert_eq!(publish.parent, "");
    eventually("delivery", SOON, || of_trace(&collector, &publish.trace).len() == 3);
    let spans = of_trace(&collector, &publish.trace);
    for name in ["process otp-events", "deliver sms"] {
        assert_eq!(one(&spans, "spin-otp-relay", name).parent, publish.id);
    }
    // The push that brought it is another trace, that of its request, and a link leads there.
    let (trace, intake) = &publish.links[0];
    eventually("the other trace", SOON, || {
        let spans = of_trace(&collector, trace);
        let request = spans.iter().find(|span| span.kind == "server" && span.service == "spin-otp");
        spans.iter().any(|span| span.id == *intake && span.name == "POST /events")
            && request.is_some_and(|request| {
                request.parent.is_empty() && request.attribute("url.path") == "/generate-otp"
            })
    });
}

#[test]
fn a_trace_that_its_caller_does_not_sample_is_not_recorded_and_goes_on() {
    let (collector, provider) = (Collector::start(), SmsProvider::start());
    let stack = delivering_by(&provider, &collector).start();
    generate(&stack, &number(), Some(&traceparent(false)));
    eventually("delivery", SOON, || !provider.sent().is_empty());
    let sent = provider.sent()[0].header("traceparent").unwrap().to_owned();
    assert_eq!((&sent[3..35], &sent[53..]), (TRACE, "00"));
    comes_to_rest(&stack);
    // A trace that is sampled comes after it, so what would have been sent of the first one is there by now.
    let other = traceparent(true).replace(TRACE, "1bf7651916cd43dd8448eb211c80319c");
    generate(&stack, &number(), Some(&other));
    delivered(&collector, "1bf7651916cd43dd8448eb211c80319c");
    assert!(of_trace(&collector, TRACE).is_empty());
}

#[test]
fn requests_that_run_at_once_have_their_calls_in_their_own_traces() {
    let (collector, provider) = (Collector::start(), SmsProvider::start());
    let stack = delivering_by(&provider, &collector).start();
    let trace = |index: usize| format!("{:032x}", 0xabcd_0000 + index);
    harness::at_once(12, |index| {
        generate(&stack, &number(), Some(&format!("00-{}-{CALLER}-01", trace(index))));
    });
    for index in 0..12 {
        eventually("each trace", SOON, || {
            let spans = of_trace(&collector, &trace(index));
            let request = spans.iter().find(|span| span.kind == "server" && span.service == "spin-otp");
            request.is_some_and(|request| {
                let statements = spans.iter().filter(|span| span.attribute("db.system.name") == "sqlite");
                statements.clone().count() > 0 && statements.clone().all(|span| span.parent == request.id)
            }) && spans.iter().filter(|span| span.name == "deliver sms").count() == 1
        });
    }
}

#[test]
fn a_delivery_that_fails_is_an_error_in_its_trace_and_each_attempt_a_span() {
    let (collector, provider) = (Collector::start(), SmsProvider::start());
    provider.answer_next(1, 503);
    let stack = delivering_by(&provider, &collector).start();
    generate(&stack, &number(), Some(&traceparent(true)));
    eventually("two attempts", SOON, || {
        of_trace(&collector, TRACE).iter().filter(|span| span.name == "deliver sms").count() == 2
    });
    let mut attempts: Vec<_> =
        of_trace(&collector, TRACE).into_iter().filter(|span| span.name == "deliver sms").collect();
    attempts.sort_by_key(|span| span.attribute("spin_otp.attempt").to_owned());
    assert_eq!(
        (attempts[0].error.as_deref(), attempts[0].attribute("error.type")),
        (Some("HTTP 503"), "temporary")
    );
    assert_eq!((attempts[1].error.as_deref(), attempts[1].attribute("spin_otp.attempt")), (None, "2"));
}

#[test]
fn no_trace_holds_a_code_or_a_number() {
    let (collector, provider, redis) = (Collector::start(), SmsProvider::start(), Redis::start());
    let mut stacked = delivering_by(&provider, &collector);
    stacked.service.push(("redis_endpoint", redis.endpoint()));
    let stack = stacked.start();
    let client = stack.service.client();
    let (mut numbers, mut codes) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let number = number();
        codes.push(generate(&stack, &number, None));
        client.resend(&number).expect(200);
        client.verify(&number, "9876543210").expect_problem(422, "otp_mismatch");
        client.verify(&number, codes.last().unwrap()).expect(200);
        assert_eq!(client.erase(&number).status, 204);
        // A path that is none, a method that is none, and a query.
        client.get(&format!("/users/{number}/codes/{}?of={number}", codes.last().unwrap()));
        client.send("FETCH", &format!("/{number}"), &[], b"");
        numbers.push(number);
    }
    let erased = |span: &Span| span.attribute("cloudevents.event_type") == "user.erased.v1";
    eventually("all erasures", SOON, || {
        collector.spans().iter().filter(|span| erased(span) && span.kind == "consumer").count() == 5
    });
    assert!(collector.spans().iter().any(|span| span.attribute("url.path") == "/users/+***********"));
    let bytes = collector.bytes();
    let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    assert!(holds("url.path"), "the test looks at what was sent");
    for secret in numbers.iter().map(|number| &number[1..]).chain(codes.iter().map(String::as_str)) {
        assert!(!holds(secret), "a trace holds {secret}");
    }
}

#[test]
fn a_collector_that_is_away_or_hangs_slows_nothing_and_stops_nothing() {
    let hanging = Collector::start();
    hanging.server().delay(Duration::from_secs(60));
    for endpoint in [format!("http://{}", unused_address()), hanging.url()] {
        let mut stack = Stacked::default()
            .env("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint)
            .env("OTEL_BSP_SCHEDULE_DELAY", "50")
            .env("OTEL_EXPORTER_OTLP_TIMEOUT", "1000")
            // So small that it is full in no time.
            .env("OTEL_BSP_MAX_QUEUE_SIZE", "8")
            .start();
        let client = stack.service.client();
        let mut slowest = Duration::ZERO;
        for _ in 0..200 {
            let begun = Instant::now();
            client.generate(&number());
            slowest = slowest.max(begun.elapsed());
        }
        // The promise of the service, whatever hangs.
        assert!(slowest < IN_TIME, "{slowest:?}");
        eventually("delivery", SOON, || {
            let inbox = stack.relay.client().get("/inbox?limit=10000");
            inbox.expect(200).as_array().unwrap().len() == 200
        });
        eventually("one warning each", SOON, || {
            let warned = |log: String| log.matches("traces cannot be sent").count();
            warned(stack.service.log()) == 1 && warned(stack.relay.log()) == 1
        });
        let begun = Instant::now();
        assert_eq!(stack.service.terminate().code(), Some(0), "{}", stack.service.log());
        assert_eq!(stack.relay.terminate().code(), Some(0), "{}", stack.relay.log());
        // Kubernetes allows thirty.
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    }
}

#[test]
fn the_standard_variables_are_obeyed_and_one_that_cannot_be_is_said() {
    let collector = Collector::start();
    let named = Stacked::default()
        .tracing_to(&collector)
        .env("OTEL_SERVICE_NAME", "shop-otp")
        .env("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        .env("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20collector-token")
        .start();
    named.service.client().generate(&number());
    eventually("spans of both", SOON, || {
        let spans = collector.spans();
        ["POST /...", "POST /events"].iter().all(|name| spans.iter().any(|span| span.name == *name))
    });
    assert!(collector.spans().iter().all(|span| span.service == "shop-otp"));
    let sent = collector.server().sent();
    assert!(sent.iter().all(|sent| sent.header("authorization") == Some("Bearer collector-token")));
    drop(named);

    for (name, value) in [("OTEL_SDK_DISABLED", "true"), ("OTEL_TRACES_SAMPLER", "always_off")] {
        let silent = Collector::start();
        let mut stack = Stacked::default().tracing_to(&silent).env(name, value).start();
        stack.service.client().generate(&number());
        // All that there is is sent before they end.
        stack.service.terminate();
        stack.relay.terminate();
        assert!(silent.server().sent().is_empty(), "{name}");
    }

    let stack = Stacked::default().tracing_to(&collector).env("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc").start();
    for log in [stack.service.log(), stack.relay.log()] {
        assert!(log.contains("OTEL_EXPORTER_OTLP_PROTOCOL") && log.contains("http/protobuf"), "{log}");
    }
}
