//! The page of a run.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use arcane_compile::Precision;
use arcane_train::report::{Report, record_sample};
use arcane_train::run::Start;
use arcane_train::samples::Sample;

use crate::support::{Bench, environment};

const OPTIONS: [&str; 3] = ["data.valid_fraction=0.2", "run.eval_every=2", "run.save_every=3"];

fn report(run: &Path) -> String {
    fs::read_to_string(run.join("report.html")).unwrap()
}

/// Checks that every element that is opened is closed, in order.
#[track_caller]
fn assert_balanced(html: &str) {
    let body = html.replacen("<!DOCTYPE html>", "", 1);
    let mut open: Vec<&str> = Vec::new();
    for part in body.split('<').skip(1) {
        let (tag, _) = part.split_once('>').expect("a tag ends");
        let name = tag.trim_start_matches('/').split([' ', '/']).next().unwrap();
        if let Some(closed) = tag.strip_prefix('/') {
            assert_eq!(open.pop(), Some(closed), "{tag}");
        } else if name != "meta" && !tag.ends_with('/') {
            open.push(name);
        }
    }
    assert_eq!(open, [""; 0]);
}

/// How many places the path of a class in a chart goes through.
fn places(html: &str, title: &str, class: &str) -> usize {
    let (_, chart) = html.split_once(&format!("aria-label=\"{title}\"")).unwrap();
    let (chart, _) = chart.split_once("</svg>").unwrap();
    let (_, path) = chart.split_once(&format!("<path class=\"{class}\" d=\"")).unwrap();
    path.split('"').next().unwrap().matches(['M', 'L']).count()
}

#[test]
fn a_report_shows_every_update_and_evaluation_of_a_run() {
    let bench = Bench::new();
    let summary = bench.run("a", &OPTIONS, &environment(1, Precision::Fp32));
    let html = report(&bench.path("a"));
    assert_balanced(&html);
    for (title, class) in [
        ("Loss, nats a token", "raw"),
        ("Loss, nats a token", "mean"),
        ("Gradient norm before clipping", "raw"),
        ("Learning rate", "line"),
    ] {
        assert_eq!(places(&html, title, class), 6, "{title} {class}");
    }
    assert_eq!(places(&html, "Loss, nats a token", "points"), 3);
    assert_eq!(html.matches("<circle class=\"point\"").count(), 3);
    assert!(html.contains(">clipped to 1</text>"));
    let (_, best) = summary.best.unwrap();
    let texts = [
        "<dd>6 of 6</dd>".to_string(),
        format!("<dt>best checkpoint</dt><dd>step {}: ", best.step),
        "<tr><th>optimizer.betas</th><td>[0.9,0.95]</td></tr>".into(),
        "<tr><th>checkpoints/step-000003</th><td></td><td></td></tr>".into(),
        "<td>1201 tokens</td>".into(),
        "<td>the end of the training data</td>".into(),
        "<td>11 tokens at the end that fill no sequence</td>".into(),
        "<p>None.</p>".into(),
    ];
    for text in texts {
        assert!(html.contains(&text), "{text}: {html}");
    }
    // No time was taken here, so no speed is shown; the loss scale never changed.
    assert!(!html.contains("Tokens a second") && !html.contains("Loss scale"));
}

#[test]
fn a_report_needs_nothing_but_itself() {
    let bench = Bench::new();
    bench.run("a", &OPTIONS, &environment(1, Precision::Fp32));
    let html = report(&bench.path("a"));
    for word in ["<script", "<link", "<img", "src=", "href=", "url(", "@import", "://"] {
        assert!(!html.contains(word), "{word}");
    }
}

#[test]
fn texts_of_the_user_are_no_markup() {
    let bench = Bench::new();
    let name = "<script>alert(1)<script>&.bin";
    fs::copy(bench.path("tokens.bin"), bench.path(name)).unwrap();
    let data = format!("data.train={}", bench.path(name).display());
    bench.run("<b>&a", &[&data], &environment(1, Precision::Fp32));
    let run = bench.path("<b>&a");
    let text = "</pre><script>\"x\"\u{0}".to_string();
    record_sample(&run, Sample { step: 6, prompt: "<i>".into(), text }).unwrap();
    let html = report(&run);
    assert_balanced(&html);
    assert!(!html.contains("<script") && !html.contains("<b>&a"), "{html}");
    assert!(html.contains("<h1>&lt;b&gt;&amp;a</h1>"), "{html}");
    assert!(html.contains("&lt;script&gt;alert(1)&lt;script&gt;&amp;.bin</td>"), "{html}");
    let sample = "<b>&lt;i&gt;</b>&lt;/pre&gt;&lt;script&gt;&quot;x&quot;\u{FFFD}</pre>";
    assert!(html.contains(sample), "{html}");
}

#[test]
fn a_run_that_was_stopped_has_the_report_of_a_straight_one() {
    let bench = Bench::new();
    let environment = environment(1, Precision::Fp32);
    bench.run("straight", &OPTIONS, &environment);
    let mut run = bench.open("stopped", Start::New, &OPTIONS, &environment).unwrap();
    let stop = || fs::read_to_string(bench.path("stopped/metrics.jsonl")).unwrap().lines().count() == 3;
    run.train(&stop, &mut |_| {}).unwrap();
    drop(run);
    assert!(report(&bench.path("stopped")).contains("<dd>3 of 6</dd>"));
    // A sample of an update that is done again goes.
    let sample = |step| Sample { step, prompt: "Once".into(), text: format!("upon {step}") };
    record_sample(&bench.path("stopped"), sample(9)).unwrap();
    bench.resume("stopped", &OPTIONS, &environment).unwrap();
    let [straight, stopped] =
        ["straight", "stopped"].map(|name| report(&bench.path(name)).replace(name, "run"));
    assert_eq!(straight, stopped);
    // It is a function of the files.
    Report::read(&bench.path("straight")).unwrap().write().unwrap();
    assert_eq!(report(&bench.path("straight")).replace("straight", "run"), straight);
    record_sample(&bench.path("straight"), sample(6)).unwrap();
    assert!(report(&bench.path("straight")).contains("<b>Once</b>upon 6</pre>"));
}

#[test]
fn what_is_not_finite_is_marked() {
    let bench = Bench::new();
    let options = ["optimizer.lr=1e38", "optimizer.clip=0"];
    let mut run = bench.open("a", Start::New, &options, &environment(1, Precision::Fp32)).unwrap();
    run.train(&|| false, &mut |_| {}).unwrap_err();
    let html = report(&bench.path("a"));
    let step = bench.metrics("a").len();
    assert!(html.contains(&format!("<tr><th>{step}</th><td>the loss is NaN</td></tr>")), "{html}");
    assert!(html.contains(&format!("<g class=\"mark\"><title>update {step}: the loss is NaN</title>")));
    let overflowing = ["train.loss_scale=1e30", "train.steps=2"];
    bench.run("b", &overflowing, &environment(1, Precision::Fp16));
    let html = report(&bench.path("b"));
    assert!(html.contains("<dt>skipped updates</dt><dd>2</dd>"), "{html}");
    assert!(html.contains("<th>2</th><td>a gradient is not finite at loss scale "), "{html}");
    assert_eq!(bench.metrics("b")[1]["alarms"][0]["kind"], "skipped");
}

#[test]
fn a_long_run_has_a_small_report() {
    let bench = Bench::new();
    bench.run("a", &OPTIONS, &environment(1, Precision::Fp32));
    let mut metrics = String::new();
    for step in 1..=100_000 {
        let noise = f64::from(step * 7919 % 1000) / 1000.0;
        let evaluated = if step % 10 == 0 { ",\"valid_loss\":2.5,\"valid_bits_per_byte\":1.25" } else { "" };
        let skipped = if step % 50 == 7 { ",\"skipped\":true" } else { "" };
        writeln!(
            metrics,
            "{{\"step\":{step},\"loss\":{},\"lr\":{},\"grad_norm\":{},\"tokens\":{},\"ms\":{},\"loss_scale\":{}{evaluated}{skipped}}}",
            2.0 + noise,
            1e-3 * noise,
            0.5 + noise,
            step * 100,
            10.0 + noise,
            1u32 << (step / 10_000)
        )
        .unwrap();
    }
    fs::write(bench.path("a/metrics.jsonl"), metrics).unwrap();
    Report::read(&bench.path("a")).unwrap().write().unwrap();
    let html = report(&bench.path("a"));
    assert_balanced(&html);
    assert!(html.len() < 500_000, "{} bytes", html.len());
    assert!(html.contains("<p>The last 200 of 2,000.</p>") && html.contains("Loss scale"));
}
