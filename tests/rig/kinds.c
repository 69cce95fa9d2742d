/* Processes that are hard to find and to end, for table.rs. Each holds a shared flock on a file while it runs.
 * The lock shows a survivor, whatever /proc shows.
 *
 *   kinds KIND exit|stay FILE    starts processes of the kind, and creates FILE.ready when all of them are ready.
 *                                Then the leader exits with 7, or stays.
 *   kinds hold-exec FILE          creates FILE.held. From then on every exec of FILE hangs.
 *   kinds keep-children PID FILE  traces that process, creates FILE, and stops each child that the process starts
 *                                from then on: at its start, or, if FILE ends in ".dead", once it has ended.
 *   kinds without-pidfd PROGRAM ARGUMENT...    runs the program with pidfd_open and pidfd_send_signal refused.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char ready[4096];
static const char *self;

static void die(const char *what) {
    perror(what);
    _exit(99);
}

static void say_ready(void) {
    int file = open(ready, O_CREAT | O_WRONLY, 0666);
    if (file >= 0) close(file);
}

/* Bounded, in case a test leaves it behind. */
static void stay(void) {
    for (int i = 0; i < 120; i++) sleep(1);
    _exit(0);
}

static void be_there(void) {
    say_ready();
    stay();
}

static void leave_folder_and_output(void) {
    int null = open("/dev/null", O_RDWR);
    for (int fd = 0; fd < 3; fd++) dup2(null, fd);
    if (chdir("/")) die("chdir");
}

static void *live_on(void *unused) {
    (void)unused;
    be_there();
    return NULL;
}

static void end_main_thread(void) {
    pthread_t thread;
    if (pthread_create(&thread, NULL, live_on, NULL)) die("thread");
    pthread_exit(NULL);
}

/* Forks and lets the parent exit, again and again: as fast as it can once the leader has ended, and with pauses
 * before that and after the first thousands. Its dead are reaped by the first process of the machine. Where that one
 * is slow, a chaser that never pauses uses up all process numbers, and other tests fail to start a program. */
static void run_away(int leader) {
    long fast_hops = 2000;
    struct pollfd leader_ended = {leader, 0, 0};
    struct timespec started, now;
    clock_gettime(CLOCK_MONOTONIC, &started);
    for (long hop = 0;; hop++) {
        pid_t child = fork();
        if (child < 0) continue;
        if (child > 0) _exit(0);
        setsid();
        if (hop == 3) say_ready();
        if (fast_hops == 0) usleep(5000);
        else if (poll(&leader_ended, 1, 5) > 0) fast_hops--;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - started.tv_sec > 30) _exit(0);
    }
}

static void trace(pid_t tracee) {
    if (ptrace(PTRACE_SEIZE, tracee, 0, 0)) die("seize");
    be_there();
}

static void enter_namespaces(int with_environment) {
    if (geteuid() != 0 && unshare(CLONE_NEWUSER)) die("user namespace");
    if (unshare(CLONE_NEWPID)) die("pid namespace");
    pid_t first = fork();
    if (first == 0) {
        if (!with_environment) {
            /* As container engines do: the processes inside end with their supervisor. */
            prctl(PR_SET_PDEATHSIG, SIGKILL);
            char *const arguments[] = {(char *)self, "rest", "stay", ready, NULL};
            char *const nothing[] = {NULL};
            execve(self, arguments, nothing);
            die("exec");
        }
        if (fork() == 0) be_there();
        stay();
    }
    waitpid(first, NULL, 0);
    _exit(0);
}

static void exec_rest(const char *program, int cleared) {
    char *const arguments[] = {(char *)program, "rest", "stay", ready, NULL};
    char *const nothing[] = {NULL};
    execve(program, arguments, cleared ? nothing : environ);
    die("exec");
}

/* `leader_ends` is a pipe whose other end only the leader keeps. */
static void be(const char *kind, pid_t leader, int leader_ends) {
    char other[4096];
    if (!strcmp(kind, "plain")) be_there();
    if (!strcmp(kind, "thread")) end_main_thread();
    if (!strcmp(kind, "cut-name")) {
        prctl(PR_SET_NAME, "abcdefghijklmn\xc3");
        be_there();
    }
    if (!strcmp(kind, "undumpable")) {
        prctl(PR_SET_DUMPABLE, 0);
        be_there();
    }
    if (!strcmp(kind, "setuid")) {
        snprintf(other, sizeof other, "%s-setuid", self);
        exec_rest(other, 0);
    }
    if (!strcmp(kind, "setsid")) {
        setsid();
        be_there();
    }
    if (!strcmp(kind, "double-fork")) {
        setsid();
        if (fork()) _exit(0);
        leave_folder_and_output();
        be_there();
    }
    if (!strcmp(kind, "chaser")) run_away(leader_ends);
    if (!strcmp(kind, "cleared")) {
        leave_folder_and_output();
        exec_rest(self, 1);
    }
    if (!strcmp(kind, "cleared-elsewhere")) {
        setsid();
        leave_folder_and_output();
        exec_rest(self, 1);
    }
    if (!strcmp(kind, "cleared-writes")) {
        setsid();
        if (open("kept", O_CREAT | O_WRONLY, 0600) < 0) die("kept");
        leave_folder_and_output();
        exec_rest(self, 1);
    }
    if (!strcmp(kind, "traced")) trace(leader);
    if (!strcmp(kind, "stopped")) {
        say_ready();
        raise(SIGSTOP);
        stay();
    }
    if (!strcmp(kind, "namespaces")) {
        setsid();
        enter_namespaces(1);
    }
    if (!strcmp(kind, "agent")) {
        setsid();
        if (fork()) _exit(0);
        leave_folder_and_output();
        prctl(PR_SET_DUMPABLE, 0);
        be_there();
    }
    if (!strcmp(kind, "container")) {
        setsid();
        leave_folder_and_output();
        enter_namespaces(0);
    }
    _exit(98);
}

static int refuse_pidfd(char **command) {
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_open, 1, 0),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pidfd_send_signal, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof filter / sizeof *filter, filter};
    /* Only root may install a filter without it. With it set-user-id programs lose their effect. */
    if (geteuid() != 0) prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) die("seccomp");
    execvp(command[0], command);
    die("exec");
    return 1;
}

static int hold_exec(const char *file) {
    int events = fanotify_init(FAN_CLASS_CONTENT, O_RDONLY);
    if (events < 0) die("fanotify");
    if (fanotify_mark(events, FAN_MARK_ADD, FAN_OPEN_EXEC_PERM, AT_FDCWD, file)) die("mark");
    snprintf(ready, sizeof ready, "%s.held", file);
    be_there();
    return 1;
}

/* A new child stays stopped. A child that has ended is never waited for, so no other process can reap it. */
static int keep_children(pid_t parent, const char *file) {
    long options = PTRACE_O_TRACEFORK | PTRACE_O_TRACEVFORK;
    int is_after_exit = strstr(file, ".dead") != NULL, is_kept = 0;
    if (ptrace(PTRACE_SEIZE, parent, 0, options)) die("seize");
    strcpy(ready, file);
    say_ready();
    alarm(60);
    for (;;) {
        int status;
        pid_t pid = waitpid(is_kept ? parent : -1, &status, __WALL);
        if (pid < 0) pause();
        if (!WIFSTOPPED(status)) continue;
        if (pid != parent) {
            is_kept = 1;
            if (!is_after_exit) continue;
        }
        int is_event = status >> 16 || WSTOPSIG(status) == SIGTRAP;
        ptrace(PTRACE_CONT, pid, 0, is_event ? 0 : WSTOPSIG(status));
    }
}

int main(int count, char **arguments) {
    if (count == 3 && !strcmp(arguments[1], "hold-exec")) return hold_exec(arguments[2]);
    if (count == 4 && !strcmp(arguments[1], "keep-children"))
        return keep_children(atoi(arguments[2]), arguments[3]);
    if (count > 2 && !strcmp(arguments[1], "without-pidfd")) return refuse_pidfd(arguments + 2);
    if (count != 4) return 97;
    const char *kind = arguments[1];
    int stays = !strcmp(arguments[2], "stay");
    if (!strcmp(kind, "rest")) {
        strcpy(ready, arguments[3]);
        be_there();
    }
    self = realpath(arguments[0], NULL);
    snprintf(ready, sizeof ready, "%s.ready", arguments[3]);
    int held = open(arguments[3], O_RDONLY);
    if (held < 0 || flock(held, LOCK_SH)) die("held");
    if (!strcmp(kind, "leader-thread")) {
        if (stays) end_main_thread();
        say_ready();
        _exit(7);
    }
    pid_t leader = getpid();
    int ends[2];
    if (pipe2(ends, O_CLOEXEC)) die("pipe");
    if (fork() == 0) {
        close(ends[1]);
        be(kind, leader, ends[0]);
    }
    for (int i = 0; i < 10000 && access(ready, F_OK); i++) usleep(1000);
    if (access(ready, F_OK)) _exit(96);
    if (stays) stay();
    return 7;
}
