"""Makes client/vectors/templates.json: what Transformers renders for chat templates in the styles that bases use.

Made with Python 3.11, transformers 5.23.0, jinja2 as below. Run from the repository's top:

    python examples/oracle/templates.py
"""

import json
from pathlib import Path

import jinja2
import transformers
from transformers.utils.chat_template_utils import render_jinja_template

# Each uses what some family of templates uses: block trimming, namespaces, slices, string
# methods, filters, macros, loop controls, generation tags.
TEMPLATES = {
    "blocks on lines of their own": """
{% for message in messages %}
    {% if message['role'] == 'user' %}
[user] {{ message['content'].strip() }}
    {% elif message['role'] == 'assistant' %}
[assistant] {{ message['content'] | trim }}{{ eos_token }}
    {% endif %}
{% endfor %}
{% if add_generation_prompt %}
[assistant] {% endif %}""",
    "system apart by slicing": """
{%- if messages[0]['role'] == 'system' -%}
    {%- set system = messages[0]['content'] -%}
    {%- set rest = messages[1:] -%}
{%- else -%}
    {%- set system = 'None given' -%}
    {%- set rest = messages -%}
{%- endif -%}
{{- bos_token -}}
{%- for message in rest -%}
    {%- if loop.first and system is defined -%}{{- '<<' + system + '>>\\n' -}}{%- endif -%}
    {{- message.role | upper + ': ' + message.content.lstrip() + ('\\n' if not loop.last or message.role == 'assistant' else '\\n') -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'ASSISTANT: ' -}}{%- endif -%}""",
    "namespace and tests": """
{%- set ns = namespace(turns=0) -%}
{%- for message in messages if message['role'] != 'system' -%}
    {%- set ns.turns = ns.turns + 1 -%}
    {{- ns.turns ~ '/' ~ loop.index0 ~ ' ' -}}
    {%- if message.content is string and message.content.startswith('O') -%}{{- 'o' -}}{%- endif -%}
    {{- message.content.split('?')[0] -}}
    {{- '|' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '>' -}}{%- endif -%}""",
    "macro, json and tools": """
{%- macro turn(role, text) -%}{{ '(' ~ role ~ ')' }}{{ text | tojson }}{{ '\\n' }}{%- endmacro -%}
{%- if tools is not none -%}{{- 'tools' -}}{%- endif -%}
{%- for message in messages -%}
    {{- turn(message['role'], message['content']) -}}
    {{- message | tojson -}}{{- [1, 'a', none, true] | tojson -}}{{- [1, {'k': []}] | tojson(indent=2) -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '(assistant)' -}}{%- endif -%}""",
    "generation tags": """
{%- for message in messages -%}
    {%- if message.role == 'assistant' -%}
        {{- '<a>' -}}{%- generation -%}{{- message.content + eos_token -}}{%- endgeneration -%}
    {%- else -%}
        {{- '<' + message.role[0] + '>' + message.content + '\\n' -}}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- '<a>' -}}{%- endif -%}""",
    "loop controls": """
{%- for message in messages -%}
    {%- if message.role == 'system' -%}{%- continue -%}{%- endif -%}
    {{- message.get('role') + '=' + message.content.replace('\\n', ' ').rstrip() + ';' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- 'assistant=' -}}{%- endif -%}""",
}
CHATS = [
    [
        {"role": "user", "content": "One?"},
        {"role": "assistant", "content": "Only \"one\" <b>é</b>."},
    ],
    [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "  First?\n\nReally? "},
        {"role": "assistant", "content": "Yes\n"},
        {"role": "user", "content": "Then?"},
        {"role": "assistant", "content": "日本 \U0001f512"},
    ],
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def render(source, messages, prompt):
    rendered, _ = render_jinja_template(
        [messages], chat_template=source, add_generation_prompt=prompt, **TOKENS
    )
    return rendered[0]


cases = [
    {
        "name": name,
        "template": source,
        "messages": messages,
        "rendered": render(source, messages, False),
        "prompt": render(source, messages[:-1], True),
    }
    for name, source in TEMPLATES.items()
    for messages in CHATS
]
golden = {
    "made_with": {"transformers": transformers.__version__, "jinja2": jinja2.__version__},
    "tokens": TOKENS,
    "cases": cases,
}
Path("client/vectors/templates.json").write_text(json.dumps(golden, indent=1) + "\n")
