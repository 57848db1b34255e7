/*
 * Lets one process of at(1) judge many expressions: preloaded into it, it runs at's main in a child for
 * each line of standard input. A line is NOW, TZ and the words, apart by 0x1f; each gets one line:
 *
 *     at SECONDS            the instant of the job
 *     past SECONDS          refused as past
 *     garbled               refused, for any other reason
 *     broken STATUS         none of these
 *
 * `at -v` prints the time (asctime) before it reads the job: there the child ends, so no job is made.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { WORDS = 4000 };

static time_t now;
static long long reckoned;
static int (*at_main)(int, char **, char **);

time_t time(time_t *out)
{
    if (out)
        *out = now;
    return now;
}

time_t mktime(struct tm *tm)
{
    static time_t (*real)(struct tm *);
    if (!real)
        real = (time_t (*)(struct tm *)) dlsym(RTLD_NEXT, "mktime");
    return reckoned = real(tm);
}

char *asctime(const struct tm *tm)
{
    struct tm shown = *tm;
    dprintf(1, "at %lld\n", (long long) timegm(&shown) - tm->tm_gmtoff);
    _exit(0);
}

void exit(int status)
{
    dprintf(2, "\x1e%lld", reckoned);
    _exit(status);
}

static void judge(char *line, char **environment)
{
    char *words[WORDS] = {"at", "-v", "--"}, said[4096];
    int count = 3, ends[2], status, size = 0, got;
    char *pretended = strsep(&line, "\x1f"), *zone = strsep(&line, "\x1f");
    while (line && count < WORDS - 1)
        words[count++] = strsep(&line, "\x1f");
    if (pipe(ends))
        _exit(9);
    pid_t child = fork();
    if (!child) {
        close(0);
        dup2(ends[1], 2);
        now = atoll(pretended);
        setenv("TZ", zone, 1);
        status = at_main(count, words, environment);
        exit(status);
    }
    close(ends[1]);
    while ((got = read(ends[0], said + size, sizeof said - 1 - size)) > 0)
        size += got;
    said[size] = 0;
    close(ends[0]);
    waitpid(child, &status, 0);
    if (status == 0)
        return;
    char *mark = strrchr(said, '\x1e');
    if (mark)
        *mark = 0;
    if (mark && strstr(said, "in the past"))
        dprintf(1, "past %s\n", mark + 1);
    else if (mark && strstr(said, "Garbled time"))
        dprintf(1, "garbled\n");
    else
        dprintf(1, "broken %d\n", status);
}

static int serve(int argc, char **argv, char **environment)
{
    char *line = NULL;
    size_t room = 0;
    ssize_t size;
    (void) argc, (void) argv;
    while ((size = getline(&line, &room, stdin)) > 0) {
        line[size - 1] = 0;
        judge(line, environment);
    }
    return 0;
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void),
                      void (*fini)(void), void (*rtld_fini)(void), void *stack_end)
{
    int (*real)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void), void (*)(void),
                void *) = dlsym(RTLD_NEXT, "__libc_start_main");
    at_main = main;
    return real(serve, argc, argv, init, fini, rtld_fini, stack_end);
}
