# SPDX-License-Identifier: LGPL-2.1-or-later
"""What the program may log during the stress run: state changes (info) as it likes, and those
warnings and errors that the disturbances explain."""
import re

SANITIZER = re.compile(r"ERROR: \w+Sanitizer|runtime error:|WARNING: ThreadSanitizer|Assertion|"
                       r"terminate called|Fatal|stack smashing")

WARNINGS = [
    "lost the connection to libvirt",
    "uploads have not ended: they are cancelled",
    "file systems may still be frozen",
    "for them to be thawed",
    "had died: detached that mount",
    "is left to the next mount or to --recover",
    "lost the connection within image",
]

# Ends of "domain 'NAME': WHAT: REASON".
REASONS = [
    # Readers, and what the methods cannot do.
    "an instant taken .* is still read by (pid|upload) ",
    "instants are open already",
    "internal snapshots need qcow2",
    "is transient",
    "has a managed-save image",
    "the file system is being unmounted",
    # The domain changed.
    "is open for writing in another process",
    "was started meanwhile",
    "the domain was (stopped|started) while its disks were read",
    "is (off|running|paused|shut off|gone|not running)",
    "(Domain|domain) (is|not|has)",
    "cannot (save|copy|put|ask|start|take|freeze|thaw|begin|end|delete|make|read|open|define|look)",
    # Not undone at once.
    "could not be put back",
    "cannot be put back yet",
    "an earlier instant was not put back",
    "what an earlier mount left in the domain is being undone",
    "has a (block )?job running",
    "NBD export",
    "copying disk .* failed( at its end|, or was ended by somebody)",
    # Libvirtd went away.
    "libvirt",
]

LINE = re.compile(r"virtsnapfs: (info|warning|error): (.*)")


def is_expected(line):
    found = LINE.match(line)
    if not found:
        return False
    level, text = found.groups()
    return level == "info" or \
        any(re.search(p, text) for p in (WARNINGS if level == "warning" else REASONS))


def shape_of(line):
    """The line without names and numbers, so that alike ones are counted together."""
    line = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}", "ID", line)
    line = re.sub(r"(?<!\w)'[^']*'", "'...'", line)
    return re.sub(r"\d+(, \d+)*", "N", line)
