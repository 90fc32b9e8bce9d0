"""Makes client/vectors/jinja.json: what Jinja2 renders for single expressions, in the environment of
transformers.utils.chat_template_utils (sandboxed, trim_blocks, lstrip_blocks, loop controls, its tojson).

Made with Python 3.11 and jinja2 3.1.6. `strftime_now` gives the date that our templates see. An
expression that Jinja2 refuses has no result. Run from the repository's top:

    python examples/oracle/jinja_methods.py
"""

import json
from datetime import datetime
from pathlib import Path

from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

MESSAGES = [
    {"role": "user", "content": "How often does the ferry go north?"},
    {"role": "assistant", "content": 'The ferry goes too often, says one.\nAt noon & "late" <ok> é.'},
]

EACH = [
    "{{ m.content.capitalize() }}",
    "{{ m.content.count('o') }}/{{ m.content.find('o') }}",
    "{% set d = dict(a=m.content) %}{{ d.a }}",
    "{{ (7 / 2) | int }} {{ 7 // 2 }} {{ 2 ** 3 }} {{ 1.0 }} {{ true }} {{ none }}",
    "{{ 1e21 }}",
    "{{ '%s: %s' | format(m.role, m.content) }}",
    "{{ '{}: {}'.format(m.role, m.content) }}",
    "{{ m.content | indent(2) }}{{ m.content | replace('e','E') }}",
    "{{ 'map' if m is mapping else 'no' }} {{ 'str' if m.content is string else 'no' }} "
    "{{ 'it' if m.content is iterable and m.content is not mapping else 'no' }}",
    "{{ m.content.isdigit() }}",
    "{{ '-'.join(m.content.split()) }}",
    "{% set l = [] %}{% set _ = l.append(m.content) %}{{ l[0] }}",
    "{% for w in m.content.split(' ') %}{% if loop.index > 3 %}{% break %}{% endif %}{{ w }} {% endfor %}",
    "{% macro say(t) %}<{{ t | trim }}>{% endmacro %}{{ say(m.content) }}",
    "{% set ns = namespace(last='') %}{% for x in messages[::-1] %}{% set ns.last = x.content %}{% endfor %}{{ ns.last[:3] }}",
    "{{ '%s: %s' % (m.role, m.content) }}",
    "{{ m.content.removeprefix('The ') }}{{ m.content.removesuffix('?') }}",
    "{{ m.content.rsplit(' ', 1)[0] }}|{{ m.content.rsplit(none, 2) | join('|') }}|{{ ' a  b '.rsplit() | join('|') }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
    "{{ m.content.splitlines() | join('|') }}|{{ 'a\\r\\nb\\x0bc\\r'.splitlines(true) | length }}",
    "{{ 'T' if m.content.startswith(('The', 'At')) else 'F' }}",
    "{{ strftime_now('%Y-%m-%d %H:%M %j %-d %p') }} {{ strftime_now('%F %T %I %-m %b %B %a %A %y') }}",
    "{{ m.role.title() }} {{ m.content.strip('.') }}",
    "{{ m | tojson(ensure_ascii=False) }}",
    "{{ m | tojson(ensure_ascii=True) }}",
    "{{ m | tojson(separators=(',', ':')) }}",
    "{{ m | tojson(sort_keys=True) }}",
]

ONCE = [
    "{{ {'b': [1, {}, []], 'a': {'d': '😀é', 'c': none}} | tojson(indent=2, sort_keys=true, ensure_ascii=true) }}",
    "{{ 'née'.find('e') }} {{ 'née'.rfind('e') }} {{ 'aaa'.count('') }} {{ ''.isdigit() }} {{ ''.isspace() }}",
    "{{ 'ab c'.islower() }} {{ 'AB 1'.isupper() }} {{ '1'.isupper() }} {{ \"don't 1st x_y\".title() }}",
    "{{ {'a': 1, 'b': 2}.items() | length }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }}",
    "{{ 'a,b,c'.split(',', 1) }} {{ 'a,b,c'.split(',')[-1] }} {{ ' a  b c '.split(none, 1) }}",
    "{{ 'x'.split('') }}",
    "{{ 'a'.replace('a', 'b', 1) }} {{ {'a': 1}.get('b', 3) }} {{ [1, 2, 1].count(1) }}",
]


def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
environment.filters["tojson"] = tojson
environment.globals["strftime_now"] = lambda format: datetime(2024, 7, 26).strftime(format)


def render(template):
    try:
        return environment.from_string(template).render(messages=MESSAGES)
    except Exception:
        return None


each = ["{% for m in messages %}[" + source + "]{% endfor %}" for source in EACH]
cases = [{"template": template, "rendered": render(template)} for template in each + ONCE]
Path("client/vectors/jinja.json").write_text(
    json.dumps({"messages": MESSAGES, "cases": cases}, indent=1, ensure_ascii=False) + "\n"
)
