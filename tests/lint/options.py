#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The options that --help, the manual page, the completion and the README have are those of the
program, with the same values; --help fits on a screen. Likewise for the helper of mount(8).

The program is asked: what it calls an option's values when it refuses one, and whether it takes each
that is written of. Only the names of all that it knows are read from its source."""
import os
import re
import subprocess
import sys

PROGRAM = os.environ["VIRTSNAPFS"]
COMPLETION = "mount-helpers/virtsnapfs.bash"
# 80 columns are what terminals have at least. All options in 24 lines would be none explained; these
# are what a maximized window has on a screen of 1080 lines with fonts of the usual size.
COLUMNS, LINES = 80, 54
# A value of each kind that is not a list of words.
SAMPLES = {"TIME": "5m", "N": "1", "BYTES": "64M", "DIR": "/", "OCTAL": "027", "NAME": "x"}

faults = []


def complain(text):
    faults.append(text)
    print(text)


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def run(*arguments):
    return subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=60,
                          check=False, stdin=subprocess.DEVNULL)


def between(text, begin, end, what):
    """The text behind @begin up to @end, both patterns."""
    found = re.search(f"{begin}(.*?){end}", text, re.S | re.M)
    if not found:
        sys.exit(f"{what} is not found: this test wants to be changed with it")
    return found.group(1)


def options_of_source():
    """{name: whether it has a value}, {letter}."""
    table = between(read("fs/option.c"), r"^static const struct option known\[\] = \{", r"^\};",
                    "the table of options")
    names = {name: has_value == "true"
             for name, has_value in re.findall(r'\{"(\w+)", (true|false), \w+\}', table)}
    switch = between(read("fs/options.c"), r"^static int apply_letters\(", r"^\}", "the letters")
    if len(names) != table.count('{"'):
        sys.exit("a line of the table of options was not understood")
    return names, set(re.findall(r"case '(\w)'", switch))


def words_of_program(name):
    """The words that the option may have as it says when it refuses another, as in "raw|qcow2";
    None if they are not a list."""
    said = run("-o", f"{name}=?", "--version").stderr
    words = re.search(r"'\?' is not ((?:\w+, )*\w+ or \w+)$", said.strip())
    return "|".join(re.split(", | or ", words.group(1))) if words else None


def options_of_help(text):
    """{name: values or None}, as in "--help": all that begin with "-", and the named ones."""
    head, _, rest = text.partition("\nOptions, as -o NAME=VALUE or --NAME=VALUE")
    if not rest:
        sys.exit("--help has no list of options: this test wants to be changed with it")
    usage, _, letters = head.partition("\n\n")
    plain = dict.fromkeys(re.findall(r"(?<![\w-])(--?[a-zA-Z_]+)", usage + letters))
    named = {}
    for line in rest.split("\n")[1:]:
        if re.match(r"  \w", line):
            for word in line[2:].split("  ")[0].split():
                name, sign, values = word.partition("=")
                named[name] = values if sign else None
    return plain, named


def options_of_page(path, title):
    """The same of the terms that are explained in a section of a manual page."""
    section = between(read(path), rf"^{title}\n=+\n", r"\n\n[^\n]+\n==", f"{title} in {path}")
    plain, named = {}, {}
    for line in re.findall(r"^([^\s].*)\n    \S", section, re.M):
        for term in line.replace("\\", "").split(", "):
            if term.startswith("-"):
                plain[term.split()[0]] = None
            elif re.fullmatch(r"\w+(=\S+)?", term):
                name, sign, values = term.partition("=")
                named[name] = values if sign else None
    return plain, named


def complete(*words):
    """What bash would offer for the last one."""
    script = """
        . "$1" && shift
        COMP_WORDBREAKS=$' \\t\\n' COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE="$*"
        COMP_POINT=${#COMP_LINE}
        _virtsnapfs "$1"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    done = subprocess.run(["bash", "-c", script, "-", COMPLETION, PROGRAM, *words], timeout=60,
                          capture_output=True, text=True, check=True)
    if done.stderr:
        complain(f"{COMPLETION} says: {done.stderr}")
    return done.stdout.split()


def values_of_completion(*words):
    # (One with a "|" in it is none.)
    return "|".join(w.partition("=")[2].replace("|", "?") for w in complete(*words))


def options_of_completion():
    plain = dict.fromkeys(complete("-"))
    named = {}
    for word in complete("-o", ""):
        name, sign, _ = word.partition("=")
        values = values_of_completion("-o", word) if sign else None
        if sign and values != values_of_completion("--" + word):
            complain(f"{COMPLETION}: --{name}= has other values than -o {name}=")
        named[name] = values
        if "--" + word not in plain:
            complain(f"{COMPLETION}: --{word} is missing")
        plain.pop("--" + word, None)
    return plain, named


def compare(where, found, wanted):
    for name in sorted(wanted.keys() - found.keys()):
        complain(f"{where}: '{name}' is missing")
    for name in sorted(found.keys() - wanted.keys()):
        complain(f"{where}: the program does not know '{name}'")
    for name in sorted(found.keys() & wanted.keys()):
        if found[name] != wanted[name]:
            complain(f"{where}: '{name}' has '{found[name]}', the program '{wanted[name]}'")


def check_taken(where, named):
    """Each with each of its values, or one of its kind."""
    for name, values in named.items():
        for value in SAMPLES.get(values, values or "").split("|"):
            word = f"{name}={value}" if values else name
            done = run("-o", word, "--version")
            if done.returncode:
                complain(f"{where}: the program refuses '{word}': {done.stderr.strip()}")


def check_readme(names):
    table = between(read("README.md"), r"^## Options\n", r"^## ", "the options of the README")
    found = {name: None for name in re.findall(r"`(\w+)(?:=[^`]*)?`", "".join(
        re.findall(r"^\|((?:\\.|[^\\|\n])*)\|", table, re.M)))}
    compare("README.md", found, dict.fromkeys(names))


def check_helper():
    letters = between(read("fs/helper.c"), r'getopt\(argc, argv, "-:', r'"', "letters of the helper")
    wanted = dict.fromkeys("-" + letter for letter in letters.replace(":", ""))
    text = "".join(re.findall(r'"(.*?)"', between(
        read("fs/helper.c"), r"^void helper_print_help\(.*?\)\n", r"^\}", "the helper's help")))
    usage = re.sub(r"\[-(\w+)\]", lambda m: " ".join("-" + c for c in m.group(1)), text)
    compare("help of the helper", dict.fromkeys(re.findall(r"(?<![\w-])(-\w)\b", usage)), wanted)
    plain, _ = options_of_page("docs/man/mount.virtsnapfs.8.rst", "OPTIONS")
    compare("mount.virtsnapfs.8.rst", plain, wanted)


def main():
    names, letters = options_of_source()
    text = run("--help").stdout
    lines = text.split("\n")[:-1]
    for line in lines:
        if len(line) > COLUMNS:
            complain(f"--help: more than {COLUMNS} columns: {line}")
    if len(lines) > LINES:
        complain(f"--help: {len(lines)} lines, {LINES} are allowed")

    plain, named = options_of_help(text)
    wanted_plain = dict.fromkeys(["-" + letter for letter in letters] +
                                 ["--" + name for name in names if name not in named])
    for name in [name for name in names if "--" + name in wanted_plain and names[name]]:
        complain(f"--help: '{name}' has a value, and is not in the list")
    compare("--help", plain, wanted_plain)
    wanted = {}
    for name in [name for name in names if "--" + name not in plain]:
        kind = named.get(name) if named.get(name) in SAMPLES else "a kind of value"
        wanted[name] = (words_of_program(name) or kind) if names[name] else None
    compare("--help", named, wanted)
    check_taken("--help", named)

    page = options_of_page("docs/man/virtsnapfs.1.rst", "OPTIONS")
    compare("virtsnapfs.1.rst", page[0], wanted_plain)
    compare("virtsnapfs.1.rst", page[1], wanted)

    completed = options_of_completion()
    compare(COMPLETION, completed[0], wanted_plain)
    # (Folders and the like are offered as they come.)
    compare(COMPLETION, {name: values if values is None or "|" in (wanted.get(name) or "")
                         else wanted.get(name) for name, values in completed[1].items()}, wanted)
    check_readme(list(wanted))
    check_helper()
    print(f"{len(names)} options, {len(letters)} letters, {len(lines)} lines of help")
    return 1 if faults else 0


sys.exit(main())
