/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/options.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

enum { ARGS_MAX = 16 };

/* Parses "virtsnapfs" and the arguments up to NULL. */
static int parse(struct options *ret_options, struct error *err, char *const *args)
{
    char *argv[ARGS_MAX + 1] = {"virtsnapfs"};
    int argc = 1;
    for (; args[argc - 1]; argc++) {
        assert_true(argc < ARGS_MAX);
        argv[argc] = args[argc - 1];
    }
    return options_parse(argc, argv, ret_options, err);
}

#define ARGS(...) ((char *[]){__VA_ARGS__, NULL})

static void check_parses(struct options *ret_options, char *const *args)
{
    struct error err = {0};
    int r = parse(ret_options, &err, args);
    if (r < 0)
        fail_msg("%s", err.text);
}

/* Refused with a reason that says @what. */
static void check_refused(const char *what, char *const *args)
{
    struct options o;
    struct error err = {0};
    assert_int_equal(parse(&o, &err, args), -EINVAL);
    if (!strstr(err.text, what))
        fail_msg("'%s' does not say '%s'", err.text, what);
    options_fini(&o);
}

static void check_list_refused(char *list, const char *what)
{
    check_refused(what, ARGS("-o", list, "test:///default", "/mnt"));
}

static void defaults_are_those_of_the_contract(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("qemu:///system", "/mnt/vms"));
    assert_int_equal(o.action, OPTIONS_SERVE);
    assert_string_equal(o.source, "qemu:///system");
    assert_null(o.dir);
    assert_string_equal(o.mountpoint, "/mnt/vms");
    assert_int_equal(o.live, OPTIONS_LIVE_AUTO);
    assert_int_equal(o.cold, OPTIONS_COLD_LOCK);
    assert_int_equal(o.quiesce, OPTIONS_QUIESCE_TRY);
    assert_true(o.min_free_len == OPTIONS_MIN_FREE_DEFAULT);
    assert_int_equal(o.list, OPTIONS_LIST_RAW);
    assert_int_equal(o.format, OPTIONS_FORMAT_NONE);
    assert_int_equal(o.join_s, 60);
    assert_int_equal(o.linger_s, 5);
    assert_int_equal(o.max_hold_s, 86400);
    assert_int_equal(o.timeout_s, 30);
    assert_int_equal(o.max_open, 16);
    assert_in_range(o.n_threads, 1, sysconf(_SC_NPROCESSORS_CONF));
    assert_int_equal(o.cache_len, 64 << 20);
    assert_int_equal(o.uid, geteuid());
    assert_int_equal(o.gid, getegid());
    assert_int_equal(o.umask, 077);
    assert_false(o.is_foreground || o.is_debug || o.is_single_thread || o.allow_other || o.is_ro);
    assert_true(o.is_sandboxed);
    options_fini(&o);
}

static void the_sandbox_is_on_or_off(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("a:", "/m", "-o", "sandbox=no"));
    assert_false(o.is_sandboxed);
    options_fini(&o);
    check_parses(&o, ARGS("a:", "/m", "--sandbox=yes"));
    assert_true(o.is_sandboxed);
    options_fini(&o);
    check_list_refused("sandbox", "sandbox needs a value");
    check_list_refused("sandbox=", "sandbox: ''");
    check_list_refused("sandbox=off", "sandbox: 'off'");
}

static void options_may_stand_anywhere(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("qemu:///system", "-f", "/mnt", "-s", "-o", "ro,join=5"));
    assert_string_equal(o.mountpoint, "/mnt");
    assert_true(o.is_foreground && o.is_single_thread && o.is_ro);
    assert_int_equal(o.join_s, 5);
    options_fini(&o);
    check_parses(&o, ARGS("-dojoin=6,allow_other", "--", "qemu:///system", "-mnt"));
    assert_true(o.is_debug && o.is_foreground && o.allow_other);
    assert_int_equal(o.join_s, 6);
    assert_non_null(strstr(o.mountpoint, "/-mnt"));
    options_fini(&o);
}

static void long_options_are_the_same_as_words(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("--live=overlay", "--max-hold", "2d", "--allow_other", "--linger=1m",
                          "--quiesce=require", "test:///default", "/mnt"));
    assert_int_equal(o.live, OPTIONS_LIVE_OVERLAY);
    assert_int_equal(o.quiesce, OPTIONS_QUIESCE_REQUIRE);
    assert_int_equal(o.max_hold_s, 172800);
    assert_int_equal(o.linger_s, 60);
    assert_true(o.allow_other);
    options_fini(&o);
}

static void units_are_understood(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("-o", "join=90s,linger=0,max_hold=3h,timeout=2m,cache=1G", "a:", "/m"));
    assert_int_equal(o.join_s, 90);
    assert_int_equal(o.linger_s, 0);
    assert_int_equal(o.max_hold_s, 10800);
    assert_int_equal(o.timeout_s, 120);
    assert_int_equal(o.cache_len, 1 << 30);
    options_fini(&o);
    check_parses(&o, ARGS("-o",
                          "cache=512k,umask=0227,uid=1000,gid=0,max_open=3,threads=5,max_uploads=7",
                          "a:", "/m"));
    assert_int_equal(o.cache_len, 512 << 10);
    assert_int_equal(o.umask, 0227);
    assert_int_equal(o.uid, 1000);
    assert_int_equal(o.gid, 0);
    assert_int_equal(o.max_open, 3);
    assert_int_equal(o.n_threads, 5);
    assert_int_equal(o.max_uploads, 7);
    options_fini(&o);
}

static void values_may_hold_escaped_commas(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("-o", "state=/a\\,b\\\\c,ro,backing_dir=/x,backing_dir=/y", "a:", "/m"));
    assert_string_equal(o.state_dir, "/a,b\\c");
    assert_true(o.is_ro);
    assert_int_equal(o.n_backing_dirs, 2);
    assert_string_equal(o.backing_dirs[0], "/x");
    assert_string_equal(o.backing_dirs[1], "/y");
    options_fini(&o);
}

static void each_word_has_its_value(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("-o", "live=overlay,cold=internal,quiesce=require,list=all", "a:", "/m"));
    assert_int_equal(o.list, OPTIONS_LIST_ALL);
    assert_int_equal(o.live, OPTIONS_LIVE_OVERLAY);
    assert_int_equal(o.cold, OPTIONS_COLD_INTERNAL);
    assert_int_equal(o.quiesce, OPTIONS_QUIESCE_REQUIRE);
    options_fini(&o);
    check_parses(&o, ARGS("-o", "live=backup,cold=overlay,quiesce=never,list=qcow2", "a:", "/m"));
    assert_int_equal(o.list, OPTIONS_LIST_QCOW2);
    assert_int_equal(o.live, OPTIONS_LIVE_BACKUP);
    assert_int_equal(o.cold, OPTIONS_COLD_OVERLAY);
    assert_int_equal(o.quiesce, OPTIONS_QUIESCE_NEVER);
    options_fini(&o);
    check_parses(&o, ARGS("--live=copy", "--cold=overlay", "--cold=lock", "a:", "/m"));
    assert_int_equal(o.live, OPTIONS_LIVE_COPY);
    assert_int_equal(o.cold, OPTIONS_COLD_LOCK);
    options_fini(&o);
    check_parses(&o, ARGS("--live=managedsave", "--min-free=3G", "a:", "/m"));
    assert_int_equal(o.live, OPTIONS_LIVE_MANAGEDSAVE);
    assert_true(o.min_free_len == 3ULL << 30);
    options_fini(&o);
    check_parses(&o, ARGS("-o", "live=managedsave,live=auto,min_free=0", "a:", "/m"));
    assert_int_equal(o.live, OPTIONS_LIVE_AUTO);
    assert_true(o.min_free_len == 0);
    options_fini(&o);
}

static void recover_takes_a_source_only(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("--recover", "qemu:///system", "-o", "state=/s"));
    assert_int_equal(o.action, OPTIONS_RECOVER);
    assert_string_equal(o.source, "qemu:///system");
    assert_null(o.mountpoint);
    assert_string_equal(o.state_dir, "/s");
    options_fini(&o);
    check_parses(&o, ARGS("dir:/a", "--recover"));
    assert_string_equal(o.dir, "/a");
    assert_non_null(o.state_dir);
    options_fini(&o);
    check_refused("SOURCE is missing", ARGS("--recover"));
    check_refused("SOURCE is empty", ARGS("--recover", ""));
    check_refused("one argument too many: '/m'", ARGS("--recover", "a:", "/m"));
    check_refused("recover takes no value", ARGS("--recover=a:"));
}

static void wait_takes_a_mountpoint_only(void **state)
{
    (void)state;
    struct options o;
    assert_int_equal(chdir("/usr"), 0);
    check_parses(&o, ARGS("--wait", "mnt"));
    assert_int_equal(o.action, OPTIONS_WAIT);
    assert_null(o.source);
    assert_null(o.dir);
    assert_string_equal(o.mountpoint, "/usr/mnt");
    assert_non_null(o.state_dir);
    options_fini(&o);
    check_refused("MOUNTPOINT is missing", ARGS("--wait"));
    check_refused("MOUNTPOINT: an empty path", ARGS("--wait", ""));
    check_refused("one argument too many: '/m'", ARGS("a:", "/m", "--wait"));
    check_refused("exclude each other", ARGS("--wait", "--recover", "a:"));
    check_refused("exclude each other", ARGS("--recover", "--wait", "a:"));
}

/* A daemon changes to /, where a relative path would lead elsewhere. */
static void paths_become_absolute(void **state)
{
    (void)state;
    struct options o;
    assert_int_equal(chdir("/usr"), 0);
    check_parses(&o, ARGS("-o", "scratch=s,state=t", "dir:images", "mnt"));
    assert_string_equal(o.source, "dir:/usr/images");
    assert_string_equal(o.dir, "/usr/images");
    assert_string_equal(o.mountpoint, "/usr/mnt");
    assert_string_equal(o.scratch_dir, "/usr/s");
    assert_string_equal(o.state_dir, "/usr/t");
    options_fini(&o);
}

static void words_of_mount_are_dropped(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("a:", "/m", "-o",
                          /* lint: clang-tidy/bugprone-suspicious-missing-comma: one string */
                          "rw,nofail,_netdev,user=joe,noauto,nosuid,nodev,noexec,relatime,"
                          "x-systemd.automount,comment=hello world,subtype=virtsnapfs,,defaults"));
    options_fini(&o);
}

static void unknown_words_are_errors(void **state)
{
    (void)state;
    check_list_refused("rw,lvie=auto", "unknown option 'lvie=auto'");
    check_list_refused("fsname=x", "unknown option 'fsname=x'");
    check_list_refused("joi=5", "unknown option 'joi=5'");
    check_refused("unknown option '--nosuch'", ARGS("--nosuch", "a:", "/m"));
    check_refused("unknown option '-x'", ARGS("-fx", "a:", "/m"));
}

static void senseless_values_are_errors(void **state)
{
    (void)state;
    check_list_refused("live=no", "live: 'no' is not auto, overlay, backup, copy or managedsave");
    check_list_refused("live=", "live: ''");
    check_list_refused("cold=backup", "cold: 'backup' is not lock, internal or overlay");
    check_list_refused("quiesce=yes", "quiesce: 'yes' is not try, require or never");
    check_list_refused("list=none", "list: 'none' is not raw, qcow2 or all");
    check_list_refused("format=vmdk", "format: 'vmdk' is not raw or qcow2");
    check_list_refused("min_free=5%", "min_free: '5%' is not a number of bytes");
    check_list_refused("min_free=-1", "min_free");
    check_list_refused("min_free=9223372036854775807", "min_free");
    check_list_refused("join=", "join: ''");
    check_list_refused("join=-1", "join: '-1'");
    check_list_refused("join=5x", "join: '5x'");
    check_list_refused("join=5mm", "join: '5mm'");
    check_list_refused("join=99999999999999999999", "join");
    check_list_refused("max_hold=213503982334602d", "max_hold");
    check_list_refused("timeout=0", "timeout: '0'");
    check_list_refused("max_open=0", "max_open: '0'");
    check_list_refused("threads=0", "threads: '0'");
    check_list_refused("threads=257", "threads: '257'");
    check_list_refused("max_uploads=0", "max_uploads: '0'");
    check_list_refused("cache=64Q", "cache: '64Q'");
    check_list_refused("cache=17179869184G", "cache");
    check_list_refused("uid=4294967295", "uid");
    check_list_refused("uid=root", "uid: 'root'");
    check_list_refused("umask=8", "umask: '8'");
    check_list_refused("umask=1000", "umask: '1000'");
    check_list_refused("state=", "state");
}

static void values_are_asked_for_where_they_belong(void **state)
{
    (void)state;
    check_list_refused("join", "join needs a value");
    check_list_refused("allow_other=1", "allow_other takes no value");
    check_refused("-o needs a value", ARGS("a:", "/m", "-o"));
    check_refused("join needs a value", ARGS("a:", "/m", "--join"));
}

static void source_and_mountpoint_are_required(void **state)
{
    (void)state;
    check_refused("SOURCE is missing", ARGS("-f"));
    check_refused("MOUNTPOINT is missing", ARGS("qemu:///system"));
    check_refused("one argument too many: 'c'", ARGS("a", "b", "c"));
    check_refused("SOURCE is empty", ARGS("", "/m"));
    check_refused("MOUNTPOINT", ARGS("a:", ""));
    check_refused("SOURCE 'dir:'", ARGS("dir:", "/m"));
}

static void help_and_version_need_nothing_else(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("-h"));
    assert_int_equal(o.action, OPTIONS_HELP);
    options_fini(&o);
    check_parses(&o, ARGS("--version"));
    assert_int_equal(o.action, OPTIONS_VERSION);
    options_fini(&o);
    check_parses(&o, ARGS("--help", "--recover", "--wait"));
    assert_int_equal(o.action, OPTIONS_HELP);
    options_fini(&o);
}

static void state_directory_follows_the_environment(void **state)
{
    (void)state;
    struct options o;
    setenv("XDG_STATE_HOME", "/xdg", 1);
    check_parses(&o, ARGS("a:", "/m"));
    assert_string_equal(o.state_dir, geteuid() == 0 ? "/var/lib/virtsnapfs" : "/xdg/virtsnapfs");
    options_fini(&o);
}

static void the_later_of_ro_and_rw_counts(void **state)
{
    (void)state;
    struct options o;
    check_parses(&o, ARGS("-o", "ro,rw", "test:///default", "/mnt"));
    assert_false(o.is_ro);
    options_fini(&o);
    check_parses(&o, ARGS("-o", "rw,ro", "test:///default", "/mnt"));
    assert_true(o.is_ro);
    options_fini(&o);
}

static void a_remount_is_refused(void **state)
{
    (void)state;
    check_list_refused("ro,remount", "cannot be changed");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_are_those_of_the_contract),
        cmocka_unit_test(options_may_stand_anywhere),
        cmocka_unit_test(the_sandbox_is_on_or_off),
        cmocka_unit_test(long_options_are_the_same_as_words),
        cmocka_unit_test(units_are_understood),
        cmocka_unit_test(values_may_hold_escaped_commas),
        cmocka_unit_test(each_word_has_its_value),
        cmocka_unit_test(recover_takes_a_source_only),
        cmocka_unit_test(wait_takes_a_mountpoint_only),
        cmocka_unit_test(paths_become_absolute),
        cmocka_unit_test(words_of_mount_are_dropped),
        cmocka_unit_test(unknown_words_are_errors),
        cmocka_unit_test(senseless_values_are_errors),
        cmocka_unit_test(values_are_asked_for_where_they_belong),
        cmocka_unit_test(source_and_mountpoint_are_required),
        cmocka_unit_test(help_and_version_need_nothing_else),
        cmocka_unit_test(state_directory_follows_the_environment),
        cmocka_unit_test(the_later_of_ro_and_rw_counts),
        cmocka_unit_test(a_remount_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
