"""`axcollector completion`: what a shell needs so that the Tab key completes this command.

zsh asks the command itself at each Tab: its function runs the line so far with `--_shell-completion`, which
`twisted.python.usage` answers with code for `_arguments` (`answer`). Twisted knows one level of subcommands and takes
options to stand before arguments; here there are two levels, and options may stand anywhere, so both are mended. bash
gets one function with all names in it, made from the same options.
"""

# ruff: noqa: N815 - Twisted's names

import contextlib
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from twisted.python import usage

from axcollector.cli.options import Choices, CommandOptions

_ZSH: Final = """\
#compdef axcollector
# Completion of axcollector for zsh: put it into a directory of $fpath as _axcollector,
# or put `source <(axcollector completion zsh)` into ~/.zshrc, after compinit.
_axcollector() {
    local curcontext="$curcontext" context state line output
    typeset -A opt_args
    output="$("$words[@]" --_shell-completion zsh:$CURRENT 2>/dev/null)"
    [[ $output == "#compdef "* ]] && eval "$output"
}
if [[ $funcstack[1] == _axcollector ]]; then
    _axcollector "$@"
else
    compdef _axcollector axcollector
fi
"""
_BASH: Final = """\
# Completion of axcollector for bash: put `source <(axcollector completion bash)` into ~/.bashrc.
_axcollector() {
    local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
    local at= word names= options= values= files= directories= actions=
    # bash takes --option=value for three words.
    [[ $current == = ]] && current=
    [[ $previous == = ]] && previous=${COMP_WORDS[COMP_CWORD-2]}
    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
        case $at/$word in
            %(paths)s) at+=/$word ;;
        esac
    done
    case $at in
%(commands)s
    esac
    [[ $current == -* ]] && names=$options actions=
    [[ " $values " == *" $previous "* ]] && names= actions=
    [[ " $files " == *" $previous "* ]] && actions=-f
    [[ " $directories " == *" $previous "* ]] && actions=-d
    COMPREPLY=()
    [[ $actions ]] && compopt -o filenames 2>/dev/null
    while IFS= read -r word; do
        COMPREPLY+=("$word")
    done < <(compgen $actions -W "$names" -- "$current")
}
complete -F _axcollector axcollector
"""
_OPTIONS_FIRST: Final = b' -A "-*"'
"""What has `_arguments` end the options where the arguments begin."""


class CompletionOptions(CommandOptions):
    """Options of `completion`."""

    longdesc = (
        "Prints what the shell, zsh or bash, needs to complete this command's subcommands, options and files."
        " Example: source <(axcollector completion bash)"
    )
    required = ("shell",)
    shells: ClassVar[Sequence[str]] = ("bash", "zsh")
    compData = usage.Completions(extraActions=[Choices(shells)])

    def postOptions(self) -> None:
        """There are two shells."""
        if self["shell"] not in self.shells:
            raise usage.UsageError(f"{self['shell']!r} is no shell known here; allowed are {', '.join(self.shells)}")

    def run(self) -> None:
        """Print it."""
        top: Any = self.parent
        sys.stdout.write(_ZSH if self["shell"] == "zsh" else bash_function(top))


def answer(options: usage.Options, words: Sequence[str]) -> str:
    """What zsh evaluates to complete a line.

    Args:
        options: The command's.
        words: The line without the command; the last two are `--_shell-completion` and `zsh:N`, where N says which
            word is to be completed, counted from 1, the command being the first.
    """
    *line, mark, where = words
    position = int(where.partition(":")[2])
    code = b""
    while position > 2 and (below := _subcommand(options, line[0])) is not None and hasattr(below, "subCommands"):
        options, line, position = below, line[1:], position - 1
        code += b"#compdef axcollector\nshift words\n(( CURRENT-- ))\n"
    given = io.BytesIO()
    options._shellCompFile = given  # noqa: SLF001 - Twisted's own place to say so
    with contextlib.suppress(SystemExit):  # so it ends when it has answered
        options.parseOptions([*line, mark, f"zsh:{position}"])
    code += given.getvalue()
    if code.count(_OPTIONS_FIRST) > 1:
        before, _, after = code.rpartition(_OPTIONS_FIRST)
        code = before + after
    return code.decode()


def bash_function(options: usage.Options) -> str:
    """What bash evaluates once: for each command what can follow it, and which of its options have values."""
    everything = dict(_all_options("", options))
    commands = [f"        {path or repr(path)}) {_variables(each)} ;;" for path, each in everything.items()]
    return _BASH % {"paths": "|".join(path for path in everything if path), "commands": "\n".join(commands)}


def _variables(options: usage.Options) -> str:
    names = [name for name, *_ in getattr(options, "subCommands", ())]
    actions = ""
    for action in _positional_actions(options):
        names += action.items if isinstance(action, Choices) else ()
        actions = "-f" if isinstance(action, usage.CompleteFiles) else actions
    texts = {
        "names": names,
        "actions": [actions],
        "options": [f"--{name.rstrip('=')}" for name in options.longOpt],
        "values": _with_value(options, usage.Completer),
        "files": _with_value(options, usage.CompleteFiles),
        "directories": _with_value(options, usage.CompleteDirs),
    }
    return " ".join(f"{name}='{' '.join(words)}'" for name, words in texts.items() if any(words))


def _with_value(options: usage.Options, kind: type[usage.Completer]) -> Sequence[str]:
    """The options, as they are spelt, whose values are completed in this way."""
    chosen = {name for name, action in _option_actions(options).items() if isinstance(action, kind)}
    return [
        f"-{spelt}" if len(spelt) == 1 else f"--{spelt}" for spelt, name in options.synonyms.items() if name in chosen
    ]


def _option_actions(options: usage.Options) -> Mapping[str, usage.Completer]:
    """What completes each option's value; as Twisted has it, a class adds to what its bases say."""
    found: dict[str, usage.Completer] = {}
    for each in reversed(type(options).__mro__):
        if "compData" in vars(each):
            found |= vars(each)["compData"].optActions
    return found


def _positional_actions(options: usage.Options) -> Sequence[usage.Completer]:
    """What completes the arguments; as Twisted has it, that is what the nearest class says."""
    for each in type(options).__mro__:
        if "compData" in vars(each) and (actions := vars(each)["compData"].extraActions):
            return list(actions)
    return []


def _subcommand(options: usage.Options, name: str) -> usage.Options | None:
    for each, _, parser, _ in getattr(options, "subCommands", ()):
        if each == name:
            below: usage.Options = parser()
            below.parent = options
            return below
    return None


def _all_options(path: str, options: usage.Options) -> Iterator[tuple[str, usage.Options]]:
    """The options of a command and of all that are below it, by their paths, such as `/scope/add`."""
    yield path, options
    for name, *_ in getattr(options, "subCommands", ()):
        below = _subcommand(options, name)
        if below is not None:
            yield from _all_options(f"{path}/{name}", below)
