use std::collections::HashSet;

use super::{Support, legality, table};
use crate::Family;

#[test]
fn every_op_stands_once_and_what_is_not_native_has_a_remedy() {
    let mut seen = HashSet::new();
    for row in table() {
        for op in &row.ops {
            assert!(seen.insert(op), "{op} stands twice");
        }
        let native = [Family::H13, Family::H14, Family::H15, Family::H16]
            .iter()
            .all(|&f| row.on(f) == Support::Native);
        assert_eq!(row.remedy.is_none(), native, "{:?}", row.ops);
        assert!(!row.source.is_empty() && !row.id.is_empty(), "{:?}", row.ops);
    }
}

#[test]
fn later_families_run_no_less() {
    let families = [Family::H13, Family::H14, Family::H15, Family::H16, Family::H17, Family::H18];
    for row in table() {
        let rank = |f: Family| match row.on(f) {
            Support::Native => 2,
            Support::Composed => 1,
            Support::None => 0,
        };
        assert!(families.is_sorted_by_key(|&f| rank(f)), "{:?}", row.ops);
    }
    assert_eq!(legality("sin").unwrap().on(Family::H14), Support::None);
    assert_eq!(legality("sin").unwrap().on(Family::H18), Support::Native);
    assert_eq!(legality("no_such_op"), None);
}
