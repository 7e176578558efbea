#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""The messages in docs/troubleshooting.md are those of the program: each in the first column of a table
headed "message" is a format of the sources, word for word, but for what is put in; the errno beside it is
the one that programs see, where the source says it at that place; the tests that are named exist.

messages.py SAID        prints the errno and the message of the row by which a person finds what the program
                        said; fails if there is none, or more than one
messages.py --of TEST   the messages that the page says TEST brings about

The tests named troubleshooting* ask so about what they got to see; of others it is enough that some words of
the message stand in them."""
import errno
import glob
import os
import re
import sys

PAGE = "docs/troubleshooting.md"
LITERALS = re.compile(r'(?:(-E[A-Z]+),\s*)?((?:"(?:\\.|[^"\\\n])*"\s*(?:PRI\w+\s*)?)+)')
CONVERSION = re.compile(r"%[-+ #0]*[0-9*]*(?:\.[0-9*]*)?(?:hh|h|ll|l|z|j)?[a-zA-Z]")
# On the page, what is put in is in capitals. A word that the program has in capitals is taken for that,
# too; nobody tells apart two messages by it.
PLACE = re.compile(r"\b[A-Z][A-Z_0-9-]*\b")
HOLE = "\0"


def read(path):
    with open(path, encoding="utf-8") as f:
        return f.read()


def shape(text):
    return re.sub(f"{HOLE}+", HOLE, PLACE.sub(HOLE, text))


def formats_of(text):
    """(errno or None, format) of each string in a source."""
    for code, literals in LITERALS.findall(text):
        text = "".join(part[1:-1] if part[0] == '"' else "s"
                       for part in re.findall(r'"(?:\\.|[^"\\])*"|PRI\w+', literals))
        yield code, text.replace('\\"', '"').replace("\\n", "\n")


def shapes_of_source():
    shapes = {}
    for path in glob.glob("fs/**/*.[ch]", recursive=True) + glob.glob("qcow/**/*.[ch]", recursive=True):
        for code, text in formats_of(read(path)):
            key = shape(CONVERSION.sub(HOLE, text).replace("%%", "%"))
            shapes.setdefault(key, set()).add(code)
    return shapes


def what_programs_see():
    """errno of the source -> errno of a program, as fs/fuse/reply.c says."""
    seen, waiting = {}, []
    for case, answer in re.findall(r"case -(E\w+):|return (E\w+);", read("fs/fuse/reply.c")):
        if case:
            waiting.append(case)
        else:
            seen.update(dict.fromkeys(waiting, answer))
            waiting = []
    return seen


def rows():
    """{heading: cell}, of each row of each table; its first column is what it is about."""
    heading = None
    for number, line in enumerate(read(PAGE).split("\n"), 1):
        if not line.startswith("|"):
            heading = None
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        if heading is None:
            heading = cells
        elif not re.fullmatch(r"[-:]+", cells[0]):
            yield number, dict(zip(heading, cells))


def messages_of(cell):
    return [text.replace("\\|", "|") for text in re.findall(r"`([^`]+)`", cell)]


def check_errno(code, wanted, seen):
    """@wanted are those that the sources have for the message; None among them: not said there."""
    if None in wanted or "" in wanted:
        return hasattr(errno, code)
    names = {seen.get(name[1:], name[1:]) for name in wanted}
    return getattr(errno, code, None) in {getattr(errno, name) for name in names}


def fault_of_test(name, message):
    """A test that says twelve characters of the message on end knows of it."""
    paths = [path for path in (f"tests/{name}.sh", f"tests/{name}.c") if os.path.exists(path)]
    if not paths:
        return f"no test {name}"
    if os.path.basename(name).startswith("troubleshooting"):
        return None
    text = re.sub(r'"\s*"', "", read(paths[0])).replace(".*", "")
    parts = [part[i:i + 12] for part in shape(message).split(HOLE) for i in range(len(part) - 11)]
    return None if any(part in text for part in parts) else f"{name} does not speak of: {message}"


def faults_of_row(row, shapes, seen):
    messages = messages_of(row["message"])
    if not messages:
        yield f"no message in backquotes: {row['message']}"
    for message in messages:
        codes = shapes.get(shape(message))
        if codes is None:
            yield f"the program has no such message: {message}"
        elif row.get("error") and not check_errno(row["error"], codes, seen):
            yield f"{message}: the source says {', '.join(sorted(codes))}, not {row['error']}"
    for name in messages_of(row.get("tried by", "")):
        fault = fault_of_test(name, messages[0])
        if fault:
            yield fault


def check():
    shapes, seen = shapes_of_source(), what_programs_see()
    n_messages = n_faults = 0
    for number, row in rows():
        if "message" in row:
            n_messages += len(messages_of(row["message"]))
            faults = list(faults_of_row(row, shapes, seen))
        elif "a program says" in row:
            text, code = re.fullmatch(r"(.*) \((E\w+)\)", row["a program says"]).groups()
            faults = [] if os.strerror(getattr(errno, code)) == text else [f"{code} is not '{text}'"]
        else:
            continue
        n_faults += len(faults)
        for fault in faults:
            print(f"{PAGE}:{number}: {fault}")
    print(f"{n_messages} messages, {n_faults} faults")
    return 1 if n_faults or n_messages < 30 else 0


def find(said):
    """Rows with a message that is part of @said."""
    for _, row in rows():
        for message in messages_of(row.get("message", "")):
            pattern = re.escape(shape(message)).replace(re.escape(HOLE), HOLE).replace(HOLE, ".+")
            if re.search(pattern, said):
                yield message, row.get("error", "")


def main():
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    if len(sys.argv) == 1:
        return check()
    if len(sys.argv) == 3:
        for _, row in rows():
            if "message" in row and sys.argv[2] in messages_of(row.get("tried by", "")):
                print("\n".join(messages_of(row["message"])))
        return 0
    found = list(find(sys.argv[1]))
    # What only goes around another message is not what one is looking for.
    inner = [row for row in found if not row[0].endswith("REASON")]
    found = inner or found
    for message, code in found:
        print(code or "-", message)
    if len(found) != 1:
        print(f"{len(found)} rows of {PAGE} for: {sys.argv[1]}", file=sys.stderr)
    return len(found) != 1


if __name__ == "__main__":
    sys.exit(main())
