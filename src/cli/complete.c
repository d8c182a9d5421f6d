/* What shells complete: commands, options, keys of a config and the words these may be. The tables
 * become functions of the shell; how a line is read is the same text for every version. */
#include "cli/manual.h"
#include "config/schema.h"
#include "moe/strategies.h"

#include <string.h>

/* ---- tables ---------------------------------------------------------------------------------- */

/* Calls visit with each word that the key may be, where they can be listed. */
typedef void word_visitor(const char *word, FILE *out);

static int each_word(const struct tri_key *key, word_visitor *visit, FILE *out)
{
    const char *word;
    int count = 0;
    for (size_t i = 0; (word = tri_key_word(key, &tri_strategies, i)) != NULL; i++, count++) {
        visit(word, out);
    }
    if (key->type == TRI_KEY_BOOL) {
        visit("true", out);
        visit("false", out);
        count += 2;
    } else if (key->type == TRI_KEY_RECOMPUTE) {
        visit("none", out);
        visit("full", out);
        count += 2;
    }
    if (key->autos) {
        visit("auto", out);
        count++;
    }
    return count;
}

static void count_only(const char *word, FILE *out)
{
    (void)word;
    (void)out;
}

static void put_word(const char *word, FILE *out)
{
    (void)fprintf(out, " %s", word);
}

/* The words that an option's value may be, as the help has them: "--dtype f32|bf16|f16". Returns
 * their length, 0 where there are none, and where they begin. */
static size_t find_choices(const struct tri_command *command, const char *option, const char **at)
{
    size_t length = strlen(option);
    const char *found = command->help;
    while ((found = strstr(found, option)) != NULL) {
        found += length;
        if (*found == ' ') {
            size_t words = strspn(found + 1, "abcdefghijklmnopqrstuvwxyz0123456789_|");
            if (memchr(found + 1, '|', words)) {
                *at = found + 1;
                return words;
            }
        }
    }
    return 0;
}

static void put_choices(const char *choices, size_t length, FILE *out)
{
    for (size_t i = 0; i < length; i++) {
        (void)fputc(choices[i] == '|' ? ' ' : choices[i], out);
    }
}

static void put_commands(int traits, const char *between, FILE *out)
{
    const char *before = "";
    for (const struct tri_command *command = tri_commands; command->name; command++) {
        if ((command->traits & traits) == traits) {
            (void)fprintf(out, "%s%s", before, command->name);
            before = between;
        }
    }
}

static void put_keys(FILE *out)
{
    for (size_t i = 0; i < tri_keys_count; i++) {
        put_word(tri_keys[i].name, out);
    }
}

/* ---- bash, zsh ------------------------------------------------------------------------------- */

static void put_options_case(FILE *out)
{
    (void)fputs("# An option with a value ends in =.\n"
                "_trident_options()\n{\n    case $1 in\n",
                out);
    for (const struct tri_command *command = tri_commands; command->name; command++) {
        (void)fprintf(out, "        %s) echo '", command->name);
        for (const struct tri_option *option = command->options; option->name; option++) {
            (void)fprintf(out, "%s%s ", option->name, option->takes_value == true ? "=" : "");
        }
        (void)fputs("--help' ;;\n", out);
    }
    (void)fputs("        help) echo '--man --completion=' ;;\n    esac\n}\n\n", out);
}

static void put_words_case(FILE *out)
{
    (void)fputs(
        "# The words that a key or COMMAND:OPTION may be; none where it is a file or a "
        "number.\n"
        "_trident_words()\n{\n    case $1 in\n        help:--completion) echo bash zsh fish "
        ";;\n",
        out);
    for (const struct tri_command *command = tri_commands; command->name; command++) {
        for (const struct tri_option *option = command->options; option->name; option++) {
            const char *choices = NULL;
            size_t length = find_choices(command, option->name, &choices);
            if (length > 0) {
                (void)fprintf(out, "        %s:%s) echo ", command->name, option->name);
                put_choices(choices, length, out);
                (void)fputs(" ;;\n", out);
            }
        }
    }
    for (size_t i = 0; i < tri_keys_count; i++) {
        if (each_word(&tri_keys[i], count_only, out) > 0) {
            (void)fprintf(out, "        %s) echo", tri_keys[i].name);
            (void)each_word(&tri_keys[i], put_word, out);
            (void)fputs(" ;;\n", out);
        }
    }
    (void)fputs("    esac\n}\n\n", out);
}

static void put_tables(FILE *out)
{
    (void)fputs("_trident_commands='", out);
    put_commands(0, " ", out);
    (void)fputs(" help'\n_trident_keys='", out);
    put_keys(out);
    (void)fputs("'\n\n_trident_takes_keys()\n{\n    case $1 in\n        ", out);
    put_commands(TRI_TAKES_OVERRIDES, " | ", out);
    (void)fputs(") ;;\n        *) return 1 ;;\n    esac\n}\n\n", out);
    put_options_case(out);
    put_words_case(out);
}

/* readline cuts a line at = as well as at blanks, and replaces what stands behind the last cut. */
static const char bash_logic[] =
    "_trident()\n"
    "{\n"
    "    local line=${COMP_LINE:0:COMP_POINT} words word before command head='' choices=''\n"
    "    local files='' end=''\n"
    "    read -ra words <<<\"$line\"\n"
    "    case $line in\n"
    "        *[[:space:]]) words+=('') ;;\n"
    "    esac\n"
    "    word=${words[${#words[@]} - 1]}\n"
    "    before=${words[${#words[@]} - 2]}\n"
    "    command=${words[1]}\n"
    "    if [ ${#words[@]} -le 2 ]; then\n"
    "        choices=\"$_trident_commands --version\"\n"
    "    elif [[ $word == *=* ]]; then\n"
    "        head=${word%%=*}\n"
    "        word=${word#*=}\n"
    "        case $head in\n"
    "            -*) choices=$(_trident_words \"$command:$head\") ;;\n"
    "            *) choices=$(_trident_words \"$head\") ;;\n"
    "        esac\n"
    "        [ -n \"$choices\" ] || files=yes\n"
    "        head+='='\n"
    "        case $COMP_WORDBREAKS in\n"
    "            *=*) head='' ;;\n"
    "        esac\n"
    "    elif [[ \" $(_trident_options \"$command\") \" == *\" $before= \"* ]]; then\n"
    "        choices=$(_trident_words \"$command:$before\")\n"
    "        [ -n \"$choices\" ] || files=yes\n"
    "    elif [[ $word == -* ]]; then\n"
    "        choices=$(_trident_options \"$command\")\n"
    "        choices=${choices//=/}\n"
    "    elif [ \"$command\" = help ]; then\n"
    "        choices=\"$_trident_commands config\"\n"
    "    else\n"
    "        files=yes\n"
    "        if [ -n \"$word\" ] && _trident_takes_keys \"$command\"; then\n"
    "            choices=$_trident_keys\n"
    "            end='='\n"
    "        fi\n"
    "    fi\n"
    "    mapfile -t COMPREPLY < <(compgen -P \"$head\" -S \"$end\" -W \"$choices\" -- \"$word\")\n"
    "    if [ -n \"$end\" ] && [ ${#COMPREPLY[@]} -gt 0 ]; then\n"
    "        compopt -o nospace 2>/dev/null\n"
    "    elif [ -n \"$files\" ]; then\n"
    "        compopt -o filenames 2>/dev/null\n"
    "        mapfile -t COMPREPLY < <(compgen -P \"$head\" -f -- \"$word\")\n"
    "    fi\n"
    "}\n"
    "complete -F _trident trident\n";

static const char zsh_logic[] =
    "_trident()\n"
    "{\n"
    "    local command=$words[2] before=$words[CURRENT-1] head\n"
    "    local -a choices\n"
    "    if ((CURRENT == 2)); then\n"
    "        compadd -- ${=_trident_commands} --version\n"
    "    elif compset -P '*='; then\n"
    "        head=${IPREFIX%=}\n"
    "        [[ $head == -* ]] && head=$command:$head\n"
    "        choices=($(_trident_words $head))\n"
    "        if ((${#choices})); then compadd -a choices; else _files; fi\n"
    "    elif [[ \" $(_trident_options $command) \" == *\" $before= \"* ]]; then\n"
    "        choices=($(_trident_words $command:$before))\n"
    "        if ((${#choices})); then compadd -a choices; else _files; fi\n"
    "    elif [[ $PREFIX == -* ]]; then\n"
    "        choices=($(_trident_options $command))\n"
    "        compadd -- ${choices%=}\n"
    "    elif [[ $command == help ]]; then\n"
    "        compadd -- ${=_trident_commands} config\n"
    "    else\n"
    "        [[ -n $PREFIX ]] && _trident_takes_keys $command &&\n"
    "            compadd -q -S = -- ${=_trident_keys}\n"
    "        _files\n"
    "    fi\n"
    "}\n"
    "if [[ ${funcstack[1]} == _trident ]]; then\n"
    "    _trident \"$@\"\n"
    "else\n"
    "    compdef _trident trident\n"
    "fi\n";

/* ---- fish ------------------------------------------------------------------------------------ */

/* Between single quotes. */
static void put_quoted(const char *text, FILE *out)
{
    (void)fputc('\'', out);
    for (; *text; text++) {
        (void)fprintf(out, "%s%c", *text == '\'' || *text == '\\' ? "\\" : "", *text);
    }
    (void)fputc('\'', out);
}

static void put_fish_command(const struct tri_command *command, FILE *out)
{
    (void)fprintf(out, "complete -c trident -n __fish_use_subcommand -f -a %s -d ", command->name);
    put_quoted(command->summary, out);
    (void)fputc('\n', out);
    for (const struct tri_option *option = command->options; option->name; option++) {
        const char *choices = NULL;
        size_t length = find_choices(command, option->name, &choices);
        (void)fprintf(out, "complete -c trident -n '__fish_seen_subcommand_from %s' -l %s",
                      command->name, option->name + strlen("--"));
        if (length > 0) {
            (void)fputs(" -x -a '", out);
            put_choices(choices, length, out);
            (void)fputc('\'', out);
        } else if (option->takes_value == true) {
            (void)fputs(" -r", out);
        }
        (void)fputc('\n', out);
    }
}

static void put_fish_keys(FILE *out)
{
    (void)fputs("function __trident_keys\n    set -l token (commandline -ct)\n"
                "    switch $token\n        case ''\n            return\n",
                out);
    for (size_t i = 0; i < tri_keys_count; i++) {
        if (each_word(&tri_keys[i], count_only, out) > 0) {
            (void)fprintf(out, "        case '%s=*'\n            printf '%s=%%s\\n'",
                          tri_keys[i].name, tri_keys[i].name);
            (void)each_word(&tri_keys[i], put_word, out);
            (void)fputc('\n', out);
        }
    }
    (void)fputs("        case '*'\n            printf '%s=\\n'", out);
    put_keys(out);
    (void)fputs("\n    end\nend\n", out);
}

static void print_fish(FILE *out)
{
    put_fish_keys(out);
    for (const struct tri_command *command = tri_commands; command->name; command++) {
        put_fish_command(command, out);
    }
    (void)fputs("complete -c trident -n __fish_use_subcommand -f -a help -d 'what a command does'\n"
                "complete -c trident -n __fish_use_subcommand -f -l version\n"
                "complete -c trident -n '__fish_seen_subcommand_from help' -f -a 'config ",
                out);
    put_commands(0, " ", out);
    (void)fputs("'\ncomplete -c trident -n '__fish_seen_subcommand_from ", out);
    put_commands(TRI_TAKES_OVERRIDES, " ", out);
    (void)fputs("' -a '(__trident_keys)'\n", out);
}

bool tri_completion_print(const char *shell, FILE *out)
{
    bool bash = strcmp(shell, "bash") == 0;
    bool zsh = strcmp(shell, "zsh") == 0;
    if (!bash && !zsh && strcmp(shell, "fish") != 0) {
        return false;
    }
    (void)fprintf(out, "%s# Completion of trident; written by `trident help --completion %s`.\n",
                  zsh ? "#compdef trident\n" : "", shell);
    if (bash || zsh) {
        put_tables(out);
        (void)fputs(bash ? bash_logic : zsh_logic, out);
    } else {
        print_fish(out);
    }
    return true;
}
