"""The completion scripts for bash, zsh and fish."""

from __future__ import annotations

# Each script passes the line up to the cursor as one word. Each line of the answer is a
# whole word of the command line, a tab, and a description. Without an answer, the shell
# completes file names.

_BASH = r"""
# bash completion for onebox. Add to ~/.bashrc:
#   eval "$(onebox --print-completion-script bash)"
_onebox() {
    local typed="${COMP_LINE:0:COMP_POINT}" before="" word
    local last="${typed##*[[:space:]]}"
    # If "=" separates words, bash replaces only the part of the word after it.
    if [[ $COMP_WORDBREAKS == *=* && $last == *=* ]]; then
        before="${last%=*}="
    fi
    COMPREPLY=()
    while IFS=$'\t' read -r word _; do
        COMPREPLY+=("${word#"$before"}")
    done < <(onebox --complete -- "$typed" 2>/dev/null)
    compopt -o nosort 2>/dev/null
    if [[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace 2>/dev/null
    fi
}
complete -o default -F _onebox onebox
"""

_ZSH = r"""
#compdef onebox
# zsh completion for onebox. Add to ~/.zshrc:
#   eval "$(onebox --print-completion-script zsh)"
_onebox() {
    local answer line typed="${(j: :)words[1,CURRENT-1]} $PREFIX"
    local -a texts shown open open_shown
    answer="$(onebox --complete -- "$typed" 2>/dev/null)"
    for line in "${(@f)answer}"; do
        [[ -n $line ]] || continue
        if [[ ${line%%$'\t'*} == *= ]]; then
            open+=("${line%%$'\t'*}")
            open_shown+=("${line/$'\t'/  -- }")
        else
            texts+=("${line%%$'\t'*}")
            shown+=("${line/$'\t'/  -- }")
        fi
    done
    if (( ! ${#texts} && ! ${#open} )); then
        compset -P '*='
        _files
        return
    fi
    compadd -V onebox -l -d shown -a texts
    compadd -S '' -l -d open_shown -a open
}
if [[ $funcstack[1] == _onebox ]]; then
    _onebox "$@"
else
    (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
    compdef _onebox onebox
fi
"""

_FISH = r"""
# fish completion for onebox. Run once:
#   onebox --print-completion-script fish > ~/.config/fish/completions/onebox.fish
function __onebox_complete
    set -l typed (commandline --current-process --cut-at-cursor | string collect)
    set -l answer (onebox --complete -- "$typed" 2>/dev/null)
    if test (count $answer) -gt 0
        printf '%s\n' $answer
    else
        set -l word (commandline --current-token)
        set -l before (string match --regex -- '^-[^=]*=' $word)
        for path in (__fish_complete_path (string replace -- "$before" '' $word))
            echo "$before$path"
        end
    end
end
complete --command onebox --no-files --keep-order --arguments '(__onebox_complete)'
"""

SCRIPTS = {"bash": _BASH.lstrip(), "zsh": _ZSH.lstrip(), "fish": _FISH.lstrip()}
