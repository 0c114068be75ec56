//! A model of Llama's form as a MIL function, in fp32.

use std::collections::BTreeMap;

use arcane_mil::{BuildError, Builder, Function, Opset, Reduce, Role, TensorType, TypeError, ValueId};
use arcane_tensor::{DType, Tensor};

use crate::LlamaConfig;

const EMBEDDING: &str = "model.embed_tokens.weight";
const FINAL_NORM: &str = "model.norm.weight";
const HEAD: &str = "lm_head.weight";

type Built = Result<ValueId, BuildError>;

/// How a parameter starts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Init {
    /// All ones.
    Ones,
    /// Normally distributed around zero.
    Normal {
        /// Standard deviation.
        std: f64,
    },
}

/// One trainable tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct ParameterSpec {
    /// Its name in the checkpoint.
    pub name: String,
    /// Its shape; matrices are `[out, in]`.
    pub shape: Vec<usize>,
    /// Whether weight decay applies: to matrices, the embedding among them, not to norm gains.
    pub decay: bool,
    /// How it starts.
    pub init: Init,
}

/// The parameters of a model. The order is fixed: the embedding; for each layer its input norm, the projections q, k, v
/// and o, the norms of the heads of queries and keys where the model has them, the norm after attention, the projections gate,
/// up and down; the final norm; the output matrix unless it is the embedding.
///
/// Projections that write to the residual stream (o, down) start smaller by `1/√(2·layers)` (Radford et al. 2019).
pub fn parameters(config: &LlamaConfig) -> Vec<ParameterSpec> {
    let (d, f, vocab) = (config.hidden_size, config.intermediate_size, config.vocab_size);
    let query = config.num_attention_heads * config.head_dim;
    let key = config.num_key_value_heads * config.head_dim;
    let std = config.initializer_range;
    let residual_std = std / (2.0 * config.num_hidden_layers as f64).sqrt();
    let matrix = |name: String, shape: [usize; 2], std: f64| ParameterSpec {
        name,
        shape: shape.to_vec(),
        decay: true,
        init: Init::Normal { std },
    };
    let gain =
        |name: String, width| ParameterSpec { name, shape: vec![width], decay: false, init: Init::Ones };

    let mut all = vec![matrix(EMBEDDING.into(), [vocab, d], std)];
    for i in 0..config.num_hidden_layers {
        let name = |part: &str| format!("model.layers.{i}.{part}.weight");
        all.extend([
            gain(name("input_layernorm"), d),
            matrix(name("self_attn.q_proj"), [query, d], std),
            matrix(name("self_attn.k_proj"), [key, d], std),
            matrix(name("self_attn.v_proj"), [key, d], std),
            matrix(name("self_attn.o_proj"), [d, query], residual_std),
        ]);
        if config.model_type.has_head_norms() {
            all.extend(["q_norm", "k_norm"].map(|n| gain(name(&format!("self_attn.{n}")), config.head_dim)));
        }
        all.extend([
            gain(name("post_attention_layernorm"), d),
            matrix(name("mlp.gate_proj"), [f, d], std),
            matrix(name("mlp.up_proj"), [f, d], std),
            matrix(name("mlp.down_proj"), [d, f], residual_std),
        ]);
    }
    all.push(gain(FINAL_NORM.into(), d));
    if !config.tie_word_embeddings {
        all.push(matrix(HEAD.into(), [vocab, d], std));
    }
    all
}

/// The values that stand for a model's parameters in a function, by name in the checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ParameterMap(BTreeMap<String, ValueId>);

impl ParameterMap {
    /// The value of a parameter.
    ///
    /// # Panics
    /// If there is none of this name: a bug of the caller, who declares all that [`parameters`] lists.
    pub fn get(&self, name: &str) -> ValueId {
        *self.0.get(name).unwrap_or_else(|| panic!("parameter `{name}` was not declared"))
    }

    /// Names and values, sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, ValueId)> {
        self.0.iter().map(|(name, &v)| (name.as_str(), v))
    }
}

impl FromIterator<(String, ValueId)> for ParameterMap {
    fn from_iter<I: IntoIterator<Item = (String, ValueId)>>(values: I) -> Self {
        Self(values.into_iter().collect())
    }
}

/// Declares every parameter of the model, in the order of [`parameters`], as an fp32 parameter of the function with the
/// role [`Role::Param`] and the name that it has in the checkpoint.
pub fn declare_parameters(f: &mut Builder, config: &LlamaConfig) -> ParameterMap {
    let declare = |spec: ParameterSpec| {
        let v = f.parameter(&spec.name, TensorType::new(DType::F32, &spec.shape), Role::Param);
        (spec.name, v)
    };
    parameters(config).into_iter().map(declare).collect()
}

/// Cross entropy in nats as a weighted sum, and the sum of the weights, two scalars. Tokens and targets are `[B, S]` int32
/// ids below the vocabulary's size, weights `[B, S]` fp32: 1 for a target that counts, 0 for padding.
///
/// # Errors
/// If tokens, targets and weights have not these types and one shape.
///
/// # Panics
/// If a parameter is missing from `params`.
pub fn loss(
    f: &mut Builder,
    config: &LlamaConfig,
    params: &ParameterMap,
    tokens: ValueId,
    targets: ValueId,
    weights: ValueId,
) -> Result<(ValueId, ValueId), BuildError> {
    let h = hidden_states(f, config, params, tokens)?;
    let [batch, seq] = batch_and_sequence(f, tokens)?;
    let positions = batch.saturating_mul(seq);
    let head = head(config, params);
    let loss_sum = f.scope("loss", |f| {
        let h = f.reshape(h, &[positions, config.hidden_size])?;
        let targets = f.reshape(targets, &[positions, 1])?;
        let weights = f.reshape(weights, &[positions, 1])?;
        f.cross_entropy(h, head, targets, weights)
    })?;
    let weight_sum = f.reduce_all(Reduce::Sum, weights)?;
    Ok((f.named(loss_sum, "loss_sum"), f.named(weight_sum, "weight_sum")))
}

/// The residual stream after the last layer and the final norm, `[B, S, D]`, for tokens `[B, S]` int32 at positions
/// 0 to S−1. The logits are its product with the output matrix.
///
/// # Errors
/// If tokens have another type or rank.
///
/// # Panics
/// If a parameter is missing from `params`.
pub fn hidden_states(f: &mut Builder, config: &LlamaConfig, params: &ParameterMap, tokens: ValueId) -> Built {
    let [_, seq] = batch_and_sequence(f, tokens)?;
    let (cos, sin) = rotations(f, config, seq);
    let mask = causal_mask(f, seq);
    trunk(f, config, params, tokens, &mut Attended { cos, sin, mask, caches: None })
}

/// The residual stream after the last layer and the final norm, `[B, S, D]`, for tokens `[B, S]`.
fn trunk(
    f: &mut Builder,
    config: &LlamaConfig,
    params: &ParameterMap,
    tokens: ValueId,
    attended: &mut Attended,
) -> Built {
    let h = f.gather(params.get(EMBEDDING), tokens, 0)?;
    let mut h = f.named(h, "embed_tokens");
    for i in 0..config.num_hidden_layers {
        let weights = Layer { params, index: i };
        h = f.scope(&format!("layers.{i}"), |f| layer(f, config, weights, attended, h))?;
    }
    norm(f, config, "norm", h, params.get(FINAL_NORM))
}

/// A function `main` that takes the tokens of a text at positions 0 to S−1, `tokens` int32 `[1, S]`, and gives the logits of what
/// follows each, `logits` fp32 `[1, S, V]`; the weights are parameters as [`declare_parameters`] has them.
///
/// # Errors
/// If the sizes overflow: a bug of the caller, who checks them against the model's.
pub fn inference(config: &LlamaConfig, seq: usize) -> Result<Function, BuildError> {
    let mut f = Builder::new("main", Opset::Ios18);
    let params = declare_parameters(&mut f, config);
    let tokens = f.parameter("tokens", TensorType::new(DType::I32, &[1, seq]), Role::Batch);
    let h = hidden_states(&mut f, config, &params, tokens)?;
    let logits = project(&mut f, h, head(config, &params), "logits")?;
    f.output("logits", logits);
    Ok(f.finish())
}

/// The sizes of a [`step`] of generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StepShape {
    /// Tokens that a call takes, T.
    pub tokens: usize,
    /// Positions that the caches hold, C.
    pub context: usize,
}

/// A function that takes the next tokens of one text and gives the logits of what follows: `prefill` with many tokens a
/// call, `decode` with one. Calls of several such functions share caches of one context.
///
/// | port | type | |
/// |---|---|---|
/// | the weights | | as [`declare_parameters`] |
/// | `NAME.tokens` | int32 `[1, T]` | NAME is the function's |
/// | `NAME.positions` | int32 `[T]` | of the tokens in the text, from 0, below C |
/// | `NAME.mask` | bool `[T, C]` | whether a token (row) sees a position (column), its own among them |
/// | `NAME.last` | int32 `[1]` | index of the token whose logits are wanted |
/// | `cache.I.key`, `cache.I.value` | fp32 `[1, kv heads, C, E]` | state of layer I; rotated keys |
/// | `logits` | fp32 `[1, V]` | output |
/// | `cache.I.key.new`, `cache.I.value.new` | | outputs, aliased to what they replace |
///
/// # Errors
/// If the sizes overflow: a bug of the caller, who checks them against the model's.
pub fn step(name: &str, config: &LlamaConfig, shape: StepShape) -> Result<Function, BuildError> {
    let StepShape { tokens: n, context } = shape;
    let mut builder = Builder::new(name, Opset::Ios18);
    let f = &mut builder;
    let params = declare_parameters(f, config);
    let mut batch = |port: &str, dtype: DType, shape: &[usize]| {
        f.parameter(&format!("{name}.{port}"), TensorType::new(dtype, shape), Role::Batch)
    };
    let tokens = batch("tokens", DType::I32, &[1, n]);
    let positions = batch("positions", DType::I32, &[n]);
    let mask = batch("mask", DType::Bool, &[n, context]);
    let last = batch("last", DType::I32, &[1]);
    let (cos, sin) = rotations(f, config, context);
    let cos = f.gather(cos, positions, 0)?;
    let sin = f.gather(sin, positions, 0)?;
    let cache_type = TensorType::new(DType::F32, &[1, config.num_key_value_heads, context, config.head_dim]);
    let mut declare = |name: String| f.parameter(&name, cache_type.clone(), Role::State);
    let old = (0..config.num_hidden_layers)
        .map(|i| Cache { key: declare(cache_name(i, "key")), value: declare(cache_name(i, "value")) })
        .collect();
    let caches = Caches { positions, old, new: Vec::new() };
    let mut attended = Attended { cos, sin, mask, caches: Some(caches) };
    let h = trunk(f, config, &params, tokens, &mut attended)?;
    let h = f.gather(h, last, 1)?;
    let h = f.reshape(h, &[1, config.hidden_size])?;
    let logits = project(f, h, head(config, &params), "logits")?;
    f.output("logits", logits);
    for (i, new) in attended.caches.map_or(Vec::new(), |c| c.new).into_iter().enumerate() {
        for (part, value) in [("key", new.key), ("value", new.value)] {
            let old = cache_name(i, part);
            let new = format!("{old}.new");
            f.set_path(value, new.clone());
            f.output(&new, value);
            f.alias(&new, &old);
        }
    }
    Ok(builder.finish())
}

/// The name of a cache's port.
fn cache_name(layer: usize, part: &str) -> String {
    format!("cache.{layer}.{part}")
}

/// The weights of one layer.
#[derive(Clone, Copy)]
struct Layer<'a> {
    params: &'a ParameterMap,
    index: usize,
}

impl Layer<'_> {
    fn weight(&self, part: &str) -> ValueId {
        self.params.get(&format!("model.layers.{}.{part}.weight", self.index))
    }
}

/// The output matrix.
fn head(config: &LlamaConfig, params: &ParameterMap) -> ValueId {
    params.get(if config.tie_word_embeddings { EMBEDDING } else { HEAD })
}

/// What the attention of all layers shares.
struct Attended {
    /// `[S, 1, E/2]`
    cos: ValueId,
    /// `[S, 1, E/2]`
    sin: ValueId,
    /// Whether a query (row) sees a key (column).
    mask: ValueId,
    /// Where keys and values come from: caches, or the tokens at hand alone.
    caches: Option<Caches>,
}

/// Keys and values of a text so far.
struct Caches {
    /// Where the tokens at hand stand, int32 `[S]`.
    positions: ValueId,
    /// By layer.
    old: Vec<Cache>,
    /// With the tokens at hand; of the layers that have been built.
    new: Vec<Cache>,
}

/// One layer's, `[1, K, C, E]` each.
#[derive(Clone, Copy)]
struct Cache {
    key: ValueId,
    value: ValueId,
}

impl Caches {
    /// Puts the keys and values of the tokens at hand, `[1, K, S, E]`, into the next layer's cache.
    fn put(&mut self, f: &mut Builder, k: ValueId, v: ValueId) -> Result<Cache, BuildError> {
        let old = self.old[self.new.len()];
        let key = f.scatter_update(old.key, self.positions, k, 2)?;
        let value = f.scatter_update(old.value, self.positions, v, 2)?;
        let new = Cache { key, value };
        self.new.push(new);
        Ok(new)
    }
}

/// Tables of the rotary embedding for positions 0 to S−1, `[S, 1, E/2]`. The angle of frequency i at position p is
/// `p·theta^(−2i/E)`, computed in f64.
fn rotations(f: &mut Builder, config: &LlamaConfig, seq: usize) -> (ValueId, ValueId) {
    let half = config.head_dim / 2;
    let frequency = |i: usize| config.rope_theta.powf(-2.0 * i as f64 / config.head_dim as f64);
    let frequencies: Vec<f64> = (0..half).map(frequency).collect();
    let table = |of: fn(f64) -> f64| {
        let angles = (0..seq).flat_map(|p| frequencies.iter().map(move |w| p as f64 * w));
        let values: Vec<f32> = angles.map(|a| of(a) as f32).collect();
        Tensor::new(&[seq, 1, half], values).expect("a value for each position and frequency")
    };
    (f.constant("rope_cos", table(f64::cos)), f.constant("rope_sin", table(f64::sin)))
}

/// `[S, S]`: a query sees its own position and those before.
fn causal_mask(f: &mut Builder, seq: usize) -> ValueId {
    let sees: Vec<bool> = (0..seq * seq).map(|i| i % seq <= i / seq).collect();
    let causal = Tensor::new(&[seq, seq], sees).expect("a value for each query and key");
    f.constant("causal_mask", causal)
}

/// x `[B, S, D]` → `[B, S, D]`
fn layer(
    f: &mut Builder,
    config: &LlamaConfig,
    weights: Layer,
    attended: &mut Attended,
    x: ValueId,
) -> Built {
    let normed = norm(f, config, "input_layernorm", x, weights.weight("input_layernorm"))?;
    let mixed = f.scope("self_attn", |f| attention(f, config, weights, attended, normed))?;
    let x = f.add(x, mixed)?;
    let x = f.named(x, "attention_residual");
    let normed = norm(f, config, "post_attention_layernorm", x, weights.weight("post_attention_layernorm"))?;
    let fed = f.scope("mlp", |f| mlp(f, weights, normed))?;
    let x = f.add(x, fed)?;
    Ok(f.named(x, "mlp_residual"))
}

/// x `[B, S, D]` → `[B, S, D]`; heads are `[B, H, S, E]` inside.
fn attention(
    f: &mut Builder,
    config: &LlamaConfig,
    weights: Layer,
    attended: &mut Attended,
    x: ValueId,
) -> Built {
    let (heads, kv_heads, width) = (config.num_attention_heads, config.num_key_value_heads, config.head_dim);
    let [batch, seq] = [f.shape(x)[0], f.shape(x)[1]];

    let q = project(f, x, weights.weight("self_attn.q_proj"), "q_proj")?;
    let k = project(f, x, weights.weight("self_attn.k_proj"), "k_proj")?;
    let v = project(f, x, weights.weight("self_attn.v_proj"), "v_proj")?;

    let q = f.reshape(q, &[batch, seq, heads, width])?;
    let k = f.reshape(k, &[batch, seq, kv_heads, width])?;
    let v = f.reshape(v, &[batch, seq, kv_heads, width])?;

    let q = head_norm(f, config, weights, "q_norm", q)?;
    let k = head_norm(f, config, weights, "k_norm", k)?;

    let q = f.scope("q_rope", |f| f.rope(q, attended.cos, attended.sin))?;
    let k = f.scope("k_rope", |f| f.rope(k, attended.cos, attended.sin))?;

    let q = f.transpose(q, &[0, 2, 1, 3])?;
    let k = f.transpose(k, &[0, 2, 1, 3])?;
    let v = f.transpose(v, &[0, 2, 1, 3])?;

    let (k, v) = match &mut attended.caches {
        Some(caches) => {
            let cache = caches.put(f, k, v)?;
            (cache.key, cache.value)
        }
        None => (k, v),
    };
    let k = repeat_heads(f, k, heads / kv_heads)?;
    let v = repeat_heads(f, v, heads / kv_heads)?;

    let mixed = f.attention(q, k, v, Some(attended.mask))?;
    let mixed = f.transpose(mixed, &[0, 2, 1, 3])?;
    let mixed = f.reshape(mixed, &[batch, seq, heads * width])?;
    project(f, mixed, weights.weight("self_attn.o_proj"), "o_proj")
}

/// Queries or keys `[B, S, H, E]`, each head normalised where the model does that.
fn head_norm(f: &mut Builder, config: &LlamaConfig, weights: Layer, name: &str, x: ValueId) -> Built {
    if !config.model_type.has_head_norms() {
        return Ok(x);
    }
    norm(f, config, name, x, weights.weight(&format!("self_attn.{name}")))
}

/// Key or value heads `[B, K, S, E]` → `[B, K·group, S, E]`: query head h uses head h div group.
fn repeat_heads(f: &mut Builder, x: ValueId, group: usize) -> Built {
    if group == 1 {
        return Ok(x);
    }
    let shape = f.shape(x);
    let (batch, kv_heads, seq, width) = (shape[0], shape[1], shape[2], shape[3]);
    let x = f.reshape(x, &[batch, kv_heads, 1, seq, width])?;
    let x = f.tile(x, &[1, 1, group, 1, 1])?;
    f.reshape(x, &[batch, kv_heads * group, seq, width])
}

/// `SwiGLU` (Shazeer 2020): `down(silu(gate(x)) · up(x))`, `[B, S, D]` → `[B, S, D]`.
fn mlp(f: &mut Builder, weights: Layer, x: ValueId) -> Built {
    let gate = project(f, x, weights.weight("mlp.gate_proj"), "gate_proj")?;
    let up = project(f, x, weights.weight("mlp.up_proj"), "up_proj")?;
    let gate = f.silu(gate)?;
    let product = f.mul(gate, up)?;
    project(f, product, weights.weight("mlp.down_proj"), "down_proj")
}

fn norm(f: &mut Builder, config: &LlamaConfig, name: &str, x: ValueId, gain: ValueId) -> Built {
    let normed = f.scope(name, |f| f.rms_norm(x, gain, config.rms_norm_eps))?;
    Ok(f.named(normed, name))
}

fn project(f: &mut Builder, x: ValueId, weight: ValueId, name: &str) -> Built {
    let y = f.scope(name, |f| f.linear(x, weight, None))?;
    Ok(f.named(y, name))
}

fn batch_and_sequence(f: &Builder, tokens: ValueId) -> Result<[usize; 2], BuildError> {
    <[usize; 2]>::try_from(f.shape(tokens)).map_err(|_| BuildError {
        path: "tokens".into(),
        op: "gather",
        source: TypeError(format!("tokens are {}, tensor<int32, [B, S]> was expected", f.ty(tokens))),
    })
}
