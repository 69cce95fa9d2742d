/* A clock that jumps, for the processes that load this: LD_PRELOAD.
 *
 * Programs get the time from the vDSO, through libc or directly, and neither can be interposed by symbol.
 * So this process's own copy of the vDSO code is overwritten with a jump into this file. The code here asks
 * the kernel and adds two shifts, both in whole seconds: one to the wall clock, one to the clock since boot.
 * The shifts are in a mapped file, so a test that writes the file moves the clocks of all its processes at
 * once. The monotonic clock is never moved: nobody can move it. Times of files come from the kernel and are
 * not shifted.
 */
#define _GNU_SOURCE
#include <elf.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#ifndef __x86_64__
#error "this knows the jump instruction of x86-64 only"
#endif

static volatile int64_t *shifts; /* wall, boot */

static int fake_clock_gettime(clockid_t id, struct timespec *now)
{
    long failed = syscall(SYS_clock_gettime, id, now);
    if (failed)
        return failed;
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE || id == CLOCK_TAI)
        now->tv_sec += shifts[0];
    if (id == CLOCK_BOOTTIME)
        now->tv_sec += shifts[1];
    return 0;
}

static int fake_gettimeofday(struct timeval *now, void *zone)
{
    long failed = syscall(SYS_gettimeofday, now, zone);
    if (!failed && now)
        now->tv_sec += shifts[0];
    return failed;
}

static time_t fake_time(time_t *place)
{
    time_t now = syscall(SYS_time, NULL) + shifts[0];
    if (place)
        *place = now;
    return now;
}

/* Without this check the test would pass without testing anything. */
static void refuse(const char *why)
{
    (void)!write(2, why, strlen(why));
    _exit(127);
}

static void overwrite(int memory, char *function, void *target)
{
    unsigned char code[12] = {0x48, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xe0}; /* mov rax, jmp rax */
    memcpy(code + 2, &target, 8);
    /* Writes despite the page's protection, as a debugger sets a breakpoint. */
    if (pwrite(memory, code, sizeof code, (off_t)(uintptr_t)function) != sizeof code)
        refuse("clock: the vDSO cannot be written\n");
}

__attribute__((constructor)) static void install(void)
{
    const char *path = getenv("RIG_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    void *mapped = mmap(NULL, 16, PROT_READ, MAP_SHARED, file, 0);
    if (file < 0 || mapped == MAP_FAILED)
        refuse("clock: no shifts in RIG_CLOCK\n");
    close(file);
    shifts = mapped;

    char *base = (char *)getauxval(AT_SYSINFO_EHDR);
    int memory = open("/proc/self/mem", O_RDWR | O_CLOEXEC);
    if (!base || memory < 0)
        refuse("clock: no vDSO, or no /proc/self/mem\n");
    Elf64_Ehdr *header = (Elf64_Ehdr *)base;
    Elf64_Phdr *segment = (Elf64_Phdr *)(base + header->e_phoff);
    Elf64_Dyn *entry = NULL;
    char *load = NULL;
    for (int i = 0; i < header->e_phnum; i++) {
        if (segment[i].p_type == PT_DYNAMIC)
            entry = (Elf64_Dyn *)(base + segment[i].p_offset);
        if (segment[i].p_type == PT_LOAD && !load)
            load = base + segment[i].p_offset - segment[i].p_vaddr;
    }
    Elf64_Sym *symbols = NULL;
    char *names = NULL;
    for (; entry && entry->d_tag != DT_NULL; entry++) {
        if (entry->d_tag == DT_SYMTAB)
            symbols = (Elf64_Sym *)(load + entry->d_un.d_ptr);
        if (entry->d_tag == DT_STRTAB)
            names = load + entry->d_un.d_ptr;
    }
    int found = 0;
    /* In every known vDSO the names follow the symbols. */
    for (Elf64_Sym *symbol = symbols; symbol && (char *)(symbol + 1) <= names; symbol++) {
        char *function = load + symbol->st_value;
        const char *name = names + symbol->st_name;
        if (!strcmp(name, "__vdso_clock_gettime")) {
            overwrite(memory, function, fake_clock_gettime);
            found = 1;
        } else if (!strcmp(name, "__vdso_gettimeofday")) {
            overwrite(memory, function, fake_gettimeofday);
        } else if (!strcmp(name, "__vdso_time")) {
            overwrite(memory, function, fake_time);
        }
    }
    if (!found)
        refuse("clock: the vDSO has no clock_gettime\n");
    close(memory);
}
