//! The data files as they stand: every number has a source, and interpolated ones follow the rule that they name.

use std::collections::BTreeMap;
use std::path::Path;

use arcane_chip::price::fit::{Fitted, fit, leave_one_chip_out, leave_one_source_out, quantile};
use arcane_chip::{Chip, Family};
use toml::{Table, Value};

/// Files of tables that are not those of a chip or a family.
const OTHERS: [&str; 4] = ["ops", "activation-h16", "errors", "others"];

/// The file of each chip and family.
fn files() -> BTreeMap<String, Table> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_some_and(|e| e == "toml") && !OTHERS.contains(&stem.as_str()) {
            found.insert(stem, std::fs::read_to_string(&path).unwrap().parse().unwrap());
        }
    }
    found
}

/// Calls `visit` with the key and the entry of each fact below a table, and fails for a number outside of one.
fn each_fact<'a>(place: &str, table: &'a Table, visit: &mut impl FnMut(&str, &'a Table)) {
    for (key, value) in table {
        let place = format!("{place}.{key}");
        match value {
            Value::Table(inner) if inner.contains_key("value") => visit(key, inner),
            Value::Table(inner) => each_fact(&place, inner, visit),
            Value::String(_) => assert_eq!(key, "family", "{place} has no source"),
            other => panic!("{place} = {other} has no source"),
        }
    }
}

fn number(fact: &Table) -> Option<f64> {
    match &fact["value"] {
        Value::Integer(i) => Some(*i as f64),
        Value::Float(x) => Some(*x),
        _ => None,
    }
}

#[test]
fn every_number_has_a_source_and_says_how_well_it_is_known() {
    let files = files();
    assert_eq!(files.len(), Chip::all().len() + 6, "a file for each chip and family");
    for (name, table) in &files {
        each_fact(name, table, &mut |key, fact| {
            assert!(!fact["source"].as_str().unwrap().is_empty(), "{name}: {key} has no source");
            let confidence = fact["confidence"].as_str().unwrap();
            let other = fact.contains_key("other") || fact.contains_key("note");
            assert!(confidence != "conflict" || other, "{name}: {key} has no other side");
            if let Some(x) = number(fact) {
                assert!(x > 0.0 && x.is_finite(), "{name}: {key} is {x}");
            }
        });
    }
}

#[test]
fn every_chip_has_the_limits_of_its_family() {
    let families = [Family::H13, Family::H14, Family::H15, Family::H16, Family::H17, Family::H18];
    for chip in Chip::all() {
        let generation = 1 + families.iter().position(|&f| f == chip.family).unwrap();
        assert!(chip.name.starts_with(&format!("m{generation}")), "{} is {}", chip.name, chip.family);
        assert!(chip.architecture.starts_with(chip.family.name()), "{}", chip.name);
        let wide = chip.family >= Family::H16;
        assert_eq!(*chip.limits.max_width, if wide { 65_536 } else { 16_384 });
        assert!(chip.limits.planned_programs.value < chip.limits.loaded_programs.value);
        assert_eq!(*chip.engines == 2, chip.name.ends_with("ultra") || chip.name == "m6");
    }
}

/// `M3 Pro` to `m3-pro`, `H16` to `family-h16`.
fn file_name(name: &str) -> String {
    let name = name.to_lowercase().replace(' ', "-");
    if name.starts_with('h') { format!("family-{name}") } else { name }
}

/// What the rule that an interpolated number names gives for a key of a file.
fn interpolated(files: &BTreeMap<String, Table>, name: &str, section: &str, key: &str, source: &str) -> f64 {
    let value = |name: &str, key: &str| {
        let fact = files[&file_name(name)][section][key].as_table().unwrap();
        number(fact).unwrap()
    };
    let of = |chip: &str| value(chip, key);
    let rule = source.split(':').next().unwrap();
    let two = |prefix: &str| rule.strip_prefix(prefix).and_then(|s| s.split_once(" and "));
    if let Some(chip) = rule.strip_prefix("as ") {
        of(chip)
    } else if let Some(chip) = rule.strip_prefix("twice ") {
        2.0 * of(chip)
    } else if let Some((a, b)) = two("mean of ") {
        f64::midpoint(of(a), of(b))
    } else if let Some((a, b)) = two("the smaller one of ") {
        of(a).min(of(b))
    } else if rule == "three quarters of the memory bandwidth, at most 90" {
        (0.75 * value(name, "dram_gb_s")).min(90.0)
    } else {
        panic!("{name}: {key} is interpolated by no known rule: {source}")
    }
}

/// Sections, keys and sources of the numbers of one confidence in a file.
fn of_confidence<'a>(name: &str, table: &'a Table, confidence: &str) -> Vec<(&'a str, String, &'a str, f64)> {
    let mut found = Vec::new();
    for (section, entries) in table.iter().filter_map(|(k, v)| Some((k, v.as_table()?))) {
        if entries.contains_key("value") {
            continue;
        }
        each_fact(name, entries, &mut |key, fact| {
            if fact["confidence"].as_str() == Some(confidence)
                && let Some(x) = number(fact)
            {
                found.push((section.as_str(), key.to_owned(), fact["source"].as_str().unwrap(), x));
            }
        });
    }
    found
}

#[test]
fn interpolated_numbers_follow_the_rule_that_they_name() {
    let mut rules = 0;
    for (name, table) in &files() {
        for (section, key, source, found) in of_confidence(name, table, "interpolated") {
            let expected = interpolated(&files(), name, section, &key, source);
            assert!((found / expected - 1.0).abs() < 0.02, "{name}: {key} is {found}, {source}: {expected}");
            rules += 1;
        }
    }
    assert!(rules > 100, "{rules} interpolated numbers");
}

/// Three digits, which is more than any of the rows has.
fn three_digits(x: f64) -> f64 {
    format!("{x:.2e}").parse().unwrap()
}

/// Writes a number into its line of a file.
fn write_number(name: &str, key: &str, value: f64) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("data/{name}.toml"));
    let text = std::fs::read_to_string(&path).unwrap();
    let start = format!("{key} = {{ value = ");
    let line = |line: &str| match line.strip_prefix(&start).and_then(|rest| rest.split_once(',')) {
        Some((_, rest)) => format!("{start}{value:?},{rest}"),
        None => line.to_owned(),
    };
    let lines: Vec<String> = text.lines().map(line).collect();
    std::fs::write(path, lines.join("\n") + "\n").unwrap();
}

/// `UPDATE=1` writes fitted coefficients and cross-validated errors into the data files, and then what is interpolated from
/// them.
#[test]
fn committed_coefficients_are_those_of_the_fit() {
    let fit = fit();
    let update = std::env::var_os("UPDATE").is_some();
    let mut checked = 0;
    let mut check = |name: &str, key: &str, found: f64, fitted: f64| {
        let fitted = three_digits(fitted);
        if update {
            write_number(name, key, fitted);
        } else {
            assert_eq!(found, fitted, "{name}: {key}; UPDATE=1 writes the fitted numbers");
        }
        checked += 1;
    };
    for (name, table) in &files() {
        for (_, key, source, found) in of_confidence(name, table, "fitted") {
            assert!(source.starts_with("latency.csv"), "{name}: {key} is fitted to {source}");
            let fitted = Fitted::ALL.into_iter().find(|f| f.key() == key).unwrap();
            check(name, &key, found, fit.value(fitted, Chip::named(name).unwrap()));
        }
    }
    let misses = leave_one_source_out();
    let errors: Table = include_str!("../../data/errors.toml").parse().unwrap();
    let in_fit = quantile(misses.iter().filter(|m| m.is_chip_in_fit), 0.68);
    let other = quantile(&leave_one_chip_out(), 0.68);
    for (key, fitted) in [("chip_in_fit", in_fit), ("other_chip", other)] {
        check("errors", key, number(errors[key].as_table().unwrap()).unwrap(), fitted);
    }
    assert!(checked > 20, "{checked} fitted numbers");
    if update {
        for (name, table) in &files() {
            let rates = of_confidence(name, table, "interpolated").into_iter().filter(|f| f.0 == "rates");
            for (section, key, source, _) in rates {
                write_number(name, &key, three_digits(interpolated(&files(), name, section, &key, source)));
            }
        }
    }
}

/// The score that is aimed at: the median over rows of sources that a fit did not have.
#[test]
fn rows_of_unseen_sources_are_met_within_a_fifth_at_the_median() {
    let misses = leave_one_source_out();
    let scored = misses.iter().filter(|m| m.is_chip_in_fit && !m.kind.starts_with("compare"));
    let median = quantile(scored, 0.5);
    assert!(median <= 0.2, "median |ln(predicted / measured)| is {median}");
}

/// Sixteen cores of 256 multiplications and additions a cycle.
#[test]
fn peaks_are_those_of_the_clocks() {
    for chip in Chip::all() {
        let (peak, clock) = (*chip.rates.peak_tflops, *chip.rates.clock_ghz);
        assert!((peak / (8.192 * clock) - 1.0).abs() < 0.02, "{}: {peak} at {clock} GHz", chip.name);
    }
}
