//! Two orders of the rows of a projection to queries or keys.
//!
//! A rotary embedding turns pairs of numbers. Hugging Face pairs number i of a head with number i + E/2 (half-split), llama2.c
//! and llama.cpp pair neighbours (interleaved): their row 2i + j of a head is row j·E/2 + i of Hugging Face's.

/// Interleaved rows to half-split ones; `rows` is a multiple of twice the number of heads, and rows are of equal length.
pub(crate) fn half_split(bytes: &[u8], heads: usize, rows: usize) -> Vec<u8> {
    let half = rows / heads / 2;
    reorder(bytes, rows, |head, row| head * 2 * half + 2 * (row % half) + row / half, heads)
}

/// Half-split rows to interleaved ones.
pub(crate) fn interleaved(bytes: &[u8], heads: usize, rows: usize) -> Vec<u8> {
    let half = rows / heads / 2;
    reorder(bytes, rows, |head, row| head * 2 * half + row % 2 * half + row / 2, heads)
}

/// Takes, for each row of each head, the row that `from` names.
fn reorder(bytes: &[u8], rows: usize, from: impl Fn(usize, usize) -> usize, heads: usize) -> Vec<u8> {
    let row_bytes = bytes.len() / rows;
    let mut out = Vec::with_capacity(bytes.len());
    for head in 0..heads {
        for row in 0..rows / heads {
            let at = from(head, row) * row_bytes;
            out.extend_from_slice(&bytes[at..at + row_bytes]);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_become_halves_and_back() {
        // Two heads of six rows of two bytes.
        let interleaved_rows: Vec<u8> = (0..12).flat_map(|row| [row, 100 + row]).collect();
        let split = half_split(&interleaved_rows, 2, 12);
        let rows: Vec<u8> = split.iter().step_by(2).copied().collect();
        assert_eq!(rows, [0, 2, 4, 1, 3, 5, 6, 8, 10, 7, 9, 11]);
        assert_eq!(split[3], 102);
        assert_eq!(interleaved(&split, 2, 12), interleaved_rows);
    }
}
