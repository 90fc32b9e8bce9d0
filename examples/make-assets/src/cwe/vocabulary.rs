//! The embedded tokenizer: byte-level BPE with Llama 3's split, special tokens and chat form.

use serde_json::{Value, json};
use tokenizers::decoders::byte_level::ByteLevel as ByteLevelDecoder;
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence as PreTokenizers;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::processors::PostProcessorWrapper;
use tokenizers::processors::sequence::Sequence as Processors;
use tokenizers::processors::template::TemplateProcessing;
use tokenizers::{
    AddedToken, NormalizerWrapper, SplitDelimiterBehavior, Tokenizer, TokenizerBuilder,
};

/// Size of the vocabulary, special tokens included.
pub const SIZE: usize = 3072;
/// Positions that the embedded model was made for.
pub const CONTEXT: usize = 1024;

/// Begins every text.
pub const BEGIN: &str = "<|begin_of_text|>";
/// Ends a text that is not a chat.
pub const END: &str = "<|end_of_text|>";
/// Ends a turn of a chat.
pub const END_OF_TURN: &str = "<|eot_id|>";
/// Fills up a batch.
pub const PAD: &str = "<|finetune_right_pad_id|>";

/// Llama 3.1's special tokens in its order, with as many reserved ones as make sixteen.
pub const SPECIAL: [&str; 16] = [
    BEGIN,
    END,
    "<|reserved_special_token_0|>",
    "<|reserved_special_token_1|>",
    PAD,
    "<|reserved_special_token_2|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eom_id|>",
    END_OF_TURN,
    "<|python_tag|>",
    "<|reserved_special_token_3|>",
    "<|reserved_special_token_4|>",
    "<|reserved_special_token_5|>",
    "<|reserved_special_token_6|>",
    "<|reserved_special_token_7|>",
];

/// How Llama 3 cuts text before merging: contractions, words with one leading sign or space,
/// up to three digits, runs of signs, line ends, spaces.
const SPLIT: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"|[^\r\n\p{L}\p{N}]?\p{L}+",
    r"|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*",
    r"|\s*[\r\n]+",
    r"|\s+(?!\S)",
    r"|\s+",
);

/// Llama 3's chat form in Jinja: a header with the role, an empty line, the trimmed content,
/// end of turn; the first turn begins with the beginning of the text.
const CHAT_TEMPLATE: &str = "\
{%- for message in messages %}\
{%- if loop.first %}{{- bos_token }}{%- endif %}\
{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}\
{{- message['content'] | trim }}\
{{- '<|eot_id|>' }}\
{%- endfor %}\
{%- if add_generation_prompt %}\
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}\
{%- endif %}";

/// A question and its answer as the chat template renders them, without the beginning of text.
pub fn chat_turns(question: &str, answer: &str) -> String {
    [("user", question), ("assistant", answer)]
        .map(|(role, text)| {
            let text = text.trim();
            format!("<|start_header_id|>{role}<|end_header_id|>\n\n{text}{END_OF_TURN}")
        })
        .concat()
}

/// Trains the tokenizer on `texts`. The merges depend on the texts alone, not on their order.
///
/// # Errors
/// The tokenizer library's, when the texts are too few for [`SIZE`] tokens.
pub fn train(texts: &[String]) -> tokenizers::Result<Tokenizer> {
    let split = Split::new(
        SplitPattern::Regex(SPLIT.to_owned()),
        SplitDelimiterBehavior::Isolated,
        false,
    )?;
    let bytes = ByteLevel::new(false, false, false);
    let model = BPE::builder().ignore_merges(true).build()?;
    let mut tokenizer = TokenizerBuilder::new()
        .with_model(model)
        .with_normalizer(None::<NormalizerWrapper>)
        .with_pre_tokenizer(Some(PreTokenizers::new(vec![
            PreTokenizerWrapper::Split(split),
            PreTokenizerWrapper::ByteLevel(bytes),
        ])))
        .with_post_processor(Some(bytes))
        .with_decoder(Some(ByteLevelDecoder::new(true, true, true)))
        .build()?;
    let mut trainer = BpeTrainer::builder()
        .show_progress(false)
        .vocab_size(SIZE - SPECIAL.len())
        .min_frequency(2)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .build();
    tokenizer.train(&mut trainer, texts.iter())?;
    let special = SPECIAL.map(|text| AddedToken::from(text, true));
    tokenizer.add_special_tokens(&special);
    if tokenizer.get_vocab_size(true) != SIZE {
        let got = tokenizer.get_vocab_size(true);
        return Err(format!("the texts gave {got} tokens: expected {SIZE}; add text").into());
    }
    let begin = tokenizer.token_to_id(BEGIN).ok_or("no beginning of text")?;
    let template = TemplateProcessing::builder()
        .try_single(format!("{BEGIN}:0 $A:0"))?
        .try_pair(format!("{BEGIN}:0 $A:0 {BEGIN}:1 $B:1"))?
        .special_tokens(vec![(BEGIN, begin)])
        .build()?;
    let mut tokenizer = Tokenizer::from(tokenizer);
    tokenizer.with_post_processor(Some(Processors::new(vec![
        PostProcessorWrapper::ByteLevel(bytes),
        PostProcessorWrapper::Template(template),
    ])));
    Ok(tokenizer)
}

/// `tokenizer_config.json`.
pub fn config(tokenizer: &Tokenizer) -> Value {
    let mut special: Vec<_> = tokenizer.get_added_tokens_decoder().into_iter().collect();
    special.sort_by_key(|(id, _)| *id);
    let decoder: serde_json::Map<String, Value> = special
        .into_iter()
        .map(|(id, token)| {
            let entry = json!({
                "content": token.content,
                "lstrip": token.lstrip,
                "normalized": token.normalized,
                "rstrip": token.rstrip,
                "single_word": token.single_word,
                "special": token.special,
            });
            (id.to_string(), entry)
        })
        .collect();
    json!({
        "added_tokens_decoder": decoder,
        "bos_token": BEGIN,
        "chat_template": CHAT_TEMPLATE,
        "clean_up_tokenization_spaces": false,
        "eos_token": END_OF_TURN,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": CONTEXT,
        "pad_token": PAD,
        "tokenizer_class": "PreTrainedTokenizerFast",
    })
}

/// `special_tokens_map.json`.
pub fn special_tokens_map() -> Value {
    json!({"bos_token": BEGIN, "eos_token": END_OF_TURN, "pad_token": PAD})
}
