//! The contraction that MIL calls `einsum`.

use crate::ValueId;

/// `einsum` of the form `nchw,nwhu->nchu`, or without n: for each n and h, the matrix product over w. Dimensions n and h of the
/// operands broadcast.
#[derive(Clone, Debug, PartialEq)]
pub struct Einsum {
    /// Left and right.
    pub values: [ValueId; 2],
    /// The equation as it is written; any letters may stand for n, c, h, w and u.
    pub equation: String,
}

impl Einsum {
    /// The rank of the operands that an equation of the form is for.
    pub fn rank_of(equation: &str) -> Option<usize> {
        let plain: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
        let (operands, result) = plain.split_once("->")?;
        let (x, y) = operands.split_once(',')?;
        let [x, y, result] = [x, y, result].map(|s| s.chars().collect::<Vec<char>>());
        let batch = x.len().checked_sub(3).filter(|&n| n <= 1)?;
        if y.len() != x.len()
            || result.len() != x.len()
            || plain.chars().any(|c| !"->,".contains(c) && !c.is_alphabetic())
        {
            return None;
        }
        let ([c, h, w], u) = ([x[batch], x[batch + 1], x[batch + 2]], *y.last()?);
        let n = x[..batch].to_vec();
        let mut letters = [n.clone(), vec![c, h, w, u]].concat();
        letters.sort_unstable();
        let distinct = letters.windows(2).all(|pair| pair[0] != pair[1]);
        let fits = y == [n.clone(), vec![w, h, u]].concat() && result == [n, vec![c, h, u]].concat();
        (distinct && fits).then_some(x.len())
    }

    pub(super) fn for_each_operand(&mut self, f: &mut dyn FnMut(&mut ValueId)) {
        self.values.iter_mut().for_each(f);
    }
}

#[cfg(test)]
mod tests {
    use super::Einsum;

    #[test]
    fn an_equation_is_of_the_form_under_any_letters() {
        assert_eq!(Einsum::rank_of("nchw,nwhu->nchu"), Some(4));
        assert_eq!(Einsum::rank_of("chw,whr->chr"), Some(3));
        assert_eq!(Einsum::rank_of("bqhd, bdhk -> bqhk"), Some(4));
        for other in [
            "nchw,nwhu->nuhc",
            "nchw,nhwu->nchu",
            "ij,jk->ik",
            "nchw,nwhu",
            "ccc,ccc->ccc",
            "abcde,abcde->abcde",
            "",
        ] {
            assert_eq!(Einsum::rank_of(other), None, "{other}");
        }
    }
}
