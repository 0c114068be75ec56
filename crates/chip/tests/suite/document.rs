//! `docs/hardware.md`, which is made of the data. `UPDATE=1` writes it anew.

use std::fmt::Write;
use std::path::Path;

use arcane_chip::arithmetic::{Rules, Tables};
use arcane_chip::price::relative_half_width;
use arcane_chip::{Chip, Confidence, Fact, Family, Severity, Support, constraints, legality};
use toml::Table;

const FAMILIES: [Family; 6] = [Family::H13, Family::H14, Family::H15, Family::H16, Family::H17, Family::H18];

#[test]
fn hardware_md_is_that_of_the_data() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/hardware.md");
    let document = document();
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &document).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    for (n, (found, expected)) in found.lines().zip(document.lines()).enumerate() {
        assert_eq!(found, expected, "docs/hardware.md:{}; UPDATE=1 writes it anew", n + 1);
    }
    assert_eq!(found.len(), document.len(), "docs/hardware.md has another length; UPDATE=1 writes it anew");
}

fn document() -> String {
    let mut out = String::from(
        "# Hardware\n\nWhat is known of each chip's Neural Engine, made from the files in `crates/chip/data` by a test of that crate; \
         sources, operating systems and both sides of each conflict stand there.\n\n\
         Marks: `?` sources contradict each other, `~` fitted to published latencies, `=` taken from other chips by a rule, \
         `°` one source, stated or inferred. No mark: measured by two or more sources.\n\n",
    );
    speed(&mut out);
    limits(&mut out);
    arithmetic(&mut out);
    energy(&mut out);
    ops(&mut out);
    rules(&mut out);
    out
}

fn mark(confidence: Confidence) -> &'static str {
    match confidence {
        Confidence::MeasuredTwice => "",
        Confidence::MeasuredOnce | Confidence::Stated | Confidence::Inferred => "°",
        Confidence::Conflict => "?",
        Confidence::Fitted => "~",
        Confidence::Interpolated => "=",
    }
}

fn cell<T: std::fmt::Display>(fact: &Fact<T>) -> String {
    format!("{}{}", fact.value, mark(fact.confidence))
}

fn row(out: &mut String, cells: impl IntoIterator<Item = String>) {
    let cells: Vec<String> = cells.into_iter().collect();
    writeln!(out, "| {} |", cells.join(" | ")).unwrap();
}

fn header(out: &mut String, names: &[&str]) {
    row(out, names.iter().map(|s| (*s).to_owned()));
    row(out, names.iter().map(|_| "---".to_owned()));
}

fn speed(out: &mut String) {
    out.push_str(
        "## Speed\n\nNumbers are those of one engine. The peak is 8192 operations a cycle: 16 cores of 256 multiplications and additions. \
         *Half rate* is the number of positions (rows of the other operand) at which a product with a constant reaches half of it. \
         *Floor* is one execution that computes nothing. *Staging* is what a host takes to rearrange arrays of several rows a \
         channel. *± time* is the relative half-width of the interval that holds a measured latency with 68 % probability, from \
         cross validation.\n\n",
    );
    header(
        out,
        &[
            "chip",
            "target",
            "engines",
            "clock GHz",
            "fp16 TFLOPS",
            "int8 ×",
            "half rate",
            "floor µs",
            "weights GB/s",
            "activations GB/s",
            "staging GB/s",
            "DRAM GB/s",
            "compile ms",
            "± time",
        ],
    );
    for chip in Chip::all() {
        let r = &chip.rates;
        let numbers = [
            &r.clock_ghz,
            &r.peak_tflops,
            &r.int8_speedup,
            &r.half_rate_positions,
            &r.floor_us,
            &r.weight_gb_s,
            &r.activation_gb_s,
            &r.staging_gb_s,
            &r.dram_gb_s,
        ];
        let start = [chip.name.clone(), cell(&chip.architecture), cell(&chip.engines)];
        let compile = format!("{} + {}/MB", cell(&r.compile_ms), cell(&r.compile_ms_per_mb));
        let interval = format!("{:.0} %", relative_half_width(chip) * 100.0);
        row(out, start.into_iter().chain(numbers.map(cell)).chain([compile, interval]));
    }
    out.push('\n');
}

/// The chips of a family share its limits.
fn of_family(family: Family) -> &'static Chip {
    Chip::all().iter().find(|c| c.family == family).unwrap()
}

/// A limit's name, and what a chip has of it.
type Limit = (&'static str, fn(&Chip) -> String);

fn limits(out: &mut String) {
    out.push_str("## Limits\n\nThe largest that work, by generation: H13 is M1, H18 is M6.\n\n");
    header(out, &["", "H13", "H14", "H15", "H16", "H17", "H18"]);
    let rows: &[Limit] = &[
        ("newest opset", |c| cell(&c.dialect.newest)),
        ("width, height", |c| format!("{}, {}", cell(&c.limits.max_width), cell(&c.limits.max_height))),
        ("channels", |c| cell(&c.limits.max_channels)),
        ("batch", |c| cell(&c.limits.max_batch)),
        ("contracted length of run-time values", |c| cell(&c.limits.max_inner)),
        ("that length is a multiple of", |c| cell(&c.limits.inner_multiple)),
        ("output channels of a constant", |c| cell(&c.limits.max_output_channels)),
        ("input channels of a constant", |c| cell(&c.limits.max_input_channels)),
        ("positions, at least", |c| cell(&c.limits.min_positions)),
        ("products in a chain", |c| cell(&c.limits.max_depth)),
        ("bytes of constants of a program", |c| cell(&c.limits.max_weight_bytes)),
        ("inputs and outputs", |c| cell(&c.limits.max_surfaces)),
        ("programs loaded at once", |c| cell(&c.limits.loaded_programs)),
        ("compilations of a process", |c| cell(&c.limits.compiles_per_process)),
        ("bytes of an operand that stays on the engine", |c| cell(&c.limits.resident_operand_bytes)),
        ("bytes of a constant that stays", |c| cell(&c.limits.resident_weight_bytes)),
    ];
    for (name, of) in rows {
        row(out, std::iter::once((*name).to_owned()).chain(FAMILIES.map(|f| of(of_family(f)))));
    }
    out.push('\n');
}

fn arithmetic(out: &mut String) {
    out.push_str(
        "## Arithmetic\n\n`arcane run --numerics chip` computes bit for bit what captured outputs show (`chip::arithmetic`): products \
         rounded to 2⁻¹⁶ and added in fixed point of 32 bits, overflow at 2¹⁵, results rounded half away from zero, activations \
         from tables of 33 points. A generation whose sources contradict each other is refused.\n\n",
    );
    header(out, &["", "rules", "activation tables", "evidence"]);
    for family in FAMILIES {
        let a = &of_family(family).arithmetic;
        let rules = match *a.rules {
            Rules::Known => "known",
            Rules::Unknown => "unknown",
        };
        let tables = match *a.tables {
            Tables::H16 => "H16",
            Tables::Unknown => "unknown",
        };
        let marked = |name: &str, confidence| format!("{name}{}", mark(confidence));
        row(
            out,
            [
                family.name().to_uppercase(),
                marked(rules, a.rules.confidence),
                marked(tables, a.tables.confidence),
                format!("{}; {}", a.rules.source, a.tables.source),
            ],
        );
    }
    out.push('\n');
}

fn number(table: &Table, key: &str) -> f64 {
    table[key]["value"].as_float().unwrap()
}

fn energy(out: &mut String) {
    out.push_str(
        "## Energy\n\nThe engine's rail draws *floor* while executions compute next to nothing and *full* at the peak, the rest of the \
         package *share* while the engine works, the processor cores *host* while they compute; all in W.\n\n",
    );
    header(out, &["chip", "floor", "full", "share", "host", "TFLOPS/W, rail", "TFLOPS/W, rail and share"]);
    for chip in Chip::all() {
        let e = &chip.energy;
        let efficiency = |watts: f64| format!("{:.2}", *chip.rates.peak_tflops / watts);
        let facts = [&e.rail_floor_w, &e.rail_full_w, &e.host_share_w, &e.host_w].map(cell);
        let ratios = [efficiency(*e.rail_full_w), efficiency(*e.rail_full_w + *e.host_share_w)];
        row(out, std::iter::once(chip.name.clone()).chain(facts).chain(ratios));
    }
    let others: Table = include_str!("../../data/others.toml").parse().unwrap();
    let of = |key: &str| {
        let table = others[key].as_table().unwrap();
        number(table, "tflops") / number(table, "watts")
    };
    let m4 = Chip::named("m4").unwrap();
    let (peak, full, share) = (*m4.rates.peak_tflops, *m4.energy.rail_full_w, *m4.energy.host_share_w);
    let [claimed, measured, package] = [of("claim"), peak / full, peak / (full + share)];
    let against = |key: &str| [claimed, measured, package].map(|x| format!("{:.1}", x / of(key)));
    let ([a, b, c], [d, e, f]) = (against("a100"), against("h100"));
    writeln!(
        out,
        "\n### \"80 times an A100\"\n\nThe claim divides {claimed:.1} TFLOPS/W, an M4's measured peak by an early reading of the engine's \
         rail, by {:.2}, which is what an A100 does *without* its matrix units. With them it does {:.2} (312 TFLOPS at 400 W), an H100 \
         {:.2}. So the engine is {a} times an A100, not 80; {b} times by the later reading of {full} W, {c} times with the rest of \
         the package, and {d}, {e} and {f} times an H100. That is peak against peak, and a rail against a board with its memory.\n",
        of("a100-fp32"),
        of("a100"),
        of("h100"),
    )
    .unwrap();
}

fn ops(out: &mut String) {
    out.push_str(
        "## Ops\n\nWhether a generation runs an op as it is (yes), only as other ops or by ways that MIL text has not (composed), or \
         not at all (no). H16 stands for every later one.\n\n",
    );
    header(out, &["ops", "H13", "H14", "H15", "H16", "instead"]);
    let support = |s| match s {
        Support::Native => "yes",
        Support::Composed => "composed",
        Support::None => "no",
    };
    let rows: Table = include_str!("../../data/ops.toml").parse().unwrap();
    for entry in rows["row"].as_array().unwrap() {
        let names: Vec<&str> = entry["ops"].as_array().unwrap().iter().map(|o| o.as_str().unwrap()).collect();
        let legality = legality(names[0]).unwrap();
        let on = FAMILIES[..4]
            .iter()
            .map(|&f| format!("{}{}", support(legality.on(f)), mark(legality.confidence)));
        let instead = legality.remedy.clone().unwrap_or_default();
        row(out, std::iter::once(names.join(" ")).chain(on).chain([instead]));
    }
    out.push('\n');
}

fn rules(out: &mut String) {
    out.push_str("## Constraints\n\nWhat `arcane check --chip` looks for.\n\n");
    header(out, &["id", "", "on", "what happens", "instead", "source"]);
    for c in constraints() {
        let severity = match c.severity {
            Severity::Note => "note",
            Severity::Wrong => "wrong results",
            Severity::Refused => "refused",
        };
        let (first, last) = c.families;
        let families = if first == last {
            first.name().to_uppercase()
        } else {
            format!("{} to {}", first.name().to_uppercase(), last.name().to_uppercase())
        };
        let on = if c.chips.is_empty() { families } else { c.chips.join(", ") };
        let cells = [c.id, severity, &on, c.message, c.remedy].map(str::to_owned);
        row(out, cells.into_iter().chain([format!("{}{}", c.source, mark(c.confidence))]));
    }
}
