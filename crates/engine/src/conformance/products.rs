//! Matrix products: shapes at the borders of blocks, windows and batches, and what follows a product.

use arcane_mil::{Convolution, Op, Reduce, Unary};
use arcane_tensor::DType;

use super::{Allowed, SPREAD, Table, rounding};

/// Products alone.
pub(super) fn products(t: &mut Table, dtype: DType) {
    let allowed = match dtype {
        DType::F16 => rounding(dtype),
        _ => Allowed { absolute: 1e-5, relative: 1e-5 },
    };
    let batches: [(&[usize], &[usize]); 5] =
        [(&[], &[]), (&[2, 3], &[2, 3]), (&[4], &[1]), (&[2, 1], &[3]), (&[1], &[5])];
    for (bx, by) in batches {
        for (m, n, k) in [(3, 5, 4), (65, 33, 70), (1, 9, 1)] {
            for (tx, ty) in [(false, false), (true, false), (false, true), (true, true)] {
                let x = [bx, &if tx { [k, m] } else { [m, k] }].concat();
                let y = [by, &if ty { [n, k] } else { [k, n] }].concat();
                let name = format!("matmul {tx} {ty}");
                t.add(&name, allowed, &[(dtype, &x, SPREAD), (dtype, &y, SPREAD)], |f, v| {
                    Ok(vec![f.matmul(v[0], v[1], tx, ty)?])
                });
            }
        }
    }
    for (m, n, k) in BLOCK_BORDERS {
        for (tx, ty) in [(false, false), (true, false), (false, true), (true, true)] {
            let x = if tx { [k, m] } else { [m, k] };
            let y = if ty { [n, k] } else { [k, n] };
            let name = format!("matmul {m} {n} {k} {tx} {ty}");
            t.add(&name, allowed, &[(dtype, &x, SPREAD), (dtype, &y, SPREAD)], |f, v| {
                Ok(vec![f.matmul(v[0], v[1], tx, ty)?])
            });
        }
    }
    // Right operands that are packed in two pieces: of columns, and of contracted elements.
    for (m, n, k) in [(5, 1000, 1100), (5, 600, 2500)] {
        let parameters = [(dtype, &[m, k][..], SPREAD), (dtype, &[n, k], SPREAD)];
        t.add("matmul in pieces", allowed, &parameters, |f, v| {
            let product = f.matmul(v[0], v[1], false, true)?;
            Ok(vec![product, f.abs(product)?])
        });
        t.add("matmul in pieces, alone", allowed, &parameters, |f, v| {
            Ok(vec![f.matmul(v[0], v[1], false, true)?])
        });
    }
    t.add(
        "matmul of broadcast windows",
        allowed,
        &[(dtype, &[7, 1], SPREAD), (dtype, &[1, 21], SPREAD)],
        |f, v| {
            let x = f.tile(v[0], &[1, 5])?;
            let y = f.tile(v[1], &[5, 1])?;
            Ok(vec![f.matmul(x, y, false, false)?])
        },
    );
    for shape in [&[6][..], &[4, 6], &[2, 3, 6], &[2, 1, 3, 6]] {
        let parameters = [(dtype, shape, SPREAD), (dtype, &[9, 6][..], SPREAD), (dtype, &[9][..], SPREAD)];
        t.add("linear", allowed, &parameters, |f, v| {
            let with_bias = f.linear(v[0], v[1], Some(v[2]))?;
            Ok(vec![with_bias, f.linear(v[0], v[1], None)?])
        });
    }
    for shape in [&[1, 6, 1, 40][..], &[2, 6, 9], &[2, 6, 1, 1, 33], &[2, 6, 3, 5]] {
        let ones = vec![1; shape.len() - 2];
        let weight = [&[9, 6], &ones[..]].concat();
        let parameters = [(dtype, shape, SPREAD), (dtype, &weight[..], SPREAD), (dtype, &[9][..], SPREAD)];
        t.add("conv, each position on its own", allowed, &parameters, |f, v| {
            let conv = |bias| Op::Convolution(Convolution::pointwise(v[0], v[1], bias, shape.len()));
            let with_bias = f.push_one(conv(Some(v[2])))?;
            let gate = f.unary(Unary::Silu, with_bias)?;
            let plain = f.push_one(conv(None))?;
            Ok(vec![with_bias, f.mul(gate, plain)?])
        });
    }
    t.add(
        "products of windows",
        allowed,
        &[(dtype, &[3, 8, 10], SPREAD), (dtype, &[10, 3, 4], SPREAD)],
        |f, v| {
            let y = f.transpose(v[1], &[1, 0, 2])?;
            let halves = f.split(v[0], 1, &[3, 5])?;
            Ok(vec![f.matmul(halves[1], y, false, false)?, f.matmul(halves[0], y, false, false)?])
        },
    );
}

/// `m, n, k` that are, exceed or miss the lengths at which products are cut: 4, 6, 48 rows; 16, 64, 1024 columns; 320
/// contracted elements; and products of few rows.
const BLOCK_BORDERS: [(usize, usize, usize); 12] = [
    (300, 410, 170),
    (6, 16, 320),
    (7, 17, 321),
    (48, 64, 8),
    (49, 65, 9),
    (5, 1025, 3),
    (97, 127, 643),
    (1, 70, 37),
    (2, 1030, 65),
    (3, 33, 700),
    (4, 16, 32),
    (60, 1, 1),
];

/// Products and what an engine may do with a tile of them while it is at hand.
pub(super) fn followed(t: &mut Table, dtype: DType) {
    let allowed = rounding(dtype);
    let small = (-0.3, 0.3);
    for (rows, inner, width) in [(&[5][..], 12, 40), (&[2, 53], 30, 17), (&[70], 40, 1100), (&[2], 24, 90)] {
        let x = [rows, &[inner]].concat();
        let result = [rows, &[width]].concat();
        let parameters = [
            (dtype, &x[..], small),
            (dtype, &[width, inner], small),
            (dtype, &[width], SPREAD),
            (dtype, &result[..], SPREAD),
        ];
        t.add("a bias, a residual, a gate and casts after a product", allowed, &parameters, |f, v| {
            let biased = f.linear(v[0], v[1], Some(v[2]))?;
            let plain = f.linear(v[0], v[1], None)?;
            let gate = f.unary(Unary::Silu, biased)?;
            let gated = f.mul(gate, plain)?;
            let residual = f.add(v[3], gated)?;
            let wide = f.cast(residual, DType::F32);
            let scale = f.scalar(DType::F32, 0.5);
            let scaled = f.mul(wide, scale)?;
            Ok(vec![f.cast(scaled, dtype), residual, plain])
        });
        t.add("a product read by a row and by a reduction", allowed, &parameters, |f, v| {
            let product = f.linear(v[0], v[1], None)?;
            let shifted = f.sub(product, v[2])?;
            let axis = f.shape(shifted).len() - 1;
            let mean = f.reduce(Reduce::Mean, shifted, &[axis], true)?;
            Ok(vec![f.sub(shifted, mean)?])
        });
    }
    let (q, k, mask) = ([2, 3, 20, 8], [2, 3, 33, 8], [20, 33]);
    let parameters = [(dtype, &q[..], small), (dtype, &k[..], small), (DType::Bool, &mask[..], SPREAD)];
    t.add("masked scores", allowed, &parameters, |f, v| {
        let scores = f.matmul(v[0], v[1], false, true)?;
        let hidden = f.scalar(dtype, -100.0);
        let masked = f.select(v[2], scores, hidden)?;
        let absolute = f.abs(v[0])?;
        let other = f.matmul(absolute, v[1], false, true)?;
        Ok(vec![f.add(masked, other)?])
    });
    t.add(
        "products in place of a concat",
        allowed,
        &[(dtype, &[9, 20], small), (dtype, &[20, 20], small)],
        |f, v| {
            let a = f.matmul(v[0], v[1], false, false)?;
            let b = f.matmul(v[0], v[1], false, true)?;
            let c = f.abs(b)?;
            Ok(vec![f.concat(&[a, c], 1)?, f.concat(&[v[0], a], 0)?])
        },
    );
}
