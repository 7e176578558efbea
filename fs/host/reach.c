/* SPDX-License-Identifier: LGPL-2.1-or-later */
#include "fs/host/reach.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "qcow/base/cleanup.h"

enum { GROUPS_MAX = 256 };

struct user {
    char name[64]; /* "libvirt-qemu", or the number */
    uid_t uid;
    gid_t groups[GROUPS_MAX];
    int n_groups; /* -1: more than that */
};

static void read_user(struct user *user, uid_t uid, gid_t gid)
{
    struct passwd entry, *found = NULL;
    char buf[4096];
    user->uid = uid;
    user->groups[0] = gid;
    user->n_groups = 1;
    snprintf(user->name, sizeof(user->name), "%u", uid);
    if (getpwuid_r(uid, &entry, buf, sizeof(buf), &found) != 0 || !found)
        return;
    snprintf(user->name, sizeof(user->name), "%s", entry.pw_name);
    user->n_groups = GROUPS_MAX;
    if (getgrouplist(entry.pw_name, gid, user->groups, &user->n_groups) < 0)
        user->n_groups = -1;
}

static bool is_in_group(const struct user *user, gid_t gid)
{
    for (int i = 0; i < user->n_groups; i++)
        if (user->groups[i] == gid)
            return true;
    return user->n_groups < 0;
}

/* Only the class that applies counts: an owner is not let in by what others may. */
static bool may_search(const struct user *user, const char *dir)
{
    struct stat st;
    if (user->uid == 0 || stat(dir, &st) < 0 ||
        getxattr(dir, "system.posix_acl_access", NULL, 0) > 0)
        return true;
    if (st.st_uid == user->uid)
        return st.st_mode & S_IXUSR;
    if (is_in_group(user, st.st_gid))
        return st.st_mode & S_IXGRP || user->n_groups < 0;
    return st.st_mode & S_IXOTH;
}

int reach_check(const char *path, uid_t uid, gid_t gid, struct error *err)
{
    struct user user;
    auto_free char *dir = strdup(path);
    if (!dir)
        return error_set(err, -ENOMEM, "out of memory");
    read_user(&user, uid, gid);
    for (char *slash = strchr(dir + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        if (!may_search(&user, dir))
            return error_set(err, -EACCES,
                             "QEMU runs as user '%s', who may not search directory '%s'; allow it "
                             "(chmod o+x '%s') or give another place by scratch=DIR",
                             user.name, dir, dir);
        *slash = '/';
    }
    return 0;
}
