#!/bin/bash
# pages_test.sh PREFIX SOURCE BUILD: the program, pages and completions of an installation. A page
# has every word that `trident help` has, in its order, and renders without a warning; bash, and zsh
# and fish where they are, complete what the tables have; nothing but the docs names the folders
# where it was built.
set -euo pipefail
prefix=$1 source=$2 build=$3
trident=$prefix/bin/trident
scratch=$build/tests/tmp/pages
rm -rf "$scratch"
mkdir -p "$scratch"
cd "$scratch"

fail() {
    echo "pages_test: $*" >&2
    exit 1
}

# ---- pages

# The words of a page's text, as one line each: roff's requests and escapes gone.
page_words() {
    sed -e '/^\.SH SEE ALSO/,$d' -e '1,/^trident.* \\- /d' -e '/^\./d' -e 's/\\fB//g; s/\\fR//g' \
        -e 's/\\&//g; s/\\-/-/g; s/\\e/\\/g; s/\\\[u2026\]/…/g; s/\\\[u00D7\]/×/g' "$1" |
        tr -s '[:space:]' '\n' | grep -v '^$'
}

# same_words PAGE TEXT-FILE
same_words() {
    page_words "$1" >page.words
    tr -s '[:space:]' '\n' <"$2" | grep -v '^$' >help.words
    cmp page.words help.words || fail "$1 is not what help says: $(diff page.words help.words |
        head -n 5)"
}

man=$prefix/share/man
"$trident" help | sed 's/^usage: //' >help.all
same_words "$man/man1/trident.1" help.all
commands=$("$trident" help | sed -n 's/^  \([a-z]*\)  .*/\1/p' | grep -v '^help$')
[ "$(wc -w <<<"$commands")" -ge 10 ] || fail "help lists $commands"
for command in $commands; do
    "$trident" help "$command" >help.text
    same_words "$man/man1/trident-$command.1" help.text
done
"$trident" help config >help.text
same_words "$man/man5/trident-config.5" help.text
[ "$(find "$man" -type f | wc -l)" -eq $((2 + $(wc -w <<<"$commands"))) ] || fail "other pages"
for page in "$man"/man?/*; do
    if command -v man >/dev/null && man --help 2>/dev/null | grep -q -- --warnings; then
        said=$(LC_ALL=C.UTF-8 MANROFFSEQ='' man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 \
            >/dev/null)
        [ -z "$said" ] || fail "$page: $said"
    fi
    if command -v mandoc >/dev/null; then
        said=$(mandoc -Tlint -W warning "$page" 2>&1) || fail "$page: $said"
    fi
done

# ---- completions

completions=$prefix/share/bash-completion/completions/trident
# shellcheck disable=SC1090 # made by the build
source "$completions"

# completed LINE: what bash would complete, a line each
completed() {
    COMP_LINE=$1 COMP_POINT=${#1} COMPREPLY=()
    _trident
    [ ${#COMPREPLY[@]} -eq 0 ] || printf '%s\n' "${COMPREPLY[@]}"
}

# expect LINE WORD…: exactly these
expect() {
    local line=$1
    shift
    [ "$(completed "$line" | sort)" = "$(printf '%s\n' "$@" | sort)" ] ||
        fail "[$line] completes to $(completed "$line" | tr '\n' ' '), expected $*"
}

# shellcheck disable=SC2086 # words
expect 'trident ' $commands help --version
expect 'trident tra' train
expect 'trident train --fr' --fresh
dtypes=$("$trident" help export | sed -n 's/.*\[--dtype \([a-z0-9_|]*\)\].*/\1/p' | tr '|' ' ')
expect 'trident export run dir --dtype ' $dtypes
expect 'trident export run dir --dtype=b' bf16
expect 'trident train c.yaml reproducible=t' true
expect 'trident help --completion ' bash zsh fish
touch file.yaml
expect 'trident train fil' file.yaml
expect 'trident train run_dir=fil' file.yaml
for command in $commands; do
    options=$(completed "trident $command --")
    [ -n "$options" ] || fail "$command has no options"
    for option in $options; do
        [ "$option" = --help ] || "$trident" help "$command" | grep -q -- "$option" ||
            fail "help $command says nothing of $option"
    done
done
keys=$("$trident" help config | sed -n 's/^  \([a-z_]*\.[a-z0-9_.]*\)  .*/\1=/p')
[ "$(wc -w <<<"$keys")" -gt 100 ] || fail "help config lists $(wc -w <<<"$keys") keys"
mapfile -t sections < <(cut -d. -f1 <<<"$keys" | sort -u)
for section in "${sections[@]}"; do
    # shellcheck disable=SC2046
    expect "trident train c.yaml $section." $(grep "^$section\." <<<"$keys")
done
# shellcheck disable=SC2046
expect 'trident eval run moe.router=' \
    $("$trident" help config | sed -n 's/^  moe\.router  \([^ ]*\) .*/\1/p' | tr '|' ' ')

# A Tab on a terminal: readline itself cuts the line and asks.
if command -v script >/dev/null; then
    printf 'source %s\ntrident train c.yaml moe.router=sp\t\001echo \nexit\n' "$completions" >keys
    said=$(TERM=dumb timeout 20 script -qec 'bash --norc --noprofile -i' /dev/null <keys |
        tr -d '\r')
    grep -q '^trident train c.yaml moe.router=sparsemixer' <<<"$said" ||
        fail "after a Tab bash said $said"
fi
if command -v zsh >/dev/null; then
    zsh -n "$prefix/share/zsh/site-functions/_trident"
fi
if command -v fish >/dev/null; then
    said=$(fish --no-config -c "source $prefix/share/fish/vendor_completions.d/trident.fish
        complete -C 'trident train moe.router=spar'; complete -C 'trident help pla'")
    grep -q '^moe.router=sparsemixer$' <<<"$said" || fail "fish completes $said"
    grep -q '^plan' <<<"$said" || fail "fish completes $said"
fi

# ---- where it was built

for file in "$trident" "$prefix"/lib*/libtrident.a "$prefix"/lib*/cmake/trident/* \
    "$prefix"/lib*/pkgconfig/trident.pc; do
    [ -e "$file" ] || continue
    if strings -a "$file" | grep -F -e "$source/" -e "$build/"; then
        fail "$file names the folder that it was built in"
    fi
done
! readelf -d "$trident" | grep -F -e "$source" -e "$build" || fail "its run path"
