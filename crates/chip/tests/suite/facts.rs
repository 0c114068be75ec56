//! The data files as they stand: every number has a source, and interpolated ones follow the rule that they name.

use std::collections::BTreeMap;
use std::path::Path;

use arcane_chip::{Chip, Family};
use toml::{Table, Value};

/// The file of each name, without `ops` and what is no TOML.
fn files() -> BTreeMap<String, Table> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("data");
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if path.extension().is_some_and(|e| e == "toml") && stem != "ops" {
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

#[test]
fn interpolated_numbers_follow_the_rule_that_they_name() {
    let files = files();
    let value = |name: &str, section: &str, key: &str| {
        let fact = files[&file_name(name)][section][key].as_table().unwrap();
        number(fact).unwrap()
    };
    let mut rules = 0;
    for (name, table) in &files {
        for section in ["limits", "rates", "energy"] {
            let Some(Value::Table(entries)) = table.get(section) else { continue };
            each_fact(name, entries, &mut |key, fact| {
                if fact["confidence"].as_str() != Some("interpolated") {
                    return;
                }
                let source = fact["source"].as_str().unwrap();
                let source = source.split(':').next().unwrap();
                let of = |chip: &str| value(chip, section, key);
                let expected = if let Some(chip) = source.strip_prefix("as ") {
                    of(chip)
                } else if let Some(chip) = source.strip_prefix("twice ") {
                    2.0 * of(chip)
                } else if let Some((a, b)) =
                    source.strip_prefix("mean of ").and_then(|s| s.split_once(" and "))
                {
                    f64::midpoint(of(a), of(b))
                } else if let Some((a, b)) =
                    source.strip_prefix("the smaller one of ").and_then(|s| s.split_once(" and "))
                {
                    of(a).min(of(b))
                } else {
                    match source {
                        "linear in the generation from M1 to M4" => {
                            let generation: f64 = name[1..2].parse().unwrap();
                            of("M1") + (of("M4") - of("M1")) * (generation - 1.0) / 3.0
                        }
                        "three quarters of the memory bandwidth, at most 90" => {
                            (0.75 * value(name, section, "dram_gb_s")).min(90.0)
                        }
                        _ => panic!("{name}: {key} is interpolated by no known rule: {source}"),
                    }
                };
                let found = number(fact).unwrap();
                assert!(
                    (found / expected - 1.0).abs() < 0.02,
                    "{name}: {key} is {found}, {source}: {expected}"
                );
                rules += 1;
            });
        }
    }
    assert!(rules > 100, "{rules} interpolated numbers");
}

/// Sixteen cores of 256 multiplications and additions a cycle.
#[test]
fn peaks_are_those_of_the_clocks() {
    for (chip, clock) in [("m1", 1.428), ("m1-max", 1.464), ("m2-pro", 1.938), ("m5", 2.172), ("m6", 2.58)] {
        let peak = *Chip::named(chip).unwrap().rates.peak_tflops;
        assert!((peak / (8.192 * clock) - 1.0).abs() < 0.01, "{chip}: {peak}");
    }
}
