"""`qa completion`: lets a shell complete nouns, verbs, arguments and options."""

from __future__ import annotations

import importlib
from collections.abc import Iterator

from appliance.qa.context import Context
from appliance.qa.grammar import FORMATS, OF_COMMANDS, OF_VERBS, OPTIONS, WITH_VALUE
from appliance.qa.verbs import Given, Verb

OPTION_VERBS = tuple(f" --{name}" for its_options in OF_VERBS.values() for name in its_options)
BASH = """\
# Completion of qa for bash, made by: qa completion bash
_qa() {{
    local word skip='' words=() choices=''
    local cur=${{COMP_WORDS[COMP_CWORD]}} prev=${{COMP_WORDS[COMP_CWORD - 1]}}
    COMPREPLY=()
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD - 1}}"; do
        if [[ -n $skip ]]; then
            skip=''
        elif [[ $word == @({with_value}) ]]; then
            skip=yes
        elif [[ $word != -* ]]; then
            words+=("$word")
        fi
    done
    if [[ $prev == @(-o|--output) ]]; then
        choices='{forms}'
    elif [[ $prev == --config ]]; then
        compopt -o default
        return
    elif [[ -n $skip || $prev == '=' || $cur == '=' ]]; then
        return
    elif [[ $cur == -* ]]; then
        choices='{options}'
    else
        case "${{words[0]-}} ${{words[1]-}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$choices" -- "$cur"))
    if [[ ${{COMPREPLY[0]-}} == *= ]]; then
        compopt -o nospace
    fi
}}
complete -F _qa qa
"""


async def bash(context: Context, given: Given) -> None:
    """`qa completion bash`."""
    from appliance.qa.main import NOUNS

    verbs = {noun: importlib.import_module(f"appliance.qa.{noun}").VERBS for noun in NOUNS}
    with_value = [f"--{name}" for name in WITH_VALUE]
    with_value += [f"-{alias}" for name in WITH_VALUE for alias in OPTIONS[name]]
    rare = {name for its_options in (*OF_COMMANDS.values(), *OF_VERBS.values()) for name in its_options}
    cases = "\n".join(f"            '{place}') choices='{words}' ;;" for place, words in _choices(verbs))
    context.output.write(
        BASH.format(
            with_value="|".join(with_value),
            forms=" ".join(FORMATS),
            options=" ".join(f"--{name}" for name in OPTIONS if name not in rare),
            cases=cases,
        )
    )


def _choices(verbs: dict[str, tuple[Verb, ...]]) -> Iterator[tuple[str, str]]:
    """What can come next after a noun and a verb, either of which may still be empty."""
    yield " ", " ".join([*verbs, *OF_COMMANDS])
    for noun, its_verbs in verbs.items():
        its_verbs = tuple(verb for verb in its_verbs if not verb.name.endswith(OPTION_VERBS))
        yield f"{noun} ", " ".join(verb.name for verb in its_verbs)
        for verb in its_verbs:
            if verb.arguments:
                yield f"{noun} {verb.name}", " ".join(f"{argument.name}=" for argument in verb.arguments)


VERBS = (
    Verb(
        "bash",
        "Prints the completion for bash, to be read by it.",
        bash,
        examples=("qa completion bash > /etc/bash_completion.d/qa",),
    ),
)
