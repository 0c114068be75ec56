use super::Chip;

#[test]
fn every_chip_loads_and_is_found_by_name() {
    assert_eq!(Chip::all().len(), Chip::names().count());
    for name in Chip::names() {
        assert_eq!(Chip::named(name).unwrap().name, name);
    }
}

#[test]
fn an_unknown_name_is_answered_with_the_names() {
    let error = Chip::named("m4-ultra").unwrap_err().to_string();
    assert!(error.starts_with("unknown chip `m4-ultra`, one of m1, "), "{error}");
}
