use serde_json::json;

use super::*;

const ODD_TEXTS: [&str; 9] = [
    "",
    " ",
    "Hello, world!",
    "  two  spaces ",
    "line one\n\nline two\n",
    "naïve café — “quoted” 😀👩\u{200d}🚀",
    "don't stop: 12345.67\tこんにちは",
    "\u{2581}under",
    "a<s>b",
];

const RHYME: &str = "How much wood would a woodchuck chuck if a woodchuck could chuck wood? \
                     He would chuck, he would, as much as he could, and chuck as much wood.";

fn trained(vocab: usize) -> Tokenizer {
    Tokenizer::train_bpe([RHYME, "a second text", RHYME].into_iter(), vocab).unwrap()
}

/// A `tokenizer.bin` of the bytes and these pieces, the best first.
fn llama2c_file(pieces: &[&str]) -> Vec<u8> {
    let bytes = (0..=255).map(|byte| format!("<0x{byte:02X}>"));
    let start = ["<unk>", "\n<s>\n", "\n</s>\n"].map(String::from);
    let mut file = 27u32.to_le_bytes().to_vec();
    let pieces = pieces.iter().enumerate().map(|(rank, piece)| (-(rank as f32), (*piece).to_string()));
    for (score, text) in start.into_iter().chain(bytes).map(|text| (0.0, text)).chain(pieces) {
        file.extend(f32::to_le_bytes(score));
        file.extend((text.len() as i32).to_le_bytes());
        file.extend(text.as_bytes());
    }
    file
}

fn open_bytes(name: &str, bytes: &[u8]) -> Result<Tokenizer, TokenizerError> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), bytes).unwrap();
    Tokenizer::open(&folder.path().join(name))
}

/// What a stream gives for the ids, piece by piece.
fn streamed(tokenizer: &Tokenizer, before: &[u32], ids: &[u32]) -> String {
    let mut stream = tokenizer.stream();
    stream.follow(before);
    let mut text: String = ids.iter().filter_map(|&id| stream.push(id).unwrap()).collect();
    text.extend(stream.finish().unwrap());
    text
}

#[test]
fn a_learnt_tokenizer_gives_back_every_text() {
    let tokenizer = trained(300);
    for text in ODD_TEXTS.into_iter().chain([RHYME]) {
        let ids = tokenizer.encode(text, true).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        assert!(ids.iter().all(|&id| (id as usize) < tokenizer.vocab_size()));
    }
    assert_eq!((tokenizer.eos(), tokenizer.bos(), tokenizer.id(END_OF_TEXT)), (Some(0), None, Some(0)));
    assert_eq!(tokenizer.begin(), [0; 0]);
    assert_eq!(tokenizer.encode("a<|endoftext|>a", false).unwrap()[1], 0);
    assert_eq!(tokenizer.decode(&[0, 9999]).unwrap(), "");
}

#[test]
fn the_most_frequent_pairs_become_tokens_first() {
    let tokenizer = Tokenizer::train_bpe(["low low lower newest"].into_iter(), 1000).unwrap();
    // Counted by hand: "lo" and "ow" three times each, then " low" twice; every other pair occurs once.
    let json: serde_json::Value = serde_json::from_str(&tokenizer.to_json()).unwrap();
    assert_eq!(json["model"]["merges"], json!([["l", "o"], ["lo", "w"], ["Ġ", "low"]]));
    assert_eq!(tokenizer.vocab_size(), 257 + 3);
    assert_eq!(tokenizer.encode("low low", false).unwrap(), [258, 259]);
}

#[test]
fn learning_is_the_same_for_any_order_and_number_of_threads() {
    let documents: Vec<String> = (0..40).map(|i| format!("{RHYME} {} {RHYME}", i * i % 97)).collect();
    let learn = |threads: usize, reverse: bool| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        let mut documents = documents.clone();
        if reverse {
            documents.reverse();
        }
        pool.install(|| Tokenizer::train_bpe(documents.into_iter(), 400).unwrap().to_json())
    };
    let expected = learn(1, false);
    assert_eq!(learn(4, false), expected);
    assert_eq!(learn(3, true), expected);
}

#[test]
fn a_vocabulary_without_room_for_the_bytes_is_refused() {
    let error = Tokenizer::train_bpe([RHYME].into_iter(), 256).unwrap_err().to_string();
    assert_eq!(error, "a vocabulary of 256 tokens, expected at least 257: every byte and <|endoftext|>");
    let least = Tokenizer::train_bpe([RHYME].into_iter(), 257).unwrap();
    assert_eq!(least.encode(RHYME, false).unwrap().len(), RHYME.len());
    assert_eq!(Tokenizer::train_bpe(std::iter::empty::<&str>(), 500).unwrap().vocab_size(), 257);
}

#[test]
fn the_json_makes_the_same_tokenizer_again() {
    let first = trained(300);
    let again = open_bytes("tokenizer.json", first.to_json().as_bytes()).unwrap();
    assert_eq!(again.encode(RHYME, true).unwrap(), first.encode(RHYME, true).unwrap());
    assert_eq!((again.to_json(), again.vocab_size()), (first.to_json(), first.vocab_size()));
}

#[test]
fn llama2c_merges_the_neighbours_with_the_best_score() {
    let pieces = [" h", "lo", "ll", "hel", "l", " ", "h", "e", "o"];
    let tokenizer = open_bytes("tok.bin", &llama2c_file(&pieces)).unwrap();
    let id = |piece: &str| 259 + pieces.iter().position(|p| *p == piece).unwrap() as u32;
    assert_eq!((tokenizer.bos(), tokenizer.eos(), tokenizer.vocab_size()), (Some(1), Some(2), 268));
    assert_eq!(tokenizer.begin(), [1]);
    // "lo" is better than "ll", and "hel" cannot be had once " h" is there.
    assert_eq!(tokenizer.encode("hello", true).unwrap(), [1, id(" h"), id("e"), id("l"), id("lo")]);
    assert_eq!(tokenizer.encode("elo", false).unwrap(), [id(" "), id("e"), id("lo")]);
    assert_eq!(tokenizer.encode("ell", false).unwrap(), [id(" "), id("e"), id("ll")]);
    // What no piece has is spelled in bytes, which start at 3.
    assert_eq!(tokenizer.encode("é\n", false).unwrap(), [id(" "), 0xC3 + 3, 0xA9 + 3, 0x0A + 3]);
    assert_eq!(tokenizer.encode("", true).unwrap(), [1]);
    let ids = tokenizer.encode(" hello  o", true).unwrap();
    assert_eq!(tokenizer.decode(&ids).unwrap(), " hello  o");
}

#[test]
fn a_stream_gives_whole_characters_and_the_right_spaces() {
    let learnt = trained(300);
    let llama2c =
        open_bytes("tok.bin", &llama2c_file(&[" h", "lo", " ", "h", "e", "l", "o", "a", "s"])).unwrap();
    for tokenizer in [&learnt, &llama2c] {
        for text in ODD_TEXTS.into_iter().filter(|text| !text.contains('\u{2581}')).chain([RHYME]) {
            let ids = tokenizer.encode(text, false).unwrap();
            assert_eq!(streamed(tokenizer, &[], &ids), tokenizer.decode(&ids).unwrap());
        }
        let prompt = tokenizer.encode("hello", true).unwrap();
        let all = tokenizer.encode("hello hello 😀", true).unwrap();
        assert_eq!(all[..prompt.len()], prompt);
        assert_eq!(streamed(tokenizer, &prompt, &all[prompt.len()..]), " hello 😀");
    }
    // Nothing is given until the last byte of a character.
    let ids = learnt.encode("😀", false).unwrap();
    let mut stream = learnt.stream();
    let given: Vec<_> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(given, [None, None, None, Some("😀".to_string())]);
    assert_eq!(stream.push(0).unwrap(), None);
}

#[test]
fn a_stream_of_bytes_that_are_no_text_goes_on() {
    let llama2c = open_bytes("tok.bin", &llama2c_file(&[" ", "a"])).unwrap();
    let learnt = trained(300);
    let stray = learnt.encode("é", false).unwrap()[0];
    for (tokenizer, stray, letter) in [(&llama2c, 0xC3 + 3, 260), (&learnt, stray, learnt.id("a").unwrap())] {
        let ids = [letter, stray, stray, stray, stray, stray, stray, letter, stray];
        let text = streamed(tokenizer, &[], &ids);
        assert_eq!(text, format!("a{}a\u{FFFD}", "\u{FFFD}".repeat(6)));
    }
}

#[test]
fn folders_are_searched_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let open = || Tokenizer::open(folder.path());
    let error = open().unwrap_err().to_string();
    assert!(
        error.starts_with(&folder.path().display().to_string()) && error.contains("no tokenizer"),
        "{error}"
    );
    let write = |name: &str, bytes: &[u8]| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("encoder.json", br#"{"a":0,"b":1,"ab":2,"<|endoftext|>":3}"#);
    write("vocab.bpe", b"#version: 0.2\na b\n");
    let gpt2 = open().unwrap();
    assert_eq!((gpt2.encode("abb", true).unwrap(), gpt2.eos()), (vec![2, 1], Some(3)));
    write("vocab.bpe", b"#version: 0.2\nab\n");
    assert!(open().unwrap_err().to_string().contains("vocab.bpe: line 2: two tokens"));
    write("tokenizer.bin", &llama2c_file(&[" "]));
    assert_eq!(open().unwrap().vocab_size(), 260);
    write("tokenizer.json", trained(257).to_json().as_bytes());
    assert_eq!(open().unwrap().vocab_size(), 257);
}

#[test]
fn packed_files_are_unpacked() {
    use std::io::Write as _;
    let json = trained(280).to_json();
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(json.as_bytes()).unwrap();
    let mut packed = packed.finish().unwrap();
    assert_eq!(open_bytes("tokenizer.json.gz", &packed).unwrap().to_json(), json);
    packed.truncate(packed.len() / 2);
    assert!(matches!(open_bytes("tokenizer.json.gz", &packed), Err(TokenizerError::Read { .. })));
}

#[test]
fn broken_files_are_errors_that_name_the_file() {
    let json = trained(260).to_json();
    for at in (0..json.len()).step_by(97).filter(|&at| json.is_char_boundary(at)) {
        let error = open_bytes("tokenizer.json", &json.as_bytes()[..at]).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json: "), "{error}");
    }
    let file = llama2c_file(&["ab", "a", "b"]);
    let whole: Vec<usize> = (0..file.len()).filter(|&n| open_bytes("t.bin", &file[..n]).is_ok()).collect();
    // A file that ends after a token is a smaller tokenizer.
    assert_eq!(whole.len(), 262 - 3);
    let mut negative = file.clone();
    negative[8..12].copy_from_slice(&(-1i32).to_le_bytes());
    assert!(open_bytes("t.bin", &negative).unwrap_err().to_string().contains("token 0 has a length of -1"));
    let mut huge = file;
    huge[0..4].copy_from_slice(&u32::MAX.to_le_bytes());
    huge[8..12].copy_from_slice(&i32::MAX.to_le_bytes());
    assert!(open_bytes("t.bin", &huge).is_err());
    assert!(
        open_bytes("tokenizer.json", &[0xFF, 0xFE]).unwrap_err().to_string().contains("byte 0 is not UTF-8")
    );
    assert!(matches!(
        Tokenizer::open(Path::new("/no/such/tokenizer.json")),
        Err(TokenizerError::Read { .. })
    ));
}

#[test]
fn what_would_make_the_library_panic_is_refused() {
    let refusal = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value: serde_json::Value = serde_json::from_str(&trained(300).to_json()).unwrap();
        change(&mut value);
        let error = Tokenizer::from_json(value.to_string(), Path::new("t.json")).unwrap_err().to_string();
        error.strip_prefix("t.json: ").unwrap().to_string()
    };
    let merge = refusal(&|v| v["model"]["merges"][0] = json!(["woodchuck woodchuck", "woodchuck"]));
    assert_eq!(merge, "`model.merges` 0: \"woodchuck woodchuck\" is not in the vocabulary");
    let union = refusal(&|v| v["model"]["merges"][1] = json!(["z", "z"]));
    assert_eq!(union, "`model.merges` 1: \"zz\" is not in the vocabulary");
    assert!(refusal(&|v| v["model"]["merges"][0] = json!(3)).contains("two tokens were expected"));
    assert!(refusal(&|v| v["model"]["type"] = json!("Unigram")).contains("\"BPE\" was expected"));
    assert!(refusal(&|v| v["model"]["dropout"] = json!(0.1)).contains("model.dropout"));
    assert!(refusal(&|v| v["model"]["vocab"] = json!({})).contains("empty"));
    assert!(refusal(&|v| v["model"] = json!(null)).contains("`model` is missing"));
    assert!(refusal(&|v| *v = json!([])).contains("a JSON object"));
    let template = |single: serde_json::Value| {
        refusal(&|v| {
            v["post_processor"] =
                json!({ "type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {} });
        })
    };
    assert!(template(json!([{ "SpecialToken": { "id": "<s>", "type_id": 0 } }])).contains("special_tokens"));
    assert!(template(json!([{ "Sequence": { "id": "B", "type_id": 0 } }])).contains("second text"));
    let strip = json!({ "type": "Sequence", "decoders": [{ "type": "Strip", "content": "a", "start": 0, "stop": 1 }] });
    assert!(refusal(&|v| v["decoder"] = strip.clone()).contains("Strip"));
}

mod shared {
    use arcane_models::{LlamaConfig, Source, initialize, preset, save, write_gguf};

    use super::*;

    fn data(path: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data").join(path)
    }

    fn shakespeare(bytes: usize) -> String {
        std::fs::read_to_string(data("tinyshakespeare/input.txt")).unwrap()[..bytes].to_string()
    }

    /// Fowler, Noll and Vo's hash of ids or bytes.
    fn hash(values: impl IntoIterator<Item = u64>) -> u64 {
        values
            .into_iter()
            .fold(0xCBF2_9CE4_8422_2325, |hash, value| (hash ^ value).wrapping_mul(0x100_0000_01B3))
    }

    /// Checks ids against those of other programs: the Python packages `tokenizers` 0.23.3 and, for Llama 2, `sentencepiece`.
    #[track_caller]
    fn assert_ids(path: &str, odd: [&[u32]; 9], long: (usize, u64)) {
        let given = Tokenizer::open(&data(path)).unwrap();
        for tokenizer in [through_gguf(&given), given] {
            for (text, expected) in ODD_TEXTS.into_iter().zip(odd) {
                assert_eq!(tokenizer.encode(text, true).unwrap(), expected, "{text:?}");
            }
            let ids = tokenizer.encode(&shakespeare(200_000), true).unwrap();
            assert_eq!((ids.len(), hash(ids.iter().map(|&id| id.into()))), long);
            assert_eq!(streamed(&tokenizer, &[], &ids[..2000]), tokenizer.decode(&ids[..2000]).unwrap());
        }
    }

    /// The same tokenizer from the metadata of a GGUF file.
    fn through_gguf(tokenizer: &Tokenizer) -> Tokenizer {
        let folder = tempfile::tempdir().unwrap();
        let config = LlamaConfig {
            hidden_size: 4,
            intermediate_size: 4,
            num_hidden_layers: 1,
            num_attention_heads: 2,
            num_key_value_heads: 2,
            head_dim: 2,
            vocab_size: tokenizer.vocab_size(),
            ..preset("stories260k").unwrap()
        };
        let weights = initialize(&config, 0);
        let weights: Vec<_> = weights.iter().map(|(name, tensor)| (name.clone(), tensor)).collect();
        let (model, gguf) = (folder.path().join("model"), folder.path().join("a.gguf"));
        std::fs::create_dir(&model).unwrap();
        save(&model, &config, &weights).unwrap();
        std::fs::write(model.join(TOKENIZER_FILE), tokenizer.to_json()).unwrap();
        assert_eq!(write_gguf(&Source::open(&model).unwrap(), &gguf, None).unwrap(), [""; 0]);
        let json = Source::open(&gguf).unwrap().tokenizer_in_file().unwrap().unwrap();
        Tokenizer::from_json(json, &gguf).unwrap()
    }

    const STORIES260K: [&[u32]; 9] = [
        &[1],
        &[1, 410, 410],
        &[1, 346, 306, 414, 432, 263, 304, 341, 443],
        &[1, 410, 410, 259, 424, 414, 410, 262, 427, 412, 331, 419, 410],
        &[1, 278, 271, 411, 353, 411, 13, 13, 421, 271, 411, 259, 424, 414, 13],
        &[
            1, 297, 412, 198, 178, 360, 280, 412, 431, 485, 410, 481, 410, 465, 456, 425, 309, 266, 466, 410,
            243, 162, 155, 131, 243, 162, 148, 172, 229, 131, 144, 243, 162, 157, 131,
        ],
        &[
            1, 279, 289, 439, 413, 349, 414, 427, 467, 410, 475, 479, 472, 484, 480, 426, 490, 491, 12, 230,
            132, 150, 230, 133, 150, 230, 132, 174, 230, 132, 164, 230, 132, 178,
        ],
        &[1, 410, 318, 264, 285],
        &[1, 261, 1, 268],
    ];

    #[test]
    #[ignore = "needs ../shared"]
    fn stories260k_from_either_file() {
        assert_ids("stories260k/tokenizer.json", STORIES260K, (124_299, 0x15F5_59A1_5D82_C42D));
        assert_ids("stories260k/tok512.bin", STORIES260K, (124_299, 0x15F5_59A1_5D82_C42D));
    }

    #[test]
    #[ignore = "needs ../shared"]
    fn llama2_is_as_sentencepiece_has_it() {
        assert_ids(
            "tokenizers/llama2/tokenizer.bin",
            [
                &[1],
                &[1, 259],
                &[1, 15043, 29892, 3186, 29991],
                &[1, 259, 1023, 29871, 8162, 29871],
                &[1, 1196, 697, 13, 13, 1220, 1023, 13],
                &[
                    1, 1055, 30085, 345, 274, 28059, 813, 1346, 339, 5715, 30024, 29871, 243, 162, 155, 131,
                    243, 162, 148, 172, 30722, 243, 162, 157, 131,
                ],
                &[
                    1, 1016, 29915, 29873, 5040, 29901, 29871, 29896, 29906, 29941, 29946, 29945, 29889,
                    29953, 29955, 12, 30589, 30389, 30353, 30644, 30449,
                ],
                &[1, 29871, 1090],
                // sentencepiece spells the token out; here, as for Hugging Face, it is that token.
                &[1, 263, 1, 289],
            ],
            (66_116, 0x05D5_D0A7_ECC6_693B),
        );
    }

    #[test]
    #[ignore = "needs ../shared"]
    fn smollm2() {
        assert_ids(
            "smollm2-135m-instruct",
            [
                &[],
                &[216],
                &[19556, 28, 905, 17],
                &[216, 827, 216, 5600, 216],
                &[1311, 582, 198, 198, 1311, 827, 198],
                &[
                    3546, 46494, 37366, 1841, 619, 385, 5036, 573, 40303, 218, 10813, 235, 119, 321, 231,
                    10813, 244, 218,
                ],
                &[
                    12420, 982, 2853, 42, 216, 33, 34, 35, 36, 37, 30, 38, 39, 197, 7365, 237, 10391, 237,
                    41152, 7365, 111, 7365, 124,
                ],
                &[11007, 219, 5941],
                &[81, 44, 99, 46, 82],
            ],
            (61_399, 0x3832_7895_FC36_6E39),
        );
    }

    #[test]
    #[ignore = "needs ../shared"]
    fn qwen3_packed() {
        assert_ids(
            "tokenizers/qwen3/tokenizer.json.gz",
            [
                &[],
                &[220],
                &[9707, 11, 1879, 0],
                &[220, 1378, 220, 12621, 220],
                &[1056, 825, 271, 1056, 1378, 198],
                &[3376, 37572, 586, 51950, 1959, 1036, 63725, 854, 90316, 145_233, 378, 235, 145_836],
                &[15007, 944, 2936, 25, 220, 16, 17, 18, 19, 20, 13, 21, 22, 197, 89015],
                &[10417, 223, 7995],
                &[64, 44047, 51407],
            ],
            (54_487, 0x2973_EFD6_005A_2925),
        );
    }

    #[test]
    #[ignore = "needs ../shared"]
    fn gpt2_from_its_two_files() {
        assert_ids(
            "tokenizers/gpt2",
            [
                &[],
                &[220],
                &[15496, 11, 995, 0],
                &[220, 734, 220, 9029, 220],
                &[1370, 530, 198, 198, 1370, 734, 198],
                &[
                    2616, 38776, 40304, 851, 564, 250, 421, 5191, 447, 251, 30325, 222, 41840, 102, 447, 235,
                    8582, 248, 222,
                ],
                &[9099, 470, 2245, 25, 17031, 2231, 13, 3134, 197, 46036, 22174, 28618, 2515, 94, 31676],
                &[5008, 223, 4625],
                &[64, 27, 82, 29, 65],
            ],
            (60_826, 0xD03C_5014_47D9_1DB0),
        );
    }

    #[test]
    #[ignore = "needs ../shared"]
    fn learning_agrees_with_the_python_package() {
        let text = std::fs::read_to_string(data("tinyshakespeare/input.txt")).unwrap();
        let tokenizer = Tokenizer::train_bpe([text].into_iter(), 1024).unwrap();
        let json: serde_json::Value = serde_json::from_str(&tokenizer.to_json()).unwrap();
        let merges: Vec<[String; 2]> = serde_json::from_value(json["model"]["merges"].clone()).unwrap();
        let lines: Vec<String> = merges.iter().map(|pair| pair.join(" ")).collect();
        assert_eq!(
            (merges.len(), hash(lines.join("\n").bytes().map(u64::from))),
            (767, 0xBA62_E812_8ED2_E644)
        );
    }
}
