"""Makes client/vectors/tokens.json: what Transformers makes of texts and chats on the embedded base.

Made with Python 3.11, transformers 5.23.0, tokenizers 0.23.3. Run from the repository's top:

    python examples/oracle/tokens.py
"""

import json
from pathlib import Path

import tokenizers
import transformers
from transformers import AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("examples/assets/base")
end_of_turn = tokenizer.convert_tokens_to_ids("<|eot_id|>")


def ids(messages, prompt):
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=prompt)
    return tokenizer(text, add_special_tokens=False).input_ids


def chat(messages):
    """Counts the assistant's tokens: those that follow the prompt for its turn, to the turn's end."""
    whole = ids(messages, False)
    counted = [0] * len(whole)
    for index, message in enumerate(messages):
        if message["role"] == "assistant":
            start = len(ids(messages[:index], True))
            end = whole.index(end_of_turn, start)
            counted[start : end + 1] = [1] * (end + 1 - start)
    return {
        "messages": messages,
        "ids": whole,
        "prompt_ids": ids(messages[:-1], True),
        "counted": counted,
    }


def turns(*contents):
    roles = ["user", "assistant"] * len(contents)
    return [{"role": role, "content": text} for role, text in zip(roles, contents)]


texts = [
    "",
    "The product copies an input buffer to an output buffer.",
    "CWE-79: Improper Neutralization ('Cross-site Scripting')",
    "  spaces,\ttabs\r\n\n\nand lines  ",
    "1234567 12.5 0x7fffffff",
    "don't WE'LL they've",
    "naïve Zürich 日本語 \U0001f512 e\u0301",
    "if (a[i] == NULL) {\n    return -1;\n}",
]
chats = [
    turns("Which weakness is this?", "CWE-79: XSS"),
    turns("  trimmed \n", "\n also trimmed  "),
    turns("One?", "First.", "Two?", "Second\n\nparagraph."),
    [{"role": "system", "content": "Be brief."}, *turns("日本?", "é \U0001f512 1234")],
    turns("Show code.", "    indented = True\n\treturn"),
]
golden = {
    "made_with": {
        "transformers": transformers.__version__,
        "tokenizers": tokenizers.__version__,
    },
    "text": [{"text": text, "ids": tokenizer(text).input_ids} for text in texts],
    "chat": [chat(messages) for messages in chats],
}
out = Path("client/vectors/tokens.json")
out.parent.mkdir(exist_ok=True)
out.write_text(json.dumps(golden, indent=1) + "\n")
