//! Integers: exact, and wrapped.

use arcane_mil::{Binary, Compare, Op, Reduce, Unary};
use arcane_tensor::DType;

use super::{EXACT, SPREAD, Table};

/// Every integer type that functions may have inside.
const INTEGERS: [DType; 6] = [DType::I32, DType::I16, DType::U16, DType::I8, DType::U8, DType::U32];
/// Numbers of which sums and products are beyond 32 bits.
const LARGE: (f64, f64) = (-2e9, 2e9);

pub(super) fn integers(t: &mut Table) {
    elementwise(t);
    reductions(t);
    products(t);
    conversions(t);
    let int = DType::I32;
    t.add("int32 windows", EXACT, &[(int, &[4, 6], (-9e8, 9e8))], |f, v| {
        let moved = f.transpose(v[0], &[1, 0])?;
        let flat = f.reshape(moved, &[24])?;
        let pieces = f.split(v[0], 1, &[2, 4])?;
        Ok(vec![flat, f.concat(&[pieces[1], pieces[0]], 1)?])
    });
    for dtype in [DType::I8, DType::U16] {
        t.add("windows of small integers", EXACT, &[(dtype, &[2, 3, 4], (0.0, 100.0))], |f, v| {
            let moved = f.transpose(v[0], &[2, 0, 1])?;
            let flat = f.reshape(moved, &[24])?;
            let pieces = f.split(v[0], 2, &[1, 3])?;
            Ok(vec![flat, f.concat(&[pieces[1], pieces[0]], 2)?, f.tile(v[0], &[2, 1, 3])?])
        });
    }
    t.add("int32 gather", EXACT, &[(int, &[5, 3], (-9e8, 9e8)), (int, &[4], (0.0, 5.0))], |f, v| {
        Ok(vec![f.gather(v[0], v[1], 0)?])
    });
    t.add("int32 fill", EXACT, &[(int, &[3], LARGE)], |f, v| {
        let filled = f.fill(int, &[2, 3], -7.0);
        Ok(vec![f.add(filled, v[0])?, filled])
    });
}

fn elementwise(t: &mut Table) {
    for kind in [
        Unary::Abs,
        Unary::Sign,
        Unary::Square,
        Unary::Exp2,
        Unary::Threshold { alpha: 3.0 },
        Unary::Identity,
    ] {
        for range in [LARGE, (-5.0, 40.0)] {
            t.add(kind.name(), EXACT, &[(DType::I32, &[3, 700], range)], |f, v| {
                Ok(vec![f.unary(kind, v[0])?])
            });
        }
    }
    let binary = [
        Binary::Add,
        Binary::Sub,
        Binary::Mul,
        Binary::RealDiv,
        Binary::FloorDiv,
        Binary::Mod,
        Binary::Pow,
        Binary::Maximum,
        Binary::Minimum,
    ];
    let shapes: [(&[usize], &[usize]); 4] =
        [(&[], &[]), (&[5, 7], &[7]), (&[4, 1, 6], &[3, 1]), (&[2, 900], &[])];
    for kind in binary {
        for (x, y) in shapes {
            for range in [LARGE, (-6.0, 7.0)] {
                let parameters = [(DType::I32, x, range), (DType::I32, y, range)];
                let name = format!("int32 {}", kind.name());
                t.add(&name, EXACT, &parameters, |f, v| Ok(vec![f.binary(kind, v[0], v[1])?]));
            }
        }
    }
    for kind in [
        Compare::Equal,
        Compare::NotEqual,
        Compare::Less,
        Compare::LessEqual,
        Compare::Greater,
        Compare::GreaterEqual,
    ] {
        let parameters = [(DType::I32, &[6, 9][..], SPREAD), (DType::I32, &[9][..], SPREAD)];
        t.add(kind.name(), EXACT, &parameters, |f, v| Ok(vec![f.compare(kind, v[0], v[1])?]));
    }
    for dtype in [DType::I32, DType::I8] {
        let parameters = [
            (DType::Bool, &[4, 1][..], SPREAD),
            (dtype, &[4, 6][..], (0.0, 99.0)),
            (dtype, &[6][..], (0.0, 99.0)),
        ];
        t.add("select", EXACT, &parameters, |f, v| Ok(vec![f.select(v[0], v[1], v[2])?]));
    }
}

fn reductions(t: &mut Table) {
    let kinds = [
        Reduce::Sum,
        Reduce::Mean,
        Reduce::Max,
        Reduce::Min,
        Reduce::Prod,
        Reduce::SumSquare,
        Reduce::L1Norm,
        Reduce::L2Norm,
        Reduce::LogSum,
        Reduce::LogSumExp,
    ];
    for kind in kinds {
        for axes in [&[0][..], &[1], &[0, 2], &[0, 1, 2], &[]] {
            // Logarithms of a negative sum have no integer.
            let range = if kind == Reduce::LogSum { (1.0, 9e6) } else { LARGE };
            let name = format!("int32 {} {axes:?}", kind.name());
            t.add(&name, EXACT, &[(DType::I32, &[3, 4, 5], range)], |f, v| {
                Ok(vec![f.reduce(kind, v[0], axes, true)?])
            });
        }
    }
}

fn products(t: &mut Table) {
    for (tx, ty) in [(false, false), (true, false), (false, true), (true, true)] {
        let x = if tx { [2, 5, 3] } else { [2, 3, 5] };
        let y = if ty { [4, 5] } else { [5, 4] };
        t.add("int32 matmul", EXACT, &[(DType::I32, &x, LARGE), (DType::I32, &y, LARGE)], |f, v| {
            Ok(vec![f.matmul(v[0], v[1], tx, ty)?])
        });
    }
    let parameters = [
        (DType::I32, &[2, 3, 6][..], LARGE),
        (DType::I32, &[9, 6][..], LARGE),
        (DType::I32, &[9][..], LARGE),
    ];
    t.add("int32 linear", EXACT, &parameters, |f, v| {
        Ok(vec![f.linear(v[0], v[1], Some(v[2]))?, f.linear(v[0], v[1], None)?])
    });
    let parameters = [(DType::I32, &[2, 3, 4, 5][..], LARGE), (DType::I32, &[2, 5, 4, 6][..], LARGE)];
    t.add("int32 einsum", EXACT, &parameters, |f, v| {
        let values = [v[0], v[1]];
        let equation = "nchw,nwhu->nchu".into();
        Ok(vec![f.push_one(Op::Einsum(arcane_mil::Einsum { values, equation }))?])
    });
}

fn conversions(t: &mut Table) {
    let floats = [DType::F32, DType::F16, DType::Bool];
    for from in INTEGERS.into_iter().chain(floats) {
        for to in INTEGERS.into_iter().chain(floats) {
            t.add(&format!("cast to {to}"), EXACT, &[(from, &[5, 31], (-70_000.0, 70_000.0))], |f, v| {
                Ok(vec![f.cast(v[0], to)])
            });
        }
    }
}
