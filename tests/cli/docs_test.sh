#!/bin/bash
# Every block of commands in README.md and docs/ (```sh) is run, or a line directly before it says
# why not, <!-- not run: REASON -->, by one of the reasons below. Other blocks have no commands.
#
#   docs_test.sh PROGRAM SCRATCH-FOLDER MPIEXEC [FLAG…]
#
# The blocks of a document are one shell, documents follow each other as docs/README.md leads to
# them, and all are run in one folder that looks like the tree with Trident built in it. A command
# that fails ends the test. Where a block of ```text follows, it is what the commands print, but for
# numbers and spaces; a line of … is any lines, … in a line any text.
#
# What would take long is shorter here than a reader has it, and in no other way different:
#   - a training has 2 steps, one of them to warm up, unless train.steps says 60 or fewer;
#   - verify follows 2 steps, calibrate measures as with --quick;
#   - examples/data/tinyshakespeare.txt is its first 20,000 bytes.
set -u
program=$(realpath -- "$1")
out=$(realpath -m -- "$2")/docs
mpiexec=("$(command -v -- "$3")" "${@:4}")
export TRIDENT_OF_THE_TEST=$program
root=$(realpath -- "$(dirname "$0")/../..")

reasons='builds Trident
takes minutes
needs root
needs a batch system'

# ---- the folder ---------------------------------------------------------------------------------

write_program() {
    cat >"$1" <<'END'
#!/bin/bash
words=("$@")
few='train\.steps=([1-9]|[1-5][0-9]|60)( |$)'
case "${1-}" in
    train)
        if ! [[ "$*" =~ $few ]]; then
            words=(train train.steps=2 train.warmup_steps=1)
            for word in "${@:2}"; do
                case "$word" in
                    train.steps=* | train.warmup_steps=*) ;;
                    *) words+=("$word") ;;
                esac
            done
        fi
        ;;
    verify) case " $* " in *' --steps '*) ;; *) words+=(--steps 2) ;; esac ;;
    calibrate) words+=(--quick) ;;
esac
exec "$TRIDENT_OF_THE_TEST" "${words[@]}"
END
    chmod +x "$1"
}

make_folder() {
    local file
    rm -rf "$out"
    mkdir -p "$out/bin" "$out/blocks" "$out/work/build/release/bin"
    for file in bench docs scripts tests tools CMakeLists.txt; do
        ln -s "$root/$file" "$out/work/$file"
    done
    cp -r "$root/examples" "$out/work/examples"
    head -c 20000 "$root/examples/data/tinyshakespeare.txt" \
        >"$out/work/examples/data/tinyshakespeare.txt"
    for file in "$(dirname "$program")"/*; do
        ln -s "$file" "$out/work/build/release/bin/"
    done
    rm "$out/work/build/release/bin/$(basename "$program")"
    write_program "$out/work/build/release/bin/trident"
    ln -s "$out/work/build/release/bin/trident" "$out/bin/trident"
    printf '#!/bin/sh\nexec %s "$@"\n' "$(printf '%q ' "${mpiexec[@]}")" >"$out/bin/mpiexec"
    chmod +x "$out/bin/mpiexec"
    ln -s mpiexec "$out/bin/mpirun"
}

# ---- the blocks ---------------------------------------------------------------------------------

# README.md and the documents, in the order of reading.
list_documents() {
    printf '%s\n' README.md docs/README.md
    grep -o ']([a-z-]*\.md)' "$1/docs/README.md" | sed 's/](/docs\//; s/)$//' | awk '!seen[$0]++'
}

# The blocks of the document $1: writes $2.N, and $2.N.text, what it is said to print, and prints
# "N LINE REASON" for each, REASON being "-" when it is to be run.
extract() {
    awk -v to="$2" '
        function close_block() {
            if (commands) {
                print body >(to "." count)
                close(to "." count)
                print count, line, reason
                waiting = 1
            } else if (text && waiting) {
                print body >(to "." count ".text")
                close(to "." count ".text")
                waiting = 0
            }
        }
        /^ *```/ && !open {
            open = 1
            word = $1
            plain = word == "```"
            commands = word ~ /^```(sh|bash|shell|zsh|console)$/
            text = word == "```text"
            if (commands) {
                count++
                line = NR
                reason = word == "```sh" ? "-" : word " in place of ```sh"
                if (last ~ /^<!-- not run: .* -->$/) {
                    reason = substr(last, 15, length(last) - 18)
                }
            }
            body = ""
            next
        }
        /^ *```/ {
            close_block()
            open = 0
            last = ""
            next
        }
        open {
            if (plain && $1 ~ /^(\$|trident|mpiexec|mpirun|scripts\/.*|cmake)$/) {
                count++
                print count, NR, "commands in a block without a language"
                plain = 0
            }
            body = body (body == "" ? "" : "\n") $0
            next
        }
        NF {
            last = $0
            waiting = 0
        }' "$1"
}

# Whether the lines of $2 are those that $1 has, but for numbers and spaces; else says which is
# missing.
compare() {
    awk '
        function plain(s) {
            gsub(/[0-9]+([.][0-9]+)?(e[-+]?[0-9]+)?/, "#", s)
            gsub(/[ \t]+/, " ", s)
            sub(/^ /, "", s)
            sub(/ $/, "", s)
            return s
        }
        function like(line, form, parts, n, i, at) {
            n = split(form, parts, "…")
            if (n == 1) {
                return line == form
            }
            for (i = 1; i <= n; i++) {
                at = index(line, parts[i])
                if (parts[i] != "" && (!at || (i == 1 && at != 1))) {
                    return 0
                }
                if (i == n) {
                    return parts[i] == "" ||
                           substr(line, length(line) - length(parts[i]) + 1) == parts[i]
                }
                if (parts[i] != "") {
                    line = substr(line, at + length(parts[i]))
                }
            }
        }
        FNR == NR {
            if (plain($0) != "") form[++forms] = plain($0)
            next
        }
        {
            if (plain($0) != "") line[++lines] = plain($0)
        }
        END {
            i = at = far = came = 1
            while (at <= lines) {
                if (i <= forms && form[i] == "…") {
                    any = i++
                    from = at
                } else if (i <= forms && like(line[at], form[i])) {
                    i++
                    at++
                    if (i > far) {
                        far = i
                        came = at
                    }
                } else if (any) {
                    i = any + 1
                    at = ++from
                } else {
                    break
                }
            }
            while (form[i] == "…") {
                i++
            }
            if (i <= forms || at <= lines) {
                far += form[far] == "…"
                print "expected: " (far <= forms ? form[far] : "no further line")
                print "printed:  " (came <= lines ? line[came] : "no further line")
                exit 1
            }
        }' "$1" "$2"
}

# ---- a document ---------------------------------------------------------------------------------

# $1: the blocks of a document, which is called $2. Prints what is wrong with their marks and writes
# the shell's commands.
write_commands() {
    local number line reason
    printf 'set -e -o pipefail\n' >"$1.sh"
    while read -r number line reason; do
        if [ "$reason" = - ]; then
            run=$((run + 1))
            {
                printf 'echo %s >%q\nexec >%q 2>&1\n' "$number" "$1.at" "$1.$number.said"
                cat "$1.$number"
            } >>"$1.sh"
        elif grep -qxF -- "$reason" <<<"$reasons"; then
            left_out=$((left_out + 1))
        else
            echo "$2:$line: not run for '$reason', which is none of: ${reasons//$'\n'/, }"
        fi
    done <"$1.list"
}

# Runs what is to be run of the document $2 of the folder $1, and prints what is wrong.
check_document() {
    local blocks=$out/blocks/${2//\//.} number line reason status at
    extract "$1/$2" "$blocks" >"$blocks.list"
    write_commands "$blocks" "$2"
    echo 0 >"$blocks.at"
    (cd "$out/work" && PATH=$out/bin:$PATH TRIDENT=$out/bin/trident bash "$blocks.sh" </dev/null)
    status=$?
    at=$(cat "$blocks.at")
    while read -r number line reason; do
        if [ $status -ne 0 ] && [ "$number" = "$at" ]; then
            echo "$2:$line: status $status; the last that it printed:"
            tail -n 15 "$blocks.$number.said" | sed 's/^/    /'
            return
        fi
        if [ "$reason" = - ] && [ -f "$blocks.$number.text" ] &&
            ! compare "$blocks.$number.text" "$blocks.$number.said" >"$out/differs"; then
            echo "$2:$line: prints something else than the document says"
            sed 's/^/    /' "$out/differs"
        fi
    done <"$blocks.list"
}

# All documents of the folder $1; what is wrong is in $out/wrong afterwards.
check_documents() {
    run=0
    left_out=0
    for document in $(list_documents "$1"); do
        check_document "$1" "$document"
    done >"$out/wrong"
}

# ---- this test can fail -------------------------------------------------------------------------

expect_wrong() {
    if ! grep -qF -- "$1" "$out/wrong"; then
        echo "of planted documents '$1' was to be said, but it was:"
        cat "$out/wrong"
        exit 1
    fi
}

plant_documents() {
    local planted=$out/planted
    mkdir -p "$planted/docs"
    printf '# Order\n[a](a.md), [b](b.md)\n[c](c.md)\n' >"$planted/docs/README.md"
    cat >"$planted/README.md" <<'END'
<!-- not run: takes minutes -->
```sh
exit 3
```
    ```yaml
    exit: 4
    ```
END
    cat >"$planted/docs/a.md" <<'END'
```sh
name=one
printf '%s 12.5 MB\nbetween\n1e-3 of two\nlast 3\n' "$name"
```

```text
one  7 MB
…
0.2 … two
last 44
```

```sh
test "$name" = one
```
END
    cat >"$planted/docs/b.md" <<'END'
<!-- not run: too dull -->
```bash
exit 5
```
```sh
echo three
```
```text
four
```
END
    cat >"$planted/docs/c.md" <<'END'
```sh
true
```
text between

```sh
echo here
false
```
```
trident help
```
```sh
touch never
```
END
    check_documents "$planted"
    expect_wrong "docs/b.md:2: not run for 'too dull', which is none of: builds Trident, takes"
    expect_wrong 'docs/b.md:5: prints something else than the document says'
    expect_wrong 'expected: four'
    expect_wrong 'docs/c.md:6: status 1; the last that it printed:'
    expect_wrong "docs/c.md:11: not run for 'commands in a block without a language'"
    if [ "$(grep -c '^[^ ]' "$out/wrong")" != 4 ] || [ "$run $left_out" != '6 1' ] ||
        [ -e "$out/work/never" ]; then
        echo "of planted documents more was said, or run ($run, $left_out):"
        cat "$out/wrong"
        exit 1
    fi
}

make_folder
plant_documents
check_documents "$root"
if [ -s "$out/wrong" ]; then
    cat "$out/wrong"
    exit 1
fi
echo "$run blocks run, $left_out not, as they say"
rm -r "$out"
