//! A plan as files: `plan.json`, and the text and weight file of each program.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arcane_mil::{
    Alias, BlobFile, Builder, Function, NoWeights, PrintError, Program, Role, TensorType, print, read,
};
use arcane_tensor::DType;
use serde_json::{Value, json};

use super::{BufferKind, Call, FORMAT_VERSION, Place, Plan, PlanBuffer, PortBinding, Step, Work};

/// The file that says what the others are.
const INDEX: &str = "plan.json";

/// Why files are no plan.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanFilesError {
    /// A file is not there.
    #[error("{}: no such file in the plan", .0.display())]
    Missing(PathBuf),
    /// A file is not what was expected.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        what: String,
    },
}

impl Plan {
    /// The plan as files, by path: `plan.json`, and for each program `programs/NAME/model.mil` and, where it has large
    /// constants, `programs/NAME/weights/weight.bin`. The same plan gives the same bytes.
    ///
    /// # Errors
    /// [`PrintError`] if a function has no text.
    pub fn to_files(&self) -> Result<BTreeMap<PathBuf, Vec<u8>>, PrintError> {
        let mut files = BTreeMap::new();
        let mut programs = Vec::new();
        for (f, place) in self.program.functions.iter().zip(&self.places) {
            let emitted = print(&Program { functions: vec![f.clone()] })?;
            let (text, weights) = program_paths(f.name());
            files.insert(text, emitted.text.into_bytes());
            if !emitted.weights.is_empty() {
                files.insert(weights, emitted.weights);
            }
            let roles: Vec<&str> = f.parameters().iter().map(|p| role_name(p.role)).collect();
            let aliases: Vec<[usize; 2]> = f.aliases().iter().map(|a| [a.output, a.parameter]).collect();
            programs
                .push(json!({ "name": f.name(), "place": place.name(), "roles": roles, "aliases": aliases }));
        }
        let buffers: Vec<Value> = self.buffers.iter().map(buffer_json).collect();
        let calls: Vec<Value> = self.calls.iter().map(call_json).collect();
        let index = json!({
            "format_version": self.format_version,
            "hash": format!("{:016x}", self.hash()),
            "chip": self.chip,
            "programs": programs,
            "buffers": buffers,
            "calls": calls,
            "reasons": self.reasons,
        });
        files.insert(INDEX.into(), format!("{index:#}\n").into_bytes());
        Ok(files)
    }

    /// The plan of such files. Paths of values may come back otherwise where text cannot say them; all else is as it was.
    ///
    /// # Errors
    /// [`PlanFilesError`] with the file and what was expected.
    pub fn from_files(files: &BTreeMap<PathBuf, Vec<u8>>) -> Result<Self, PlanFilesError> {
        let path = Path::new(INDEX);
        let wrong = |what: String| PlanFilesError::File { path: path.into(), what };
        let bytes = files.get(path).ok_or_else(|| PlanFilesError::Missing(path.into()))?;
        let index: Value = serde_json::from_slice(bytes).map_err(|e| wrong(e.to_string()))?;
        let version = index["format_version"].as_u64();
        if version != Some(u64::from(FORMAT_VERSION)) {
            return Err(wrong(format!("format_version is {version:?}, {FORMAT_VERSION} was expected")));
        }
        let list = |key: &str| {
            index[key].as_array().ok_or_else(|| wrong(format!("`{key}` is no list, one was expected")))
        };
        let (mut functions, mut places) = (Vec::new(), Vec::new());
        for program in list("programs")? {
            functions.push(function(program, files, &wrong)?);
            places.push(place(&program["place"]).ok_or_else(|| wrong("`place` is host or engine".into()))?);
        }
        let parsed = |what: &str| wrong(format!("an entry of `{what}` is not as `to_files` writes it"));
        let buffers: Option<Vec<PlanBuffer>> = list("buffers")?.iter().map(buffer).collect();
        let calls: Option<Vec<Call>> = list("calls")?.iter().map(call).collect();
        let reasons: Option<Vec<String>> =
            list("reasons")?.iter().map(|r| Some(r.as_str()?.into())).collect();
        Ok(Self {
            format_version: FORMAT_VERSION,
            chip: index["chip"].as_str().map(Into::into),
            program: Program { functions },
            places,
            buffers: buffers.ok_or_else(|| parsed("buffers"))?,
            calls: calls.ok_or_else(|| parsed("calls"))?,
            reasons: reasons.ok_or_else(|| parsed("reasons"))?,
        })
    }
}

fn program_paths(name: &str) -> (PathBuf, PathBuf) {
    let folder = Path::new("programs").join(name);
    (folder.join("model.mil"), folder.join("weights").join("weight.bin"))
}

const ROLES: [(Role, &str); 8] = [
    (Role::Param, "param"),
    (Role::Constant, "constant"),
    (Role::Master, "master"),
    (Role::Moment, "moment"),
    (Role::Accumulator, "accumulator"),
    (Role::Batch, "batch"),
    (Role::Scalar, "scalar"),
    (Role::State, "state"),
];

fn role_name(role: Role) -> &'static str {
    ROLES.iter().find(|(r, _)| *r == role).map_or("batch", |(_, name)| name)
}

fn place(value: &Value) -> Option<Place> {
    [Place::Host, Place::Engine].into_iter().find(|p| Some(p.name()) == value.as_str())
}

/// A program's function, with the roles and aliases that text does not say.
fn function(
    program: &Value,
    files: &BTreeMap<PathBuf, Vec<u8>>,
    wrong: &dyn Fn(String) -> PlanFilesError,
) -> Result<Function, PlanFilesError> {
    let name = program["name"].as_str().ok_or_else(|| wrong("a program has no name".into()))?;
    let (text_path, weights_path) = program_paths(name);
    let bytes = files.get(&text_path).ok_or_else(|| PlanFilesError::Missing(text_path.clone()))?;
    let in_text = |what: String| PlanFilesError::File { path: text_path.clone(), what };
    let text = std::str::from_utf8(bytes).map_err(|e| in_text(e.to_string()))?;
    let parsed = match files.get(&weights_path) {
        Some(weights) => {
            let blobs =
                BlobFile::from_bytes(&weights_path, weights.clone()).map_err(|e| in_text(e.to_string()))?;
            read(text, &blobs)
        }
        None => read(text, &NoWeights),
    };
    let parsed = parsed.map_err(|e| in_text(e.to_string()))?;
    let f = parsed.function(name).ok_or_else(|| in_text(format!("no function `{name}`")))?;
    let roles: Option<Vec<Role>> = program["roles"].as_array().and_then(|roles| {
        roles.iter().map(|r| Some(ROLES.iter().find(|(_, n)| Some(*n) == r.as_str())?.0)).collect()
    });
    let roles = roles.filter(|r| r.len() == f.parameters().len());
    let roles =
        roles.ok_or_else(|| wrong(format!("program `{name}`: a role for each parameter was expected")))?;
    let aliases: Option<Vec<Alias>> = program["aliases"].as_array().and_then(|aliases| {
        let index = |v: &Value| usize::try_from(v.as_u64()?).ok();
        aliases.iter().map(|a| Some(Alias { output: index(&a[0])?, parameter: index(&a[1])? })).collect()
    });
    let in_range = |a: &Alias| a.output < f.outputs().len() && a.parameter < f.parameters().len();
    let aliases = aliases.filter(|list| list.iter().all(in_range));
    let aliases = aliases
        .ok_or_else(|| wrong(format!("program `{name}`: pairs of output and parameter were expected")))?;
    Ok(with_interface(f, &roles, &aliases))
}

fn with_interface(f: &Function, roles: &[Role], aliases: &[Alias]) -> Function {
    let mut rewriter = arcane_mil::Rewriter::new(f);
    for (p, &role) in f.parameters().iter().zip(roles) {
        let new = rewriter.builder.parameter(&p.name, f.ty(p.value).clone(), role);
        rewriter.set(p.value, new);
    }
    f.operations().iter().for_each(|o| rewriter.copy(o));
    let function = rewriter.finish();
    let mut builder = Builder::extend(&function);
    for o in function.outputs() {
        builder.output(&o.name, o.value);
    }
    for a in aliases {
        builder.alias(&function.outputs()[a.output].name, &function.parameters()[a.parameter].name);
    }
    builder.finish()
}

fn buffer_json(b: &PlanBuffer) -> Value {
    let of = match b.kind {
        BufferKind::Copy { of } => Some(of),
        _ => None,
    };
    json!({
        "name": b.name,
        "dtype": b.ty.dtype.name(),
        "shape": b.ty.shape,
        "kind": b.kind.name(),
        "of": of,
        "place": b.place.name(),
        "zeroed": b.zeroed,
    })
}

fn buffer(value: &Value) -> Option<PlanBuffer> {
    let number = |v: &Value| usize::try_from(v.as_u64()?).ok();
    let name = value["kind"].as_str()?;
    let kind = match value["of"].as_u64() {
        Some(of) => BufferKind::Copy { of: usize::try_from(of).ok()? },
        None => *[
            BufferKind::Weight,
            BufferKind::Moment,
            BufferKind::Accumulator,
            BufferKind::Batch,
            BufferKind::Scalar,
            BufferKind::State,
            BufferKind::Result,
            BufferKind::Prepared,
            BufferKind::Value,
            BufferKind::Staged,
        ]
        .iter()
        .find(|k| k.name() == name)?,
    };
    let shape: Option<Vec<usize>> = value["shape"].as_array()?.iter().map(number).collect();
    Some(PlanBuffer {
        name: value["name"].as_str()?.into(),
        ty: TensorType::new(dtype(&value["dtype"])?, &shape?),
        kind,
        place: place(&value["place"])?,
        zeroed: value["zeroed"].as_bool()?,
    })
}

fn dtype(value: &Value) -> Option<DType> {
    const DTYPES: [DType; 13] = [
        DType::Bool,
        DType::F16,
        DType::Bf16,
        DType::F32,
        DType::F64,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
    ];
    DTYPES.into_iter().find(|d| Some(d.name()) == value.as_str())
}

fn call_json(c: &Call) -> Value {
    let step = |s: &Step| match &s.work {
        Work::Run { place, function, ports } => {
            let ports: Vec<Value> = ports.iter().map(|p| json!([p.port, p.buffer])).collect();
            json!({ "run": function, "place": place.name(), "ports": ports, "after": s.after })
        }
        Work::Copy { from, to } => json!({ "copy": [from, to], "after": s.after }),
    };
    json!({ "name": c.name, "steps": c.steps.iter().map(step).collect::<Vec<_>>() })
}

fn call(value: &Value) -> Option<Call> {
    let number = |v: &Value| usize::try_from(v.as_u64()?).ok();
    let port = |p: &Value| Some(PortBinding { port: p[0].as_str()?.into(), buffer: number(&p[1])? });
    let step = |s: &Value| {
        let after: Option<Vec<usize>> = s["after"].as_array()?.iter().map(number).collect();
        let work = match s["run"].as_str() {
            Some(function) => {
                let ports: Option<Vec<PortBinding>> = s["ports"].as_array()?.iter().map(port).collect();
                Work::Run { place: place(&s["place"])?, function: function.into(), ports: ports? }
            }
            None => Work::Copy { from: number(&s["copy"][0])?, to: number(&s["copy"][1])? },
        };
        Some(Step { work, after: after? })
    };
    let steps: Option<Vec<Step>> = value["steps"].as_array()?.iter().map(step).collect();
    Some(Call { name: value["name"].as_str()?.into(), steps: steps? })
}
