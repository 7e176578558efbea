#!/usr/bin/env python3
# SPDX-License-Identifier: LGPL-2.1-or-later
"""Static analysis: no finding but those that a comment at their line calls wrong, with a reason.

    tests/lint/analyze.py clang-tidy|clang-analyzer|gcc-analyzer|cppcheck BUILD [FILE...]
    tests/lint/analyze.py planted BUILD

BUILD is a meson build folder: its compile_commands.json says how files are compiled. With FILEs,
all that the tool says of them is printed, with the path to each finding. clang's analyzer looks at
the program only, and into all of it if ANALYZE_LONG is set; gcc's looks at tests only then. "planted"
checks that each tool finds what tests/lint/planted/ has for it, and nothing else there.

A wrong finding is marked behind the code of its line, or in the line above:

    /* lint: gcc-analyzer/malloc-leak: what is stored at a computed index is lost from sight */

A mark for which nothing is found any more is a fault, too.
"""
import collections
import concurrent.futures
import json
import os
import re
import shlex
import shutil
import subprocess
import sys

import cleanups

Finding = collections.namedtuple("Finding", "path line kinds text")

Fault = collections.namedtuple("Fault", "path line kind text")

# "PATH:LINE:COLUMN: warning: TEXT [KIND]"; errors of gcc have no kind
FINDING = re.compile(r"^([^\s:]+):(\d+):(?:\d+:)? "
                     r"(fatal error|error|warning|style|performance|portability|note): "
                     r"(.*?)(?: \[([^\]\s]+)\])?$")
MARK = re.compile(r"/\* lint: ([a-z-]+)/([\w.-]+): ")

PROGRAM = ("qcow/", "fs/")
TESTS = ("tests/",)
PLANTED = "tests/lint/planted/"
PLANT = re.compile(r"/\* plant: (.*?) \*/")


def model(path):
    """What the analyzers cannot know, as arguments."""
    return ["-include", "tests/lint/model.h"] + \
        (["-DMODEL_CMOCKA"] if path.startswith("tests/unit/") else [])


IS_LONG = bool(os.environ.get("ANALYZE_LONG"))


class Tool:
    """The version is that of Debian 12, since others find other things."""

    def __init__(self, program, version, parts):
        self.program = program
        self.version = version
        self.parts = parts  # of the sources

    def commands(self, files, arguments):
        """One for each file; arguments: {path: what the compiler gets}"""
        # Programs for guests are in no build.
        default = ["-std=gnu17", "-D_GNU_SOURCE", "-I."]
        return [self.command(path, arguments.get(path, default))
                for path in files if path.endswith(".c")]

    def command(self, path, arguments):
        raise NotImplementedError

    def short_kind(self, kind):
        return kind

    def is_wrong(self, _finding, _notes):
        """notes: [(path, line, text)] on the way to it"""
        return False


class ClangTidy(Tool):
    """The checks of .clang-tidy, which look at one place at a time."""

    checks = "-clang-analyzer-*"  # a test of its own, below

    def command(self, path, arguments):
        return [self.program, "--quiet", f"--checks={self.checks}", path, "--", *arguments,
                "-Wno-unknown-warning-option", "-Wno-ignored-optimization-argument"]


class ClangAnalyzer(ClangTidy):
    """clang's analyzer, which goes through the paths of each function."""

    # DeprecatedOrUnsafeBufferHandling wants memcpy_s() and others of C11's annex K, which glibc
    # does not have. Padding would sort fields by size; they stand by who guards them.
    checks = "-*,clang-analyzer-*,-clang-analyzer-optin.performance.Padding," \
        "-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling"

    def command(self, path, arguments):
        # However deep in calls it is, the analyzer is to see that error_set() gives an error. The
        # number of states of a function that it looks at is a third of what clang would take.
        config = "ipa-always-inline-size=6" + ("" if IS_LONG else ",max-nodes=75000")
        return super().command(path, arguments) + \
            [*model(path), "-Xclang", "-analyzer-config", "-Xclang", config]

    def short_kind(self, kind):
        return kind.removeprefix("clang-analyzer-")

    def is_wrong(self, finding, notes):
        return re.match(r"Potential (memory leak|leak of memory)", finding.text) and \
            cleanups.is_cleaned(*finding[:2], finding.text, notes)


class GccAnalyzer(Tool):
    """gcc's analyzer, and the warnings of an optimized build."""

    def command(self, path, arguments):
        # In tests, which run, the sanitizers see leaks better; and no memory ends them anyway.
        less = [f"-Wno-analyzer-{kind}" for kind in (
            "malloc-leak", "possible-null-argument", "possible-null-dereference")
            if path.startswith(TESTS) and not path.startswith(PLANTED)]
        return [self.program, *arguments, *model(path), "-O2", "-fanalyzer", *less,
                "-fdiagnostics-plain-output", "-S", "-o", "/dev/null", path]

    def short_kind(self, kind):
        return re.sub(r"^-W(analyzer-)?", "", kind).rstrip("=")


class Cppcheck(Tool):
    """One command for all files."""

    def commands(self, files, _arguments):
        return [[
            self.program, "--quiet", f"-j{os.cpu_count()}", "--std=c11", "--library=posix",
            "--enable=warning,performance,portability,style",
            "--template={file}:{line}: {severity}: {message} [{id}]",
            # What it cannot read: the cleanup attribute (to it, a static variable need not be
            # freed, either), expressions made of statements, system headers.
            "-Dauto_free=static", "-Dauto_close=static", "-Dauto_stream=static", "-Dtake_ptr(var)=(var)",
            f"--include={find_header('sys/queue.h')}",
            "-D_GNU_SOURCE", "-D_FILE_OFFSET_BITS=64", "-I.",
            *(path for path in files if path.endswith(".c"))]]


TOOLS = {
    "clang-tidy": ClangTidy("clang-tidy-14", " 14.", PROGRAM + TESTS),
    "clang-analyzer": ClangAnalyzer("clang-tidy-14", " 14.", PROGRAM),
    "gcc-analyzer": GccAnalyzer("gcc-12", " 12.", PROGRAM + (TESTS if IS_LONG else ())),
    "cppcheck": Cppcheck("cppcheck", " 2.10", PROGRAM + TESTS),
}


def find_header(name):
    output = subprocess.run(["cc", "-M", "-x", "c", "-"], input=f"#include <{name}>\n".encode(),
                            capture_output=True, check=True).stdout.decode()
    return next(word for word in output.split() if word.endswith("/" + name))


def list_files(parts):
    files = subprocess.run(["tests/lint/files.sh"], capture_output=True, check=True)
    return [path for path in files.stdout.decode().split("\0")
            if path.startswith(parts) and path.endswith((".c", ".h"))
            and path.startswith(PLANTED) == (parts == (PLANTED,))]


def read_arguments(build):
    """{path: what is independent of the kind of build in its compiler's arguments}"""
    arguments = {}
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as f:
        for entry in json.load(f):
            folder = entry["directory"]
            path = os.path.relpath(os.path.join(folder, entry["file"]))
            words = [w for w in shlex.split(entry["command"])
                     if re.match(r"-([DUW]|std=)", w) and
                     not re.match(r"-Werror|-D_FORTIFY_SOURCE|-U_FORTIFY_SOURCE", w)]
            folders = [w[2:] for w in shlex.split(entry["command"]) if w.startswith("-I")]
            words += ["-I" + os.path.join(folder, f) for f in folders]
            arguments[path] = words
    return arguments


def read_marks(path):
    """Yields (line, tool's name, kind): the line that is marked is the next one with code."""
    with open(path, encoding="utf-8") as f:
        lines = f.read().split("\n")
    for i, line in enumerate(lines):
        mark = MARK.search(line)
        if not mark:
            continue
        target = i
        if line.lstrip().startswith("/*"):
            while "*/" not in lines[target] or MARK.search(lines[target + 1]):
                target += 1
            target += 1
        yield target + 1, *mark.groups()


def run(command):
    """Its output, and whether it ended well."""
    result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                            stdin=subprocess.DEVNULL, check=False)
    return result.stdout.decode(errors="replace"), result.returncode == 0


def run_all(commands):
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(run, commands))


def find(tool, output):
    """The findings that a tool's output has, but for those that it is known to be wrong in."""
    found = []
    for line in output.split("\n"):
        match = FINDING.match(line)
        if not match:
            continue
        path = os.path.relpath(os.path.realpath(match.group(1)))
        number, level, text, kind = match.groups()[1:]
        if level == "note":
            if found:
                found[-1][1].append((path, int(number), text))
        elif kind or level.endswith("error"):
            kinds = tuple(tool.short_kind(k) for k in (kind or "error").split(","))
            found.append((Finding(path, int(number), kinds, text), []))
    # (What is above is in a system header.)
    return [finding for finding, notes in found
            if not finding.path.startswith("../") and not tool.is_wrong(finding, notes)]


def judge(tool_name, files, results):
    """Yields the faults."""
    tool = TOOLS[tool_name]
    findings = {finding for output, _ in results for finding in find(tool, output)}
    marks = {(path, line, kind) for path in files for line, name, kind in read_marks(path)
             if name == tool_name or name not in TOOLS}
    needed = set()
    for finding in sorted(findings):
        marked = {(finding.path, finding.line, kind) for kind in finding.kinds} & marks
        needed |= marked
        if not marked:
            yield Fault(finding.path, finding.line, ",".join(finding.kinds), finding.text)
    for path, line, kind in sorted(marks - needed):
        yield Fault(path, line, "unneeded-mark", f"marked for {kind}, which is not found")
    for output, has_ended_well in results:
        if not has_ended_well and not find(tool, output):
            yield Fault("", 0, "failed", output)


def analyze(tool_name, files, arguments):
    # The largest first, so that no processor waits for another one at the end.
    files = sorted(files, key=os.path.getsize, reverse=True)
    return list(judge(tool_name, files, run_all(TOOLS[tool_name].commands(files, arguments))))


def check_planted(arguments):
    """The number of findings that are missing or too many in tests/lint/planted/."""
    files = list_files((PLANTED,))
    expected, got = set(), set()
    for path in files:
        with open(path, encoding="utf-8") as f:
            for number, line in enumerate(f, 1):
                for plants in PLANT.findall(line):
                    # Alone on its line, it means the next one.
                    target = number + line.lstrip().startswith("/*")
                    expected |= {(path, target, plant) for plant in plants.split(", ")}
    for name in TOOLS:
        got |= {(fault.path, fault.line, f"{name}/{kind}")
                for fault in analyze(name, files, arguments) for kind in fault.kind.split(",")}
    for path, line, kind in sorted(expected ^ got):
        what = "found" if (path, line, kind) in got else "not found"
        print(f"{path}:{line}: {kind}: {what}")
    missing = {name for name in TOOLS
               if not any(kind.startswith(name + "/") for _, _, kind in expected)}
    for name in sorted(missing):
        print(f"nothing is planted for {name}")
    print(f"{len(expected)} planted in {len(files)} files")
    return len(expected ^ got) + len(missing)


def is_missing(tool):
    if shutil.which(tool.program) and tool.version in run([tool.program, "--version"])[0]:
        return False
    print(f"skipped: no {tool.program} of version{tool.version}")
    return True


def main():
    if len(sys.argv) < 3 or sys.argv[1] not in (*TOOLS, "planted"):
        print(__doc__, file=sys.stderr)
        return 1
    name = sys.argv[1]
    build = os.path.realpath(sys.argv[2])
    chosen = [os.path.realpath(path) for path in sys.argv[3:]]
    os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", ".."))
    tools = list(TOOLS.values()) if name == "planted" else [TOOLS[name]]
    if any([is_missing(tool) for tool in tools]):
        return 77
    arguments = read_arguments(build)
    if name == "planted":
        return 1 if check_planted(arguments) else 0
    if chosen:
        chosen = [os.path.relpath(path) for path in chosen]
        for output, _ in run_all(tools[0].commands(chosen, arguments)):
            print(output)
        return 0
    files = list_files(tools[0].parts)
    faults = analyze(name, files, arguments)
    for fault in faults:
        print(f"{fault.path}:{fault.line}: {fault.text} [{name}/{fault.kind}]")
    print(f"{len(files)} files, {len(faults)} faults")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
