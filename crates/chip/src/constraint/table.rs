//! The table of constraints. Ids are those of the catalogue that the facts were collected in: T text, S shapes and surfaces,
//! O ops, P processes, W weights,
//! D types and values, C compile time.

use super::Check::{Function, Op, Port};
use super::Severity::{Note, Refused, Wrong};
use super::{Constraint, Subject, ops, program};
use crate::Confidence::{Conflict, MeasuredOnce, MeasuredTwice, Stated};
use crate::Family::{H13, H14, H15, H16, H18};

/// A row in which only what differs from row to row is written.
macro_rules! rows {
    ($($id:literal $severity:ident $first:ident..$last:ident $($chips:expr)?; $message:literal; $remedy:literal;
       $source:literal, $confidence:ident; $check:expr)*) => {
        &[$(Constraint {
            id: $id,
            severity: $severity,
            families: ($first, $last),
            chips: rows!(@chips $($chips)?),
            message: $message,
            remedy: $remedy,
            source: $source,
            confidence: $confidence,
            check: $check,
        }),*]
    };
    (@chips) => { &[] };
    (@chips $chips:expr) => { $chips };
}

pub(super) const CONSTRAINTS: &[Constraint] = rows! {
    // Ports.
    "D01" Refused H13..H18; "surfaces hold fp16"; "cast on the host, or keep the value inside";
        "the framework's type codes; public reports", Stated; Port(program::port_type)
    "S14" Refused H13..H14; "fp32 inputs and outputs do not compile"; "convert on the host";
        "maderix/ANE; also reported of an M1 Ultra", MeasuredTwice; Port(program::port_fp32)
    "S14" Note H15..H18; "fp32 inputs and outputs make a small call 37 % slower"; "convert on the host";
        "public report", MeasuredOnce; Port(program::port_fp32)
    "S08" Refused H13..H18; "an axis of a surface is too long"; "cut it into several arrays";
        "public reports", MeasuredTwice; Port(program::axis_length)
    "S01" Note H13..H18; "rows are padded"; "make the last axis a multiple of 64 bytes";
        "ironmill; libane", MeasuredTwice; Port(program::port_padding)

    // Functions.
    "T03" Refused H13..H14; "this dialect is not read"; "write opset ios17 or older, which is program(1.0)";
        "public reports; some of M1 differ", MeasuredTwice; Function(program::dialect)
    "T07" Refused H13..H18; "an output is optimised away"; "compute it from an input, or leave it out";
        "public reports", MeasuredTwice; Function(program::constant_output)
    "T11" Note H13..H13; "several arrays in one weight file, as they are printed, failed to load"; "write one file for each array";
        "public benchmarks on M1", MeasuredOnce; Function(program::weights_per_file)
    "S02" Note H13..H18; "the compiler numbers ports by name"; "bind by symbol, or sort the names";
        "M3 Ultra study; Orion; Espresso", MeasuredTwice; Function(program::symbols)
    "S13" Refused H13..H18; "the driver refuses the request"; "split the program, or pack inputs into one";
        "inspection of the framework", MeasuredOnce; Function(program::surfaces)
    "P10" Refused H13..H18; "the program is too deep for the compiler"; "split it";
        "maderix blog, part 4 (M4); ANE-Training (M3 Pro)", Conflict; Function(program::depth)
    "P10.ops" Refused H13..H18; "the program has too many ops for the plan builder"; "split it";
        "messages of e5rt", Stated; Function(program::operations)
    "W01" Refused H13..H18; "too many bytes of constants"; "split the program, or pass weights as inputs of matmul";
        "field guide (150 MB); ANEForge (2 GB)", Conflict; Function(program::weight_bytes)

    // Types and values.
    "D01" Refused H13..H18; "the engine has no such element type"; "keep integers on the host, and cast there";
        "ANEForge catalogue; public reports", MeasuredTwice; Op(&[Subject::Computation], ops::element_type)
    "D02" Refused H13..H18; "the engine computes in fp16"; "cast operands to fp16, or compute it on the host";
        "public reports", MeasuredTwice; Op(&[Subject::Computation], ops::fp32)
    "D03" Wrong H13..H18; "infinities and NaN are computed with as ordinary numbers, or lost";
        "write the largest fp16 number, 65504";
        "M6 microarchitecture study; ane-guide", MeasuredTwice;
        Op(&[Subject::Constant, Subject::Fill], ops::finite)
    "T17" Note H13..H18; "epsilon is subnormal in fp16 and may act as 0"; "take 6.1e-5, or add epsilon by an op of its own";
        "public reports", MeasuredTwice; Op(&[Subject::Epsilon], ops::epsilon)

    // Shapes.
    "S08" Refused H13..H18; "an axis is too long"; "cut it into several arrays";
        "public reports", MeasuredTwice; Op(&[Subject::Computation], ops::axes)
    "S08.rank" Refused H13..H18; "products take fewer dimensions"; "reshape the batch dimensions to one";
        "public reports", MeasuredTwice; Op(&[Subject::Matmul], ops::matmul_rank)
    "S08.inner" Refused H13..H18; "the contracted axis is too long"; "add up products of its parts";
        "public reports", MeasuredTwice; Op(&[Subject::Matmul], ops::inner_length)
    "S11" Wrong H13..H13; "the product is zero"; "pad the contracted axis with zeros";
        "one report on M1", MeasuredOnce; Op(&[Subject::Matmul], ops::inner_multiple)
    "S09" Refused H13..H18; "too many output channels"; "cut the weight into several, such as parts of a vocabulary";
        "reports on M1 to M4", Conflict; Op(&[Subject::Linear, Subject::Convolution], ops::output_channels)
    "S10" Refused H13..H18; "too many input channels"; "pass the weight as input of matmul";
        "report on M4 (32 000); others", Conflict; Op(&[Subject::Linear, Subject::Convolution], ops::input_channels)
    "S07" Wrong H16..H16; "a product with one position gives wrong numbers"; "pad the positions to 32";
        "report on M4", MeasuredOnce; Op(&[Subject::Linear, Subject::Convolution, Subject::Matmul], ops::positions)

    // Ops.
    "O01" Wrong H13..H18; "attn_mask is ignored"; "write matmul, scale, add of the mask, softmax and matmul";
        "maderix/ANE; Orion", MeasuredTwice; Op(&[Subject::Attention], ops::mask)
    "O20" Wrong H13..H18; "a fused attention of this size gives garbage"; "write matmul, scale, softmax and matmul";
        "public report", MeasuredOnce; Op(&[Subject::Attention], ops::attention_size)
    "O04" Refused H13..H18; "a weight that is no constant is refused, or ignored";
        "write matmul with transpose_y";
        "reports on M1, M1 Max and M3 Max", Conflict; Op(&[Subject::Linear, Subject::Convolution], ops::runtime_weight)
    "O03" Note H13..H18; "a bias of a conv did not compile from MIL text in some projects"; "add it by an op of its own if it does not";
        "Orion; ane-guide has constant biases fused", Conflict; Op(&[Subject::Convolution], ops::bias)
    "O18" Refused H13..H18; "the kernel is too large"; "cut the kernel into several, and add up their convolutions";
        "ANEForge; ane-guide", MeasuredTwice; Op(&[Subject::Convolution], ops::kernel_size)
    "O18" Refused H13..H18; "the convolution is dilated too far"; "split the input into phases (space_to_batch), or put zeros into the kernel";
        "ANEForge; ane-guide", MeasuredTwice; Op(&[Subject::Convolution], ops::dilation)
    "O18" Refused H13..H18; "the convolution is padded too far"; "pad the input by an op of its own";
        "ANEForge; ane-guide", MeasuredTwice; Op(&[Subject::Convolution], ops::padding)
    "O05" Refused H13..H18; "tile makes every later call of the process fail (M3 Max); it runs on an M2";
        "write concat, or let the reader broadcast";
        "reports on M3 Max and M2", Conflict; Op(&[Subject::Tile], ops::tile)
    "O06" Wrong H15..H15; "mul that broadcasts over the batch is wrong in larger programs";
        "give both operands the batch";
        "report on M3 Max", MeasuredOnce; Op(&[Subject::Mul], ops::batch_broadcast)
    "O07" Note H13..H18; "softmax of such a length is refused in some programs"; "pad with masked elements if it is";
        "Espresso; maderix/ANE (32 000 works)", Conflict; Op(&[Subject::Softmax], ops::softmax_axis)
    "O09" Wrong H13..H14; "slices of the last axis with a start overflow above 4094, and mix elements when joined";
        "slice another axis";
        "reports on M1 and M2 Pro", MeasuredTwice; Op(&[Subject::Split], ops::width_slice)
    "O10" Refused H15..H15 &["m3-ultra"]; "joining slices of the last axis does not compile";
        "rotate by a product with a constant permutation";
        "report on M3 Ultra", MeasuredOnce; Op(&[Subject::Concat], ops::width_rotation)
    "C01" Note H13..H18; "joining so many arrays takes the compiler seconds"; "join them in groups";
        "public report", MeasuredOnce; Op(&[Subject::Concat], ops::fan_in)
    "O11" Refused H13..H13; "the square of a reduction does not compile"; "write mul(x, x)";
        "ANEForge", MeasuredOnce; Op(&[Subject::Square], ops::square_of_reduction)
    "O11" Refused H13..H18; "a non-linear op after a square of this width does not compile"; "write mul(x, x)";
        "ANEForge", MeasuredOnce; Op(&[Subject::Nonlinear], ops::nonlinear_of_square)
    "O12" Refused H13..H18; "zero times a reduction crashes the compiler"; "subtract the value from itself";
        "ANEForge", MeasuredOnce; Op(&[Subject::Mul], ops::zero_times_reduction)
    "O13" Note H15..H16; "a root right after a reduction failed on M3 Max and M4 Max"; "write pow(x, -0.5) if it does";
        "reports on M3 Max and M4 Max; others work", Conflict; Op(&[Subject::Root], ops::root_of_reduction)
};
