//! Generation and evaluation of a model in a folder.

use arcane_compile::Precision;
use arcane_train::evaluation::evaluate;
use arcane_train::generation::{Ending, Generator, Request, Wish};
use arcane_train::model::Model;
use arcane_train::sampling::Sampling;
use arcane_train::trainer::Environment;
use arcane_train::{InferenceError, SetupError};

use crate::support::{Bench, environment};

/// As many tokens as the model's context has.
fn text(n: usize) -> Vec<u32> {
    (0..n as u32).map(|i| (i * i * 7 + 3) % 61).collect()
}

const GREEDY: Sampling =
    Sampling { temperature: 0.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed: 0 };

#[test]
fn prefill_decode_and_evaluation_agree() {
    let bench = Bench::new();
    let model = Model::from_path(&bench.path("model")).unwrap();
    let ids = text(32);
    for (precision, tolerance) in [(Precision::Fp32, 1e-4), (Precision::Fp16, 2e-2)] {
        let environment = environment(2, precision);
        let mut generator = Generator::new(&model, 32, 20, &environment).unwrap();
        let mut losses = Vec::new();
        let mut by_ones = Vec::new();
        for (i, &token) in ids.iter().enumerate() {
            by_ones = generator.feed(&[token]).unwrap().to_vec();
            let Some(&next) = ids.get(i + 1) else { break };
            let total: f64 = by_ones.iter().map(|&l| f64::from(l).exp()).sum();
            losses.push(total.ln() - f64::from(by_ones[next as usize]));
        }
        // 16 at once, 16 padded from 15; and again after other steps.
        for cuts in [vec![31], vec![16, 31], vec![1, 18, 31]] {
            let mut logits = || {
                generator.clear();
                let mut start = 0;
                for &end in &cuts {
                    generator.feed(&ids[start..end]).unwrap();
                    start = end;
                }
                assert_eq!(generator.position(), 31);
                generator.feed(&ids[31..]).unwrap().to_vec()
            };
            let last = logits();
            assert_eq!(logits(), last, "a text does not see the one before");
            for (a, b) in last.iter().zip(&by_ones) {
                assert!((a - b).abs() < tolerance, "{precision:?}: {a} against {b}");
            }
        }
        for seq in [32, 8] {
            let documents = [ids.clone(), vec![5], vec![]];
            let result = evaluate(&model, &documents, seq, &environment, &mut |_| {}).unwrap().unwrap();
            assert_eq!(result.tokens, 31);
            let expected = losses.iter().sum::<f64>() / 31.0;
            if seq == 32 {
                assert!((result.loss() - expected).abs() < f64::from(tolerance), "{}", result.loss());
            } else {
                assert_ne!(result.loss(), expected, "a window sees nothing before it");
            }
        }
    }
}

#[test]
fn a_short_prompt_is_padded_and_goes_on_as_if_it_had_come_token_by_token() {
    let bench = Bench::new();
    let model = Model::from_path(&bench.path("model")).unwrap();
    let ids = text(32);
    for prompt in [2, 7, 16] {
        let mut generator = Generator::new(&model, 32, prompt, &environment(2, Precision::Fp32)).unwrap();
        let mut logits = |first: usize| {
            generator.clear();
            let mut all = vec![generator.feed(&ids[..first]).unwrap().to_vec()];
            all.extend(ids[first..20].iter().map(|&token| generator.feed(&[token]).unwrap().to_vec()));
            all
        };
        let (by_ones, padded) = (logits(1), logits(prompt));
        for (a, b) in by_ones[prompt - 1..].iter().flatten().zip(padded.iter().flatten()) {
            assert!((a - b).abs() < 1e-4, "{prompt}: {a} against {b}");
        }
    }
}

#[test]
fn generation_ends_for_the_reason_that_it_gives() {
    let bench = Bench::new();
    let model = Model::from_path(&bench.path("model")).unwrap();
    let mut generator = Generator::new(&model, 100, 5, &environment(1, Precision::Fp32)).unwrap();
    assert_eq!(generator.context(), 32);
    let prompt = text(5);
    let mut run = |max_tokens, end_tokens: &[u32], most: usize| {
        generator.clear();
        let mut tokens = Vec::new();
        let request = Request { prompt: &prompt, max_tokens, sampling: GREEDY, end_tokens };
        let ending = generator.generate(&request, &mut |token| {
            tokens.push(token);
            Ok(if tokens.len() == most { Wish::Stop(Ending::Interrupted) } else { Wish::More })
        });
        (ending.unwrap(), tokens)
    };
    let (ending, all) = run(1000, &[], 1000);
    // The last token needs no place of its own.
    assert_eq!((ending, all.len()), (Ending::ContextFull, 28));
    let (ending, some) = run(7, &[], 1000);
    assert_eq!((ending, some.as_slice()), (Ending::MaxTokens, &all[..7]));
    assert_eq!(run(0, &[], 1000), (Ending::MaxTokens, vec![]));
    assert_eq!(run(7, &[], 3), (Ending::Interrupted, all[..3].to_vec()));
    let end = all[4];
    let before = all.iter().position(|&t| t == end).unwrap();
    assert_eq!(run(1000, &[63, end], 1000), (Ending::EndOfText, all[..before].to_vec()));
}

#[test]
fn what_is_generated_does_not_depend_on_the_number_of_threads() {
    let bench = Bench::new();
    let model = Model::from_path(&bench.path("model")).unwrap();
    let generate = |threads, seed| {
        let mut generator = Generator::new(&model, 32, 12, &environment(threads, Precision::Fp32)).unwrap();
        let sampling = Sampling { temperature: 1.5, seed, ..GREEDY };
        let prompt = text(12);
        let request = Request { prompt: &prompt, max_tokens: 20, sampling, end_tokens: &[] };
        let mut tokens = Vec::new();
        let take = &mut |token| {
            tokens.push(token);
            Ok(Wish::More)
        };
        generator.generate(&request, take).unwrap();
        tokens
    };
    assert_eq!(generate(1, 7), generate(2, 7));
    assert_ne!(generate(1, 7), generate(1, 8));
}

#[test]
fn tokens_that_the_model_does_not_know_are_refused() {
    let bench = Bench::new();
    let model = Model::from_path(&bench.path("model")).unwrap();
    let environment = environment(1, Precision::Fp32);
    let mut generator = Generator::new(&model, 10, 1, &environment).unwrap();
    assert_eq!(generator.feed(&[64]), Err(InferenceError::Vocab { token: 64, vocab: 64 }));
    let error = evaluate(&model, &[vec![1, 64]], 8, &environment, &mut |_| {}).unwrap_err();
    assert!(error.is_input() && error.to_string().contains("token 64"), "{error}");
    let error = evaluate(&model, &[vec![1], vec![]], 8, &environment, &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("no document has two tokens"), "{error}");
}

#[test]
fn a_context_that_does_not_fit_the_memory_is_refused_before_it_is_allocated() {
    let bench = Bench::new();
    let model = Model::from_path(&bench.path("model")).unwrap();
    let little = Environment { available_bytes: Some(1000), ..environment(1, Precision::Fp32) };
    let error = Generator::new(&model, 32, 12, &little).err().unwrap();
    assert!(matches!(error, SetupError::TooLarge { available: 1000, .. }), "{error}");
}
