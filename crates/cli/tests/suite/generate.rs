//! `arcane generate` and `arcane eval`.

use arcane_models::LlamaConfig;
use arcane_train::tokenizer::Tokenizer;
use serde_json::Value;

use crate::support::{Place, text};
use crate::tiny_model::{save_random, tiny};

const TEXT: &str = "the cat sat on the mat\nand the dog sat on the cat";
const DOCUMENTS: &str = "the cat sat\n<|endoftext|>\non the mat, the dog\n<|endoftext|>\nthe dog\n";

/// A place with a model of random weights that knows bytes and a few words.
pub(crate) fn place() -> Place {
    let place = Place::new();
    let tokenizer = Tokenizer::train_bpe(std::iter::once(TEXT), 270).unwrap();
    let config = LlamaConfig { vocab_size: 300, eos_token_id: vec![0], ..tiny() };
    save_random(&place.path("speaker"), &config);
    place.write("speaker/tokenizer.json", tokenizer.to_json().as_bytes());
    place.write("documents.txt", DOCUMENTS.as_bytes());
    place
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn a_text_is_continued_and_a_stop_string_ends_it() {
    let place = place();
    let generate = |more: &[&str]| {
        let arguments = ["generate", "speaker", "--prompt", "the cat", "--max-tokens", "12"];
        place.succeed(&[&arguments, more].concat())
    };
    let drawn = generate(&["--seed", "3"]);
    assert_eq!(generate(&["--seed", "3", "--threads", "1"]), drawn);
    assert_ne!(generate(&["--seed", "4"]), drawn);
    let greedy = generate(&["--temperature", "0"]);
    let all = json(&generate(&["--temperature", "0", "--json"]));
    assert_eq!(all["text"].as_str().unwrap(), greedy.strip_suffix('\n').unwrap());
    assert_eq!((&all["tokens"], &all["ending"]), (&12.into(), &"max_tokens".into()));
    let whole = all["text"].as_str().unwrap();
    let stop: String = whole.chars().skip(2).take(2).collect();
    let before = &whole[..whole.find(&stop).unwrap()];
    let stopped = json(&generate(&["--temperature", "0", "--json", "--stop", &stop]));
    assert_eq!((stopped["text"].as_str().unwrap(), &stopped["ending"]), (before, &"stop_string".into()));
}

#[test]
fn a_gguf_file_speaks_with_the_tokenizer_in_it() {
    let place = place();
    place.succeed(&["convert", "speaker", "a.gguf", "--to", "gguf"]);
    let generate = |model| {
        place.succeed(&["generate", model, "--prompt", "the cat", "--temperature", "0", "--max-tokens", "9"])
    };
    assert_eq!(generate("a.gguf"), generate("speaker"));
    place.succeed(&["convert", "a.gguf", "back", "--to", "hf"]);
    assert_eq!(generate("back"), generate("speaker"));
    // One without a tokenizer says why it has none.
    place.succeed(&["convert", "model", "bare.gguf", "--to", "gguf"]);
    let output = place.arcane(&["generate", "bare.gguf", "--prompt", "a"]);
    let expected = "the tokenizer in the file's metadata cannot be used: tokenizer.ggml.model is missing";
    assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
}

#[test]
fn every_token_of_a_document_but_the_first_is_predicted() {
    let place = place();
    let tokenizer = Tokenizer::open(&place.path("speaker/tokenizer.json")).unwrap();
    let predictions = |text: &str| tokenizer.encode(text, false).unwrap().len() as u64 - 1;
    let (first, second) = (predictions("the cat sat"), predictions("on the mat, the dog"));
    let eval = |more: &[&str]| {
        let arguments = ["eval", "speaker", "--data", "documents.txt"];
        json(&place.succeed(&[&arguments, more].concat()))
    };
    let two = eval(&["--limit", "2"]);
    assert_eq!(two["tokens"], first + second);
    let loss = two["loss"].as_f64().unwrap();
    assert!((loss - 300f64.ln()).abs() < 0.2, "{loss}");
    assert!((two["perplexity"].as_f64().unwrap() - loss.exp()).abs() < 1e-9);
    let windows = eval(&["--seq", "2"]);
    assert_eq!(windows["tokens"], first + second + predictions("the dog"));
    let ids: Vec<u8> = [5u16, 6, 7, 8].iter().flat_map(|id| id.to_le_bytes()).collect();
    place.write("ids.bin", &ids);
    assert_eq!(json(&place.succeed(&["eval", "speaker", "--data", "ids.bin"]))["tokens"], 3);
}

#[test]
fn documents_that_are_dropped_are_reported() {
    let place = place();
    let lines = b"{\"text\":\"the cat sat\"}\n{\"id\":1}\n{\"text\":\" \"}\n{\"id\":2}\n{\"text\":\"on the \xE9 mat\"}\n";
    place.write("mixed.jsonl", lines);
    let output = place.arcane(&["eval", "speaker", "--data", "mixed.jsonl"]);
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert_eq!(
        stderr,
        "mixed.jsonl: left out: 1 empty documents, 2 lines without `text`; 1 places that are not UTF-8 replaced by U+FFFD\n"
    );
    let result = json(&stdout);
    assert_eq!(result["documents"], 2);
    assert_eq!(result["dropped"], serde_json::json!({ "empty": 1, "without_text": 2, "not_utf8": 1 }));
    let output = place.arcane(&["eval", "speaker", "--data", "documents.txt"]);
    assert_eq!(text(&output.stderr), "");
    assert_eq!(json(&text(&output.stdout))["dropped"]["empty"], 0);
}

#[test]
fn wrong_requests_are_refused_in_one_line() {
    let place = place();
    place.write("lone.bin", &[5, 0]);
    place.write("unknown.bin", &[5, 0, 44, 1]);
    let long = "x ".repeat(40);
    for (arguments, expected) in [
        (vec!["generate", "speaker", "--prompt", &long], "the model's context of at most 32 was expected"),
        (vec!["generate", "speaker", "--prompt", "a", "--temperature", "-1"], "a number of at least 0"),
        (vec!["generate", "speaker", "--prompt", "a", "--top-p", "0"], "a number above 0 and up to 1"),
        (vec!["generate", "model", "--prompt", "a"], "the model has no tokenizer"),
        (
            vec!["generate", "model", "--prompt", "a", "--tokenizer", "speaker/tokenizer.json"],
            "the model's 64 at most were expected",
        ),
        (vec!["generate", "nowhere", "--prompt", "a"], "nowhere"),
        (vec!["eval", "speaker", "--data", "lone.bin"], "no document has two tokens"),
        (vec!["eval", "speaker", "--data", "unknown.bin"], "token 1 has id 300"),
        (vec!["eval", "speaker", "--data", "nothing.txt"], "nothing.txt"),
    ] {
        let output = place.arcane(&arguments);
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {stderr}");
        assert!(stderr.contains(expected) && stderr.lines().count() == 1, "{arguments:?}: {stderr}");
        assert!(output.stdout.is_empty());
    }
}

#[test]
#[ignore = "needs ../shared"]
fn a_small_pretrained_model_tells_its_story_at_its_published_loss() {
    let place = Place::new();
    let shared = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/data");
    let model = format!("{shared}/stories260k");
    let arguments = ["generate", &model, "--prompt", "Once upon a time", "--temperature", "0"];
    let story = place.succeed(&[&arguments[..], &["--max-tokens", "80"]].concat());
    assert!(
        story.starts_with(", there was a little girl named Lily.") && story.contains("a big, red ball"),
        "{story}"
    );
    let valid = format!("{shared}/tinystories/tinystories_valid.txt.gz");
    let result = json(&place.succeed(&["eval", &model, "--data", &valid, "--limit", "60"]));
    let loss = result["loss"].as_f64().unwrap();
    assert!((loss - 1.288).abs() < 0.002, "{loss}");
}
