//! The page around the charts.

use std::time::Duration;

use serde_json::Value;

use crate::alarm::Quantity;
use crate::config::Config;
use crate::documents::Dropped;
use crate::history::{Evaluation, History, Series};
use crate::retention::best;
use crate::run_folder::Checkpoint;
use crate::samples::Sample;
use crate::setup::Setup;

use super::Report;
use super::axis::{grouped, number};
use super::chart::{Chart, Curve};

const STYLE: &str = include_str!("style.css");
/// How many of the latest samples are shown.
const SAMPLES: usize = 20;
/// How many of the latest checkpoints are listed, the best one aside.
const CHECKPOINTS: usize = 200;

/// The page.
pub(super) fn html(report: &Report, checkpoints: &[Checkpoint]) -> String {
    let Report { folder, config, setup, history, samples } = report;
    let name = folder.path().file_name().unwrap_or(folder.path().as_os_str());
    let name = escape(&name.to_string_lossy());
    let best = best(&history.evaluations, checkpoints);
    let sections = [
        format!("<h1>{name}</h1>\n<p>{}</p>\n", model_line(setup)),
        key_figures(config, history, best),
        format!("<div class=\"charts\">\n{}</div>\n", charts(config, history).concat()),
        samples_section(samples),
        section("Alarms", &alarms(history)),
        section("Checkpoints", &checkpoint_table(history, checkpoints, best)),
        "<div class=\"tables\">\n".into(),
        format!("<section>{}</section>\n", section("Configuration", &configuration(config))),
        format!("<section>{}</section>\n", section("Data", &data(config, setup))),
        "</div>\n".into(),
    ];
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{name} - Arcane</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n{}</body>\n</html>\n",
        sections.concat()
    )
}

/// Text as HTML, between tags or in a quoted attribute. Control characters that HTML does not allow are replaced by U+FFFD.
pub(super) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\n' | '\t' => escaped.push(c),
            c if c.is_control() => escaped.push('\u{FFFD}'),
            c => escaped.push(c),
        }
    }
    escaped
}

fn section(title: &str, body: &str) -> String {
    format!("<h2>{title}</h2>\n{body}")
}

/// A table; the cells of the first column head their rows, and everything is text.
fn table(rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let row = |cells: Vec<String>| {
        let cell = |(i, text): (usize, String)| {
            let tag = if i == 0 { "th" } else { "td" };
            format!("<{tag}>{}</{tag}>", escape(&text))
        };
        format!("<tr>{}</tr>\n", cells.into_iter().enumerate().map(cell).collect::<Vec<_>>().concat())
    };
    format!("<table>\n{}</table>\n", rows.into_iter().map(row).collect::<Vec<_>>().concat())
}

fn model_line(setup: &Setup) -> String {
    let model = &setup.model;
    escape(&format!(
        "{} parameters: {} layers, {} wide, {} heads, {} token ids; trained in {}",
        grouped(model.parameters as i64),
        model.layers,
        model.width,
        model.heads,
        grouped(model.vocab as i64),
        setup.precision
    ))
}

/// What a reader wants to know first.
fn key_figures(config: &Config, history: &History, best: Option<Evaluation>) -> String {
    let last = history.last.unwrap_or_default();
    let mut figures =
        vec![("updates", format!("{} of {}", grouped(last.step as i64), grouped(config.train.steps as i64)))];
    if history.last.is_some() {
        figures.push(("training loss", number(last.loss)));
    }
    if let Some(e) = history.evaluations.last() {
        figures.push(("validation loss", evaluation_text(e)));
    }
    if let Some(e) = best {
        figures
            .push(("best checkpoint", format!("step {}: {}", grouped(e.step as i64), evaluation_text(&e))));
    }
    figures.push(("tokens", grouped(last.tokens as i64)));
    if history.ms > 0.0 {
        figures.push(("time in updates", duration(history.ms)));
    }
    if history.skipped > 0 {
        figures.push(("skipped updates", grouped(history.skipped as i64)));
    }
    figures.push(("alarms", grouped(history.alarm_count as i64)));
    let figures = figures
        .into_iter()
        .map(|(name, value)| format!("<div><dt>{name}</dt><dd>{}</dd></div>\n", escape(&value)));
    format!("<dl>\n{}</dl>\n", figures.collect::<Vec<_>>().concat())
}

fn evaluation_text(evaluation: &Evaluation) -> String {
    match evaluation.bits_per_byte {
        Some(bits) => format!("{} ({} bits/byte)", number(evaluation.loss), number(bits)),
        None => number(evaluation.loss),
    }
}

/// `1:02:03`, or `2:03` below an hour.
fn duration(ms: f64) -> String {
    let seconds = Duration::try_from_secs_f64(ms / 1e3).unwrap_or(Duration::MAX).as_secs();
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

fn charts(config: &Config, history: &History) -> Vec<String> {
    let last = history.last.map_or(history.first_step, |last| last.step);
    let chart = |title, series| Chart {
        title,
        steps: [history.first_step, last],
        curves: vec![Curve { series, smooth: true }],
        points: None,
        rule: None,
        marks: Vec::new(),
    };
    let as_it_is = |series| vec![Curve { series, smooth: false }];
    let marks = |of: Quantity| {
        let of_this = history.alarms.iter().filter(|(_, alarm)| alarm.of() == of);
        of_this.map(|(step, alarm)| (*step, alarm.to_string())).collect()
    };
    let evaluations = |value: fn(&Evaluation) -> Option<f64>| {
        let values = history.evaluations.iter().filter_map(|e| Some((e.step, value(e)?)));
        Some(("validation", values.collect()))
    };
    let is_constant = |series: &Series| {
        series.buckets().windows(2).all(|pair| pair[0].range == pair[1].range)
            && series.buckets().iter().all(|b| b.range[0] == b.range[1])
    };
    let clip = config.optimizer.clip;
    let loss_scale = &history.loss_scale;
    let charts = [
        Some(Chart {
            points: evaluations(|e| Some(e.loss)),
            marks: marks(Quantity::Loss),
            ..chart("Loss, nats a token", &history.loss)
        }),
        Some(Chart {
            curves: Vec::new(),
            points: evaluations(|e| e.bits_per_byte),
            ..chart("Validation, bits a byte", &history.loss)
        }),
        Some(Chart {
            rule: (clip > 0.0).then(|| (clip, format!("clipped to {}", number(clip)))),
            marks: marks(Quantity::GradNorm),
            ..chart("Gradient norm before clipping", &history.grad_norm)
        }),
        Some(Chart { curves: as_it_is(&history.lr), ..chart("Learning rate", &history.lr) }),
        Some(chart("Tokens a second", &history.speed)),
        (!is_constant(loss_scale))
            .then(|| Chart { curves: as_it_is(loss_scale), ..chart("Loss scale", loss_scale) }),
    ];
    charts.into_iter().flatten().map(|chart| chart.figure()).collect()
}

fn samples_section(samples: &[Sample]) -> String {
    let latest = samples.iter().rev().take(SAMPLES).map(|sample| {
        format!(
            "<p>after update {}</p>\n<pre><b>{}</b>{}</pre>\n",
            grouped(sample.step as i64),
            escape(&sample.prompt),
            escape(&sample.text)
        )
    });
    let latest = latest.collect::<Vec<_>>().concat();
    if latest.is_empty() { latest } else { section("Samples", &latest) }
}

fn alarms(history: &History) -> String {
    if history.alarms.is_empty() {
        return "<p>None.</p>\n".into();
    }
    let (shown, all) = (history.alarms.len() as u64, history.alarm_count);
    let only = if shown < all {
        format!("<p>The last {shown} of {}.</p>\n", grouped(all as i64))
    } else {
        String::new()
    };
    let rows = history.alarms.iter().map(|(step, alarm)| vec![grouped(*step as i64), alarm.to_string()]);
    format!("{only}{}", table(rows))
}

fn checkpoint_table(history: &History, checkpoints: &[Checkpoint], best: Option<Evaluation>) -> String {
    let Some(newest) = checkpoints.last() else { return "<p>None yet.</p>\n".into() };
    let is_best = |c: &Checkpoint| best.is_some_and(|best| best.step == c.step);
    let row = |(_, c): (usize, &Checkpoint)| {
        let at = history.evaluations.binary_search_by_key(&c.step, |e| e.step);
        let evaluation = at.map_or(String::new(), |i| {
            format!("validation loss {}", evaluation_text(&history.evaluations[i]))
        });
        let marks = [(is_best(c), "the best"), (c.step == newest.step, "the newest")];
        let marks: Vec<&str> = marks.iter().filter(|(is, _)| *is).map(|(_, text)| *text).collect();
        vec![format!("checkpoints/step-{:06}", c.step), evaluation, marks.join(", ")]
    };
    let listed = |(i, c): &(usize, &Checkpoint)| i + CHECKPOINTS >= checkpoints.len() || is_best(c);
    table(checkpoints.iter().enumerate().filter(listed).map(row))
}

/// The keys of the configuration, in the order of its file.
fn configuration(config: &Config) -> String {
    fn flatten(prefix: &str, value: &Value, rows: &mut Vec<Vec<String>>) {
        match value {
            Value::Object(map) => {
                let dot = if prefix.is_empty() { "" } else { "." };
                map.iter().for_each(|(key, value)| flatten(&format!("{prefix}{dot}{key}"), value, rows));
            }
            Value::String(text) => rows.push(vec![prefix.into(), text.clone()]),
            other => rows.push(vec![prefix.into(), other.to_string()]),
        }
    }
    let mut rows = Vec::new();
    // A configuration that has been read from TOML has nothing that JSON lacks.
    flatten("", &serde_json::to_value(config).unwrap_or_default(), &mut rows);
    table(rows)
}

fn data(config: &Config, setup: &Setup) -> String {
    let (report, data) = (&setup.data, &config.data);
    let mut rows = vec![
        vec!["training".into(), data.train.display().to_string()],
        vec![String::new(), report.train.to_string()],
    ];
    if let Some(valid) = &report.valid {
        let from =
            data.valid.as_ref().map_or("the end of the training data".into(), |p| p.display().to_string());
        rows.push(vec!["validation".into(), from]);
        rows.push(vec![String::new(), valid.to_string()]);
    }
    if let Some(learnt) = report.learnt {
        rows.push(vec!["tokenizer".into(), format!("{learnt} tokens, made from the training text")]);
    }
    let Dropped { empty, without_text, not_utf8 } = report.dropped;
    let unused = report.train.unused + report.valid.map_or(0, |valid| valid.unused);
    let left_out = [
        (empty, "empty documents"),
        (without_text, "lines without text"),
        (unused as u64, "tokens at the end that fill no sequence"),
    ];
    rows.extend(left_out.map(|(n, what)| vec!["left out".into(), format!("{} {what}", grouped(n as i64))]));
    let replaced = format!("{} places that are not UTF-8, by U+FFFD", grouped(not_utf8 as i64));
    rows.push(vec!["replaced".into(), replaced]);
    table(rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escaped_text_has_no_markup() {
        assert_eq!(
            escape("a<script>\"&'\u{0}\n</script>"),
            "a&lt;script&gt;&quot;&amp;&#39;\u{FFFD}\n&lt;/script&gt;"
        );
    }

    #[test]
    fn durations_are_those_of_a_clock() {
        assert_eq!(
            [duration(61_500.0), duration(3_723_000.0), duration(f64::NAN).len().to_string()],
            ["1:01", "1:02:03", "22"]
        );
    }
}
