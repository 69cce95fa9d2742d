/* A recipe that prints the time of its first instruction: nanoseconds of CLOCK_MONOTONIC, to stdout or to
 * the file in its argument. Linked statically, so that little runs before `main`. */
#include <stdio.h>
#include <time.h>

int main(int count, char **arguments)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (count > 1 && !freopen(arguments[1], "w", stdout))
        return 1;
    printf("%lld\n", now.tv_sec * 1000000000LL + now.tv_nsec);
    return 0;
}
