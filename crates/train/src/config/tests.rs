use super::*;

const SMALL: &str = r#"
[model]
preset = "stories15m"

[data]
train = "tokens.bin"
seq = 256

[train]
steps = 100
batch = 4

[optimizer]
lr = 3e-4
"#;

fn parse(text: &str, overrides: &[&str]) -> Result<Config, ConfigError> {
    let overrides: Vec<String> = overrides.iter().map(ToString::to_string).collect();
    Config::parse(text, Path::new("/base/run.toml"), &overrides)
}

fn message(text: &str, overrides: &[&str]) -> String {
    parse(text, overrides).unwrap_err().to_string()
}

#[track_caller]
fn assert_message(overrides: &[&str], expected: &str) {
    assert_eq!(message(SMALL, overrides), expected);
}

#[test]
fn defaults_are_those_of_the_manual() {
    let config = parse(SMALL, &[]).unwrap();
    assert_eq!(config.model.source(), Some(ModelSource::Preset("stories15m")));
    assert_eq!(config.data.train, Path::new("/base/tokens.bin"));
    assert_eq!((config.data.order, config.data.id_dtype), (DataOrder::Sequential, IdDtype::Auto));
    assert_eq!((config.train.accumulate, config.train.seed, config.train.loss_scale), (1, 0, None));
    let OptimizerConfig { betas, eps, weight_decay, clip, .. } = config.optimizer;
    assert_eq!((betas, eps, weight_decay, clip), ([0.9, 0.95], 1e-8, 0.1, 1.0));
    assert_eq!(config.schedule, ScheduleConfig { name: ScheduleName::Constant, warmup: 0, min_lr: 0.0 });
    let RunConfig { save_every, keep, keep_best, eval_every, alarm, .. } = config.run;
    assert_eq!((save_every, keep, keep_best, eval_every, alarm), (0, 0, true, 0, 7.0));
}

#[test]
fn the_resolved_text_gives_the_same_configuration_from_anywhere() {
    let overrides = [
        "schedule.name=cosine",
        "schedule.warmup=10",
        "train.loss_scale=dynamic",
        "data.valid_fraction=0.1",
        "run.dir=/runs/a",
        "optimizer.lr=0.00012345678901234567",
    ];
    let config = parse(SMALL, &overrides).unwrap();
    let text = config.to_toml().unwrap();
    assert_eq!(Config::parse(&text, Path::new("/other/config.toml"), &[]).unwrap(), config);
    assert_eq!(config.train.loss_scale, Some(LossScaleConfig::Dynamic));
}

#[test]
fn overrides_replace_and_add_in_order() {
    let config = parse(
        SMALL,
        &[
            "train.accumulate=4",
            "train.steps = 7",
            "train.steps=8",
            "optimizer.betas=[0.8, 0.9]",
            "optimizer.lr=1",
        ],
    )
    .unwrap();
    assert_eq!((config.train.accumulate, config.train.steps), (4, 8));
    assert_eq!((config.optimizer.betas, config.optimizer.lr), ([0.8, 0.9], 1.0));
    // What is not TOML is a string, also with TOML's own characters in it.
    let config = parse(SMALL, &["data.train=/a b/c#\"d\".bin", "train.loss_scale=256"]).unwrap();
    assert_eq!(config.data.train, Path::new("/a b/c#\"d\".bin"));
    assert_eq!(config.train.loss_scale, Some(LossScaleConfig::Static(256.0)));
}

#[test]
fn relative_paths_of_the_file_and_of_overrides_have_different_bases() {
    let config = parse(SMALL, &["run.dir=runs/a"]).unwrap();
    assert_eq!(config.run.dir, Some(std::path::absolute("runs/a").unwrap()));
    assert_eq!(config.data.train, Path::new("/base/tokens.bin"));
}

#[test]
fn malformed_overrides_name_themselves() {
    assert_message(&["train.steps"], "--set train.steps: expected key=value, for example train.steps=100");
    for bad in ["=4", "a b=4", "a..b=1", "[train]=1", ".=2"] {
        let text = message(SMALL, &["train.seed=1", bad]);
        assert!(text.starts_with(&format!("--set {bad}: ")), "{text}");
    }
}

#[test]
fn errors_of_an_override_name_it() {
    assert_message(
        &["train.seed=1", "train.steps=0"],
        "--set train.steps=0: `train.steps`: expected at least 1, found 0",
    );
    assert_message(
        &["train.steps=x"],
        "--set train.steps=x: `train.steps`: invalid type: string \"x\", expected u64",
    );
    let unknown = message(SMALL, &["train.stepz=3"]);
    assert!(unknown.starts_with("--set train.stepz=3: "), "{unknown}");
    assert!(
        unknown.contains("unknown key `stepz`, expected one of `steps`, `batch`, `accumulate`"),
        "{unknown}"
    );
    let nested = message(SMALL, &["optimizer.betas=[0.5,\"x\"]"]);
    assert!(
        nested.starts_with("--set optimizer.betas=[0.5,\"x\"]: `optimizer.betas`: invalid type"),
        "{nested}"
    );
    let scalar = message(SMALL, &["train=4"]);
    assert_eq!(scalar, "--set train=4: `train`: invalid type: integer `4`, expected a table");
}

#[test]
fn errors_of_the_file_give_line_and_column() {
    let replaced = |from: &str, to: &str| message(&SMALL.replace(from, to), &[]);
    let text = replaced("steps = 100", "stepz = 100");
    assert!(text.starts_with("/base/run.toml:10:1: unknown key `stepz`, expected one of `steps`"), "{text}");
    let text = replaced("[optimizer]", "[optimiser]");
    assert!(text.starts_with("/base/run.toml:13:2: unknown key `optimiser`, expected one of"), "{text}");
    let text = replaced("steps = 100", "steps = -1");
    assert_eq!(text, "/base/run.toml:10:9: `train.steps`: invalid value: integer `-1`, expected u64");
    let text = replaced("lr = 3e-4", "lr = nan");
    assert_eq!(text, "/base/run.toml:14:6: `optimizer.lr`: expected a finite number above 0, found NaN");
    let text = replaced("steps = 100\n", "");
    assert_eq!(text, "/base/run.toml:9:1: `train`: missing key `steps`");
    let text = replaced("steps = 100", "ö = = 1");
    assert!(text.starts_with("/base/run.toml:10:"), "{text}");
    let text = replaced("seq = 256", "seq = \"é\" = 1");
    assert!(text.starts_with("/base/run.toml:7:11: "), "{text}");
    assert!(message("", &[]).contains("missing key `model`"));
}

#[test]
fn values_out_of_range_name_their_key() {
    for (given, key) in [
        ("train.batch=0", "train.batch"),
        ("train.accumulate=0", "train.accumulate"),
        ("train.batch=1000000000000", "train.batch"),
        ("train.loss_scale=0", "train.loss_scale"),
        ("train.loss_scale=\"static\"", "train.loss_scale"),
        ("data.seq=0", "data.seq"),
        ("data.vocab=0", "data.vocab"),
        ("data.valid_fraction=1", "data.valid_fraction"),
        ("data.train=", "data.train"),
        ("data.id_dtype=u8", "data.id_dtype"),
        ("optimizer.lr=0", "optimizer.lr"),
        ("optimizer.lr=inf", "optimizer.lr"),
        ("optimizer.betas=[0.9,1]", "optimizer.betas"),
        ("optimizer.betas=[0.9]", "optimizer.betas"),
        ("optimizer.eps=0", "optimizer.eps"),
        ("optimizer.clip=-1", "optimizer.clip"),
        ("optimizer.weight_decay=-0.1", "optimizer.weight_decay"),
        ("optimizer.name=sgd", "optimizer.name"),
        ("schedule.name=linear", "schedule.name"),
        ("schedule.min_lr=1", "schedule.min_lr"),
        ("run.keep=-1", "run.keep"),
        ("run.keep_best=1", "run.keep_best"),
        ("run.alarm=-1", "run.alarm"),
        ("run.alarm=inf", "run.alarm"),
    ] {
        let text = message(SMALL, &[given]);
        assert!(text.starts_with(&format!("--set {given}: `{key}`: ")), "{text}");
    }
    let both = message(SMALL, &["model.from=/a"]);
    assert!(
        both.contains("`model`: expected exactly one of the keys from, config, preset and program"),
        "{both}"
    );
    let shuffled = message(SMALL, &["data.order=shuffle", "data.first_sequence=3"]);
    assert!(shuffled.contains("`data.first_sequence`"), "{shuffled}");
    let twice = message(SMALL, &["data.valid=/a", "data.valid_fraction=0.5"]);
    assert!(twice.contains("either valid or valid_fraction"), "{twice}");
    assert_eq!(parse(SMALL, &["optimizer.clip=0"]).unwrap().optimizer.clip, 0.0);
}
