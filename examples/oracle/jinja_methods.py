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
    # Printed values.
    "{{ 1e15 }} {{ 1e16 }} {{ 1.5e-5 }} {{ 0.0001 }} {{ 1e-5 }} {{ 123456789.125 }} {{ -1e300 }} {{ 0.1 + 0.2 }} {{ -0.0 }}",
    "{{ 1e21 | string }}|{{ 1e21 ~ '' }}|{{ [1e21, 1.0, true, none] | join(',') }}|{{ 10 / 4 }}|{{ 4 / 2 }}",
    "{{ ['a', \"it's\", 'say \"x\"', 'both \\' and \"', 'tab\\t\\n\\\\', 'é😀'] }}",
    "{{ {'a': ['b', {'c': none}], 1: true} }} {{ [[], {}] }} {{ messages[0] }}",
    "{{ [1, 'x'] ~ {'k': 'v'} ~ none ~ true ~ missing ~ 1.0 }}",
    "{{ [missing] }}",
    "{{ ['e\u0301', 'a\u00a0b', '\u200b', '\x7f', '\u2028'] }}",
    # The operator %.
    "{{ '%s and %d' % ('x', 3) }}|{{ '%5.2f' % 3.14159 }}|{{ '%05d' % 42 }}|{{ '%-5s|' % 'ab' }}|{{ '%%' % () }}",
    "{{ '%x %X %o' % (255, 255, 8) }}|{{ '%e' % 12345.678 }}|{{ '%r' % 'a' }}|{{ '%s' % none }}|{{ '%s' % true }}",
    "{{ '%(a)s-%(b)s' % {'a': 1, 'b': 'x'} }}|{{ '%s' % {'a': 1} }}|{{ '%s' % 1e21 }}",
    "{{ '%s' % ('a', 'b') }}",
    "{{ '%s %s' % 'a' }}",
    "{{ '%d' % 'a' }}",
    "{{ 7 % 3 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ -7.5 % 2 }} {{ 2 * 7 % 4 }} {{ 2 + 7 % 4 * 3 }} {{ 7 % 4 % 2 }}",
    "{{ 7 % 0 }}",
    "{% for i in range(4) %}{{ 'odd' if i % 2 else 'even' }}{% if i % 2 == 1 and i % 3 != 0 %}!{% endif %}{% endfor %}",
    "{{ 'a' ~ 1 + 2 }}",
    "{{ 'n' ~ 2 * 3 ~ 'm' }} {{ ('a' ~ 'b') | upper }} {{ 'a' ~ 'b' | upper }} {{ 'a' ~ 'b' == 'ab' }} {{ 'x' in 'a' ~ 'x' }}",
    "{{ {'a': 'x' ~ 'y'}['a'] ~ ['p' ~ 'q'][0] }}{% set z = 'a' ~ -1 %}{{ z }}{{ 'b' ~ ('c' if false else 'd') }}",
    "{{ '{{ a % b ~ c }}' }}{# a % b #}{% raw %}{{ 'a' ~ 'b' % c }}{% endraw %}",
    # Filters, tests and blocks.
    "{{ [3, 1, 2] | sort }} {{ ['b', 'A', 'c'] | sort }} {{ [1, 2, 2] | unique | list }} {{ [1, 2, 3] | reverse | list }}",
    "{{ {'b': 1, 'a': 2} | dictsort | length }}{% for k, v in {'b': 1, 'a': 2} | dictsort %}{{ k }}={{ v }};{% endfor %}",
    "{{ messages | map(attribute='role') | join(', ') }} {{ messages | join(', ', attribute='role') }} {{ ['a', 'b'] | map('upper') | list }}",
    "{% for role, group in messages | groupby('role') %}{{ role }}:{{ group | length }};{% endfor %}",
    "{{ messages | rejectattr('role', 'equalto', 'user') | map(attribute='role') | list }} {{ [1, 2, 3] | select('odd') | list }}",
    "{{ 'a' is string }} {{ 1 is number }} {{ [] is sequence }} {{ {} is mapping }} {{ 'a' is sequence }} {{ {} is iterable }} {{ x is defined }} {{ none is none }} {{ 1 is integer }} {{ 1.0 is float }} {{ true is boolean }} {{ true is number }}",
    "{{ 'abcdef'[::-1] }} {{ 'abcdef'[4:1:-1] }} {{ 'abcdef'[-3:] }} {{ [1, 2, 3, 4][::2] }} {{ [1, 2, 3, 4][-1] }} {{ [1, 2, 3][::-1] }}",
    "{% macro m(a, b='x', c=none) %}{{ a }}{{ b }}{{ c }}{% endmacro %}{{ m(1) }} {{ m(1, c=2) }} {{ m('q', 'r', 's') }}",
    "{% for a in [1, [2, [3]]] recursive %}{% if a is iterable %}({{ loop(a) }}){% else %}{{ a }}{% endif %}{% endfor %}",
    "{% for a in [1, 2, 3] %}{% if a == 2 %}{% continue %}{% endif %}{{ loop.index0 }}{{ loop.first }}{{ loop.last }}{{ loop.previtem }}{{ loop.nextitem }};{% else %}none{% endfor %}{% for a in [] %}{% else %}none{% endfor %}",
    "{% set ns = namespace(a=1, b='x') %}{% if true %}{% set ns.a = ns.a + 1 %}{% endif %}{{ ns.a }}{{ ns.b }}",
    "  {% if true %}\n  a\n  {% endif %}\n{%- if true -%}  b  {%- endif %}\n  {%+ if true %}c{% endif +%}\nd\n",
    "{{ ' a ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ 'hello world' | title }}|{{ 'hELLO' | capitalize }}|{{ 'a' | default('b') }}|{{ missing | default('b') }}|{{ '' | default('b', true) }}",
    "{{ 3.7 | int }} {{ '12' | int }} {{ 'x' | int }} {{ '1.5' | float }} {{ 2.5 | round }} {{ 2.567 | round(2) }} {{ -3 | abs }} {{ [1, 2] | sum }} {{ [1, 3] | max }} {{ [] | first }}",
    "{{ 0.5 | round }} {{ 1.5 | round }} {{ 7 | round }} {{ 2.3 | round(method='ceil') }} {{ 2.77 | round(1, 'floor') }} {{ 2.675 | round(2) }}",
    "{{ 'x' | int(7) }} {{ 'x' | int(default=8) }} {{ none | int }} {{ true | int }} {{ '1.9' | int }} {{ 'x' | float }} {{ '2' | float }}",
    "{{ [1, {'a': 'é<&'}] | tojson }} {{ {'a': [1, 2], 'b': {}} | tojson(indent=4) }} {{ 'x\\ny' | tojson }} {{ 1.0 | tojson }} {{ 1e21 | tojson }} {{ none | tojson }}",
    "{{ 'a-b_c'.split('-') }} {{ 'AbC'.lower() }} {{ 'x'.join(['a', 'b']) }} {{ 'abc'.startswith('b') }} {{ 'a\\nb'.splitlines() }} {{ '  x'.lstrip() }}|{{ 'x  '.rstrip() }}|{{ 'aXbX'.replace('X', '-') }}",
    "{% set x %}a{{ 1 + 1 }}b{% endset %}{{ x }} {{ x | length }} {% filter upper %}q{{ 'r' }}{% endfilter %}",
    "{% call(x) [1, 2] | list %}{% endcall %}",
    "{{ 7 // 2 }} {{ -7 // 2 }} {{ 1 + 1.0 }} {{ 3 * 'ab' }} {{ 'ab' * 2 }} {{ [1] + [2] }}",
    "{{ 2 ** -1 }}",
    "{{ true + 1 }}",
    "{{ 1 if false }}|{{ 'a' if 1 > 2 else 'b' }}|{{ not true }}|{{ 1 < 2 < 3 }}|{{ 'a' not in 'abc' }}|{{ 1 is not none }}",
    "{% for k in {'z': 1, 'a': 2} %}{{ k }}{% endfor %}{% for k, v in {'z': 1, 'a': 2}.items() %}{{ k }}{{ v }}{% endfor %}",
    "{{ '{:>5}|{:<5}|{:^5}|{:05d}|{:.2f}'.format('a', 'b', 'c', 42, 3.14159) }} {{ '{a} {0}'.format(1, a=2) }}",
    "{{ '{!r}'.format('x') }}",
    "{{ range(5) | list }} {{ range(1, 10, 3) | list }} {{ range(3, 0, -1) | list }}",
    "{{ [1, 2, 3, 4, 5] | batch(2) | list }} {{ 'abc' | list }} {{ 'abc' | length }} {{ 'a,b' | replace(',', ';') }} {{ 'abc' | upper }}",
    "{{ messages[0].missing is defined }}|{{ messages[0]['role'] }}|{{ messages[-1].content[:5] }}|{{ messages[0].get('x') }}|{{ missing }}|",
    "{{ missing.attribute }}",
    "{{ 'a' + 1 }}",
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
